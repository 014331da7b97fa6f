"""The keys that verify JSON Web Tokens, read repeatedly from a JWKS file or URL."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from pdp.clock import Clock
from pdp.errors import ConfigurationError, InvalidJSONError, UnavailableError
from pdp.foundation.jsontext import parse_object
from pdp.foundation.webfile import WebFileError

_LOG = logging.getLogger("pdp.server")

JWKS_BYTES = 128 * 1024
_MOST_KEYS = 100
_FEWEST_RSA_BITS = 2048
_MOST_RSA_BITS = 8192

# What each kind of key can verify. No other kind is accepted: a secret that verifies could sign as well.
ALGORITHMS: Mapping[tuple[str, str], frozenset[str]] = MappingProxyType(
    {
        ("RSA", ""): frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
        ("EC", "P-256"): frozenset({"ES256"}),
        ("EC", "P-384"): frozenset({"ES384"}),
        ("EC", "P-521"): frozenset({"ES512"}),
        ("OKP", "Ed25519"): frozenset({"EdDSA", "Ed25519"}),
    }
)

PublicKey: TypeAlias = RSAKey | ECKey | OKPKey
Read = Callable[[], bytes | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyingKey:
    """A public key, and the algorithms that it can be used with."""

    public: PublicKey = field(repr=False)
    algorithms: frozenset[str]


KeySet: TypeAlias = Mapping[str, VerifyingKey]


class TrustedKeys:
    """The present keys of an issuer. Safe for threads; `refresh` is for one thread.

    `read` returns the text of a JWKS, or None when it has not changed; it raises `ConfigurationError` or
    `WebFileError`. Keys that were not confirmed for `longest_seconds` no longer count: otherwise silencing the source
    would keep a withdrawn key in use. `pause_seconds` is the shortest time between two readings for an unknown key.
    """

    def __init__(
        self, read: Read, *, name: str, clock: Clock, longest_seconds: float, pause_seconds: float = 10.0
    ) -> None:
        self._read = read
        self._name = name
        self._clock = clock
        self._longest_seconds = longest_seconds
        self._pause_seconds = pause_seconds
        self._text: bytes | None = None
        self._keys: KeySet | None = None
        self._confirmed_at = 0.0
        self._asked_at: float | None = None
        self._reported = ""
        self.wake: Callable[[], None] = lambda: None

    def load(self) -> None:
        """Read for the first time. Raise `ConfigurationError` when there is no usable key."""
        try:
            self._take(self._read())
        except WebFileError as error:
            raise ConfigurationError(f"`{self._name}` {error}") from None

    def refresh(self) -> None:
        """Read again; when that fails, keep the present keys and log that once. Never raises."""
        problem = ""
        try:
            self._take(self._read())
        except WebFileError as error:
            problem = f"`{self._name}` {error}"
        except ConfigurationError as error:
            problem = str(error)
        if problem and problem != self._reported:
            left = "so the last good ones stay in use" if self._keys is not None else "so no JSON Web Token is accepted"
            _LOG.error("the keys of the token issuer could not be read, %s: %s", left, problem)
        self._reported = problem

    def current(self) -> KeySet:
        """Return the keys by their ids, the same object until they change.

        Raise `UnavailableError` while there are no confirmed keys.
        """
        keys = self._keys
        if keys is None or self._clock.now().boot_at - self._confirmed_at > self._longest_seconds:
            raise UnavailableError("the keys of the token issuer are not available; try again")
        return keys

    def read_again(self) -> bool:
        """Start reading the keys again for an unknown key. Return False when that was done a moment ago."""
        now = self._clock.now().boot_at
        if self._asked_at is not None and now - self._asked_at < self._pause_seconds:
            return False
        self._asked_at = now
        self.wake()
        return True

    def _take(self, text: bytes | None) -> None:
        asked_at = self._clock.now().boot_at
        if text is not None and text != self._text:
            self._keys = read_keys(self._name, text)
            self._text = text
            _LOG.info("the token issuer's keys are now: %s", ", ".join(f"`{name}`" for name in self._keys))
        self._confirmed_at = asked_at


def read_keys(name: str, text: bytes) -> KeySet:
    """Return the keys of a JWKS by their ids, without keys for other purposes and of unknown kinds.

    Raise `ConfigurationError` for a private key, a repeated id, a weak or broken key, or when no key is usable.
    """
    try:
        entries = parse_object(text).get("keys") if text.strip() else None
    except InvalidJSONError as error:
        raise ConfigurationError(f"`{name}` is not a JWKS: {error}") from None
    if not isinstance(entries, list) or len(entries) > _MOST_KEYS:
        raise ConfigurationError(
            f"`{name}` is not a JWKS: it must be an object with a list `keys` of at most {_MOST_KEYS}"
        )
    found: dict[str, VerifyingKey] = {}
    for number, entry in enumerate(entries, start=1):
        problem = _problem(entry)
        if problem:
            raise ConfigurationError(f"`{name}`: key {number} {problem}")
        algorithms = _algorithms(entry)
        if not algorithms:
            continue
        key_id = entry.get("kid")
        if not isinstance(key_id, str) or not key_id.isprintable() or not key_id:
            raise ConfigurationError(f"`{name}`: key {number} has no `kid`")
        if key_id in found:
            raise ConfigurationError(f"`{name}`: two keys have the `kid` `{key_id}`")
        found[key_id] = VerifyingKey(public=_public(name, number, entry), algorithms=algorithms)
    if not found:
        raise ConfigurationError(f"`{name}` holds no public key that could verify a token")
    return MappingProxyType(found)


def _problem(entry: object) -> str:
    if not isinstance(entry, dict):
        return "is not an object"
    if "d" in entry or "k" in entry:
        return "is a private key: publish only public keys"
    return ""


def _algorithms(entry: dict[str, Any]) -> frozenset[str]:
    """Return what a key can verify: nothing, when it is for another purpose."""
    kind, curve = entry.get("kty"), entry.get("crv", "")
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(kind, str) or not isinstance(curve, str) or not isinstance(operations, list):
        return frozenset()
    if entry.get("use", "sig") != "sig" or "verify" not in operations:
        return frozenset()
    able = ALGORITHMS.get((kind, curve), frozenset())
    return able & {entry["alg"]} if isinstance(entry.get("alg"), str) else able


def _public(name: str, number: int, entry: dict[str, Any]) -> PublicKey:
    wanted: dict[str, Any] = {part: entry[part] for part in ("kty", "crv", "n", "e", "x", "y") if part in entry}
    kinds: Mapping[str, type[PublicKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
    try:
        key = kinds[entry["kty"]].import_key(wanted)
        public = key.public_key
        bits = public.key_size if isinstance(public, RSAPublicKey) else _FEWEST_RSA_BITS
    except (JoseError, ValueError, TypeError):
        raise ConfigurationError(f"`{name}`: key {number} is broken") from None
    if not _FEWEST_RSA_BITS <= bits <= _MOST_RSA_BITS:
        raise ConfigurationError(
            f"`{name}`: key {number} has `{bits}` bits, not {_FEWEST_RSA_BITS} to {_MOST_RSA_BITS}"
        )
    return key
