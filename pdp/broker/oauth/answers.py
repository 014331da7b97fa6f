"""Read what a token endpoint answers (RFC 6749, section 5). Nothing that it wrote gets into an error."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pdp.broker.headers import HeadersError, with_secret
from pdp.broker.words import MOST_SECRET_BYTES, Secret, TokenRefusedError
from pdp.calltokens.claims import CONNECTION_SCOPE
from pdp.calltokens.strictjson import strict_decoder

_DECODER: Final = strict_decoder(TokenRefusedError)
# The kind of a token in the words of RFC 8693.
ACCESS_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - the name of a kind
# What an endpoint may say is wrong; another word of it could be anything, such as the secret.
_CODES: Final = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
        "invalid_target",
        "unsupported_token_type",
    }
)
# A number beyond this is a mistake, and floats have no place for all.
_MOST_SECONDS: Final = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """An access token, and how many seconds it is good for; 0 when the provider does not say.

    `scopes` is None without a word about them: then they are those that were asked for. A refresh token and an ID token
    are there when the provider gave them.
    """

    secret: Secret
    seconds: float
    scopes: tuple[str, ...] | None = None
    refresh: Secret | None = None
    id_token: Secret | None = None

    @property
    def tokens(self) -> Mapping[str, Secret]:
        """Return the tokens by their kinds in the words of RFC 7009."""
        # The access token last: some providers end the whole consent with it.
        held = {"refresh_token": self.refresh, "access_token": self.secret}
        return {hint: one for hint, one in held.items() if one is not None}


def granted(body: bytes) -> Granted:
    """Return what a good answer grants. Raise `TokenRefusedError`."""
    return _granted_by(_object_in(body))


def exchanged(body: bytes, subject: Secret) -> Granted:
    """Return what a good answer gives for a token (RFC 8693, section 2.2). Raise `TokenRefusedError`.

    One that gives the same token again has narrowed nothing.
    """
    said = _object_in(body)
    if said.get("issued_token_type") != ACCESS_TOKEN_TYPE:
        raise TokenRefusedError("it gives a token that it does not call an access token")
    got = _granted_by(said)
    if got.secret.reveal() == subject.reveal():
        raise TokenRefusedError("it gives back the token that was to be exchanged")
    return got


def _object_in(body: bytes) -> dict[str, Any]:
    said = said_in(body)
    if said is None:
        raise TokenRefusedError("it answers with something else than a JSON object")
    return said


def _granted_by(said: Mapping[str, Any]) -> Granted:
    if str(said.get("token_type", "")).lower() != "bearer":
        raise TokenRefusedError("it gives a token that is not of the type `Bearer`")
    return Granted(
        secret=read_token(said.get("access_token")),
        seconds=_seconds(said.get("expires_in", 0)),
        scopes=_scopes(said["scope"]) if "scope" in said else None,
        refresh=read_token(said["refresh_token"]) if "refresh_token" in said else None,
        id_token=read_token(said["id_token"]) if "id_token" in said else None,
    )


def tokens_in(body: bytes) -> Mapping[str, Secret]:
    """Return the tokens of an answer by their kinds in the words of RFC 7009, also where `granted` refuses it."""
    try:
        said = said_in(body) or {}
    except TokenRefusedError:
        return {}
    # The access token last: some providers end the whole consent with it.
    found = {hint: said.get(hint) for hint in ("refresh_token", "access_token")}
    return {hint: Secret(one.encode()) for hint, one in found.items() if isinstance(one, str) and one.isascii() and one}


def require_scopes(got: Granted, wanted: Collection[str]) -> None:
    """Raise `TokenRefusedError` unless the scopes are those that are wanted."""
    scopes = {*wanted} if got.scopes is None else {*got.scopes}
    if scopes - {*wanted}:
        raise TokenRefusedError("it grants a scope that the connection does not have")
    if missing := sorted({*wanted} - scopes):
        raise TokenRefusedError(f"it does not grant the scope `{missing[0]}`")


def refusal(body: bytes) -> str:
    """Return the code of an answer that refuses; empty for one that is not of RFC 6749."""
    try:
        code = (said_in(body) or {}).get("error")
    except TokenRefusedError:
        return ""
    return code if isinstance(code, str) and code in _CODES else ""


def is_active(body: bytes) -> bool | None:
    """Return what an introspection says of a token (RFC 7662); None for an answer that says nothing."""
    try:
        said = (said_in(body) or {}).get("active")
    except TokenRefusedError:
        return None
    return said if isinstance(said, bool) else None


def said_in(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object of an answer; None for anything else. Raise `TokenRefusedError` when a key is twice."""
    try:
        said = _DECODER.decode(body.decode())
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _scopes(text: object) -> tuple[str, ...]:
    names = text.split() if isinstance(text, str) else None
    if names is None or not all(map(CONNECTION_SCOPE.fullmatch, names)):
        raise TokenRefusedError("it gives scopes that are no text of RFC 6749")
    return tuple(dict.fromkeys(names))


def read_token(text: object) -> Secret:
    """Return a token that an answer has. Raise `TokenRefusedError` for what no header can hold."""
    token = text.encode("latin-1", "replace") if isinstance(text, str) and text.isascii() else b""
    try:
        with_secret("Authorization", "Bearer", token)
    except HeadersError:
        raise TokenRefusedError("it gives a token that no header can hold") from None
    if len(token) > MOST_SECRET_BYTES:
        raise TokenRefusedError(f"it gives a token of more than {MOST_SECRET_BYTES} bytes")
    return Secret(token)


def _seconds(number: object) -> float:
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= _MOST_SECONDS:
        raise TokenRefusedError("it gives a time for its token that is no number of seconds")
    return float(number)
