"""What a call token states, and how that is written: a JSON Web Token (RFC 7519) of one kind."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, Self, TypeVar

from pdp.calltokens.refusals import CallTokenRefusedError, Reason
from pdp.calltokens.strictjson import strict_decoder

TYPE: Final = "pdp-call+jwt"
ALGORITHM: Final = "Ed25519"
# The header that carries a call token; in a message of MCP over pipes, the member of `_meta`.
HEADER: Final = "pdp-call-token"
# Of a token with the longest names and all that can be in it; a longer one is refused unread.
MOST_TOKEN_BYTES: Final = 8 * 1024
# The longest life of a token. One that claims more is not ours.
MOST_SECONDS: Final = 60
# A URI or a name: whatever the tool server compares.
AUDIENCE: Final = re.compile(r"[!-~]{1,256}")
# A kind of downstream connection, such as `github`, and a scope as OAuth has it (RFC 6749, 3.3).
CONNECTION_KIND: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
CONNECTION_SCOPE: Final = re.compile(r"[!#-\[\]-~]{1,128}")
MOST_SCOPES: Final = 32
# A SHA-256 in base64url, without padding.
THUMBPRINT: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_BASE64 = re.compile(r"[A-Za-z0-9_-]*\Z")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_SALT_BYTES = 16
# The year 2242: beyond it a time is a mistake.
_LATEST = 2**33

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Presenter:
    """Who may present a call token, or does: by a certificate (`x5t#S256`) or by a key (`jkt`), each a thumbprint.

    A thumbprint is the SHA-256 in base64url, without padding. Without both it is a process on the same machine.
    """

    certificate: str = ""
    key: str = ""

    @classmethod
    def of_certificate(cls, der: bytes) -> Self:
        """Return the presenter with a certificate, in DER, that the connection has proved."""
        return cls(certificate=encoded(sha256(der).digest()))


@dataclass(frozen=True, slots=True, kw_only=True)
class CallClaims:
    """One allowed call. Times are unix seconds, whole ones as in every JSON Web Token.

    `id` is the same for a retry of the same call. `arguments_digest` is that of the canonical arguments after `salt`,
    so that the token tells no short argument. `resource_id` can be a digest, where the bundle keeps it out of logs.
    `presenter` is None for a token that only a process on the same machine may present. `connection` is the kind of
    downstream connection that the call may use, with `scopes` and no others; empty for a call that needs none.
    """

    issuer: str
    audience: str
    id: str
    issued_at: int
    expires_at: int
    decision_id: str
    session_id: str
    session_epoch: int
    ancestor_ids: tuple[str, ...]
    user: str
    agent: str
    tenant: str
    environment: str
    server: str
    tool: str
    definition_digest: str
    arguments_digest: str
    salt: bytes = field(repr=False)
    resource_type: str
    resource_id: str = field(repr=False)
    bundle_version: str
    presenter: Presenter | None = None
    connection: str = ""
    scopes: tuple[str, ...] = ()


def written(claims: CallClaims) -> bytes:
    """Write claims as JSON."""
    bound = claims.presenter
    said = {
        "iss": claims.issuer,
        "aud": claims.audience,
        "jti": claims.id,
        "iat": claims.issued_at,
        "exp": claims.expires_at,
        "dec": claims.decision_id,
        "ses": claims.session_id,
        "ep": claims.session_epoch,
        "anc": list(claims.ancestor_ids),
        "sub": claims.user,
        "act": {"sub": claims.agent},
        "ten": claims.tenant,
        "env": claims.environment,
        "srv": claims.server,
        "tool": claims.tool,
        "def": claims.definition_digest,
        "args": claims.arguments_digest,
        "salt": encoded(claims.salt),
        "res": [claims.resource_type, claims.resource_id],
        "bnd": claims.bundle_version,
    }
    if claims.connection:
        said |= {"con": claims.connection, "scp": list(claims.scopes)}
    if bound is not None:
        said["cnf"] = {"x5t#S256": bound.certificate} if bound.certificate else {"jkt": bound.key}
    return json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()


def read(text: bytes) -> CallClaims:
    """Read claims strictly: each of its type, none twice, none missing and none unknown. Raise what `refused` makes."""
    said = object_of(text)
    taken = _Claims(said)
    resource = taken("res", _pair)
    claims = CallClaims(
        issuer=taken("iss", _name),
        # One audience, as a text: a list could hold ours beside others.
        audience=taken("aud", _name),
        id=taken("jti", _thumbprint),
        issued_at=taken("iat", _time),
        expires_at=taken("exp", _time),
        decision_id=taken("dec", _name),
        session_id=taken("ses", _name),
        session_epoch=taken("ep", _time),
        ancestor_ids=taken("anc", _names),
        user=taken("sub", _name),
        agent=taken("act", _actor),
        tenant=taken("ten", _name),
        environment=taken("env", _text),
        server=taken("srv", _name),
        tool=taken("tool", _name),
        definition_digest=taken("def", _digest),
        arguments_digest=taken("args", _digest),
        salt=taken("salt", _salt),
        resource_type=resource[0],
        resource_id=resource[1],
        bundle_version=taken("bnd", _name),
        presenter=taken("cnf", _presenter) if "cnf" in said else None,
        connection=taken("con", _kind) if "con" in said else "",
        # Without a connection it is unknown.
        scopes=taken("scp", _scopes) if "con" in said else (),
    )
    if unknown := taken.left():
        raise refused(f"claim `{unknown}` is unknown")
    return claims


def object_of(text: bytes) -> dict[str, Any]:
    """Parse a JSON object in which no key is twice."""
    try:
        value = _DECODER.decode(text.decode("utf-8"))
    except (ValueError, RecursionError):
        raise refused("not JSON") from None
    if not isinstance(value, dict):
        raise refused("not a JSON object")
    return value


def encoded(content: bytes) -> str:
    """Write bytes in base64url without padding."""
    return urlsafe_b64encode(content).rstrip(b"=").decode()


def begin() -> str:
    """Return how the text of each call token begins, whatever it states."""
    # Up to the name of the key there are 45 bytes, so that what follows changes none of these characters.
    return encoded(f'{{"alg":"{ALGORITHM}","typ":"{TYPE}","kid":"'.encode())


def decoded(text: str) -> bytes:
    """Read base64url without padding, in the one spelling of each text."""
    if not _BASE64.match(text) or len(text) % 4 == 1:
        raise refused("not base64url")
    content = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if encoded(content) != text:
        raise refused("not base64url")
    return content


def refused(problem: str) -> CallTokenRefusedError:
    """Return the refusal of what is no call token."""
    return CallTokenRefusedError(Reason.MALFORMED, problem)


class _Claims:
    """Takes claims one by one, each by its own rule."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        self._said = dict(said)

    def __call__(self, name: str, rule: Callable[[Any], _Value | None]) -> _Value:
        value = rule(self._said.pop(name, None))
        if value is None:
            raise refused(f"claim `{name}` is missing or not as it must be")
        return value

    def left(self) -> str:
        """Return the name of one claim that was not taken; empty when there is none."""
        return next(iter(self._said), "")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _name(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _names(value: object) -> tuple[str, ...] | None:
    good = isinstance(value, list) and all(isinstance(one, str) and one for one in value)
    return tuple(value) if isinstance(value, list) and good else None


def _pair(value: object) -> tuple[str, str] | None:
    good = isinstance(value, list) and len(value) == 2 and all(isinstance(one, str) for one in value)  # noqa: PLR2004 - a pair
    return (value[0], value[1]) if isinstance(value, list) and good else None


def _time(value: object) -> int | None:
    # `type`, since `True` is an integer too.
    return value if type(value) is int and 0 <= value < _LATEST else None


def _actor(value: object) -> str | None:
    return _name(value["sub"]) if isinstance(value, dict) and set(value) == {"sub"} else None


def _kind(value: object) -> str | None:
    return value if isinstance(value, str) and CONNECTION_KIND.fullmatch(value) else None


def _scopes(value: object) -> tuple[str, ...] | None:
    names = _names(value)
    good = names is not None and len(names) <= MOST_SCOPES and all(map(CONNECTION_SCOPE.fullmatch, names))
    return names if good else None


def _digest(value: object) -> str | None:
    return value if isinstance(value, str) and _DIGEST.match(value) else None


def _thumbprint(value: object) -> str | None:
    return value if isinstance(value, str) and THUMBPRINT.fullmatch(value) else None


def _salt(value: object) -> bytes | None:
    content = decoded(value) if isinstance(value, str) else b""
    return content if len(content) == _SALT_BYTES else None


def _presenter(value: object) -> Presenter | None:
    if not isinstance(value, dict) or len(value) != 1:
        return None
    certificate, key = _thumbprint(value.get("x5t#S256")), _thumbprint(value.get("jkt"))
    return Presenter(certificate=certificate or "", key=key or "") if certificate or key else None


_DECODER = strict_decoder(refused)
