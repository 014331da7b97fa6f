"""Leak reports of GitHub: what its secret scanning tells the partner whose tokens it found.

By "Secret scanning partner program" in the documentation of GitHub: a JSON list of matches, signed as it is by
ECDSA-NIST-P256V1-SHA256, with the key and the signature named in two headers.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from pdp.errors import ConfigurationError, InvalidJSONError
from pdp.foundation.jsontext import parse, parse_object
from pdp.identity.keysets import KeySet
from pdp.identity.tokens import TokenRefusedError, UnknownKeyError, WrongSignatureError
from pdp.signals.leaks import Leak

KEYS_URL: Final = "https://api.github.com/meta/public_keys/secret_scanning"
_KEY_ID, _SIGNATURE = "github-public-key-identifier", "github-public-key-signature"
_ALGORITHM: Final = "ES256"
_COORDINATE_BYTES: Final = 32
# Of a signature in DER, in base64.
_SIGNATURE_CHARACTERS: Final = 128
_MOST_CHARACTERS: Final = 64 * 1024


class GitHubReports:
    """The format `github`."""

    once: tuple[str, ...] = (_KEY_ID, _SIGNATURE)

    def as_jwks(self, name: str, text: bytes) -> bytes:
        """Return the published keys as a JSON Web Key Set. Raise `ConfigurationError`."""
        try:
            entries = parse_object(text).get("public_keys")
        except InvalidJSONError as error:
            raise ConfigurationError(f"`{name}` holds no keys of GitHub: {error}") from None
        if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
            raise ConfigurationError(f"`{name}` holds no keys of GitHub: there is no list `public_keys`")
        return json.dumps({"keys": [_jwk(name, one) for one in entries]}).encode()

    def read(self, headers: Mapping[str, str], body: bytes, keys: KeySet) -> tuple[Leak, ...]:
        """Return the matches of a report. Raise `TokenRefusedError`; nothing is parsed before the signature."""
        key = keys.get(headers.get(_KEY_ID, ""))
        if key is None:
            raise UnknownKeyError("its key is not known")
        public = key.public.public_key
        if not isinstance(public, ec.EllipticCurvePublicKey) or _ALGORITHM not in key.algorithms:
            raise UnknownKeyError("its key is not for its algorithm")
        try:
            public.verify(_decoded(headers.get(_SIGNATURE, "")), body, ec.ECDSA(SHA256()))
        except InvalidSignature:
            raise WrongSignatureError("its signature is wrong") from None
        return tuple(map(_leak, _matches(body)))


def _jwk(name: str, entry: Mapping[str, Any]) -> Mapping[str, str]:
    key_id, pem = entry.get("key_identifier"), entry.get("key")
    try:
        key = load_pem_public_key(pem.encode("ascii")) if isinstance(pem, str) else None
    except ValueError:
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ConfigurationError(f"`{name}` holds a key that is not of P-256")
    numbers = key.public_numbers()
    x, y = (_encoded(one.to_bytes(_COORDINATE_BYTES)) for one in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y, "alg": _ALGORITHM, "use": "sig", "kid": str(key_id or "")}


def _matches(body: bytes) -> list[Any]:
    try:
        found = parse(body)
    except InvalidJSONError as error:
        raise TokenRefusedError(f"its body is refused: {error}") from None
    if not isinstance(found, list) or not found:
        raise TokenRefusedError("it is not a list of matches")
    return found


def _leak(match: object) -> Leak:
    token, kind = (match.get(one) for one in ("token", "type")) if isinstance(match, dict) else (None, None)
    if not isinstance(token, str) or not isinstance(kind, str) or not 0 < len(token) <= _MOST_CHARACTERS:
        raise TokenRefusedError("a match has no `token` or no `type`")
    return Leak(secret=token, type=kind)


def _decoded(text: str) -> bytes:
    if len(text) > _SIGNATURE_CHARACTERS:
        raise WrongSignatureError("its signature is too long")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise WrongSignatureError("its signature is not base64") from None


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
