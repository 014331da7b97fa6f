"""Read what a token endpoint answers (RFC 6749, section 5). Nothing that it wrote gets into an error."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from pdp.broker.headers import HeadersError, with_secret
from pdp.broker.words import MOST_SECRET_BYTES, Secret, TokenRefusedError
from pdp.calltokens.strictjson import strict_decoder

_DECODER: Final = strict_decoder(TokenRefusedError)
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
    }
)
# A number beyond this is a mistake, and floats have no place for all.
_MOST_SECONDS: Final = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """An access token, and how many seconds it is good for; 0 when the provider does not say."""

    secret: Secret
    seconds: float


def granted(body: bytes, wanted: Collection[str]) -> Granted:
    """Return the access token of a good answer. Raise `TokenRefusedError` unless its scopes are those that are wanted.

    Without a word about scopes they are what was asked for.
    """
    said = _object(body)
    if said is None:
        raise TokenRefusedError("it answers with something else than a JSON object")
    if str(said.get("token_type", "")).lower() != "bearer":
        raise TokenRefusedError("it gives a token that is not of the type `Bearer`")
    scope = said.get("scope", " ".join(wanted))
    if not isinstance(scope, str):
        raise TokenRefusedError("it gives scopes that are no text")
    if {*scope.split()} - {*wanted}:
        raise TokenRefusedError("it grants a scope that the connection does not have")
    if missing := sorted({*wanted} - {*scope.split()}):
        raise TokenRefusedError(f"it does not grant the scope `{missing[0]}`")
    return Granted(secret=_token(said.get("access_token")), seconds=_seconds(said.get("expires_in", 0)))


def refusal(body: bytes) -> str:
    """Return the code of an answer that refuses; empty for one that is not of RFC 6749."""
    try:
        code = (_object(body) or {}).get("error")
    except TokenRefusedError:
        return ""
    return code if isinstance(code, str) and code in _CODES else ""


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        said = _DECODER.decode(body.decode())
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _token(text: object) -> Secret:
    token = text.encode("latin-1", "replace") if isinstance(text, str) and text.isascii() else b""
    try:
        with_secret("Authorization", "Bearer", token)
    except HeadersError:
        raise TokenRefusedError("it gives no access token that a header can hold") from None
    if len(token) > MOST_SECRET_BYTES:
        raise TokenRefusedError(f"it gives an access token of more than {MOST_SECRET_BYTES} bytes")
    return Secret(token)


def _seconds(number: object) -> float:
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= _MOST_SECONDS:
        raise TokenRefusedError("it gives a time for its token that is no number of seconds")
    return float(number)
