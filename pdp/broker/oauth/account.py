"""Who a person is at a provider: by the ID token that came with the access token, or by asking with that."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode
from contextlib import suppress
from typing import Any, Final

from pdp.broker.oauth.answers import Granted, said_in
from pdp.broker.oauth.asking import read_as
from pdp.broker.words import Secret, TokenRefusedError, TokenSource, TokensUnavailableError
from pdp.foundation.egress import Roots

# In this order: what people know their account by.
_NAMES: Final = ("email", "preferred_username", "login", "name", "sub")
_MOST_CHARACTERS: Final = 128


def require_nonce(got: Granted, source: TokenSource, issuer: str, nonce: str) -> dict[str, Any]:
    """Return what the ID token says. Raise `TokenRefusedError` unless it is for this client and this flow.

    Its signature is not looked at: it came from the token endpoint itself, over TLS (OpenID Connect Core, section
    3.1.3.7).
    """
    said = _claims(got.id_token)
    audiences = said.get("aud")
    if said.get("iss") != issuer or audiences not in (source.client_id, [source.client_id]):
        raise TokenRefusedError("its ID token is of another issuer, or for another client")
    if said.get("nonce") != nonce:
        raise TokenRefusedError("its ID token is for another log-in")
    return said


def account_of(said: dict[str, Any], source: TokenSource, token: Secret, roots: Roots) -> str:
    """Return what the provider calls the person; empty where nothing says it."""
    endpoint = source.consenting.account if source.consenting else ""
    if endpoint:
        # The connection is good without it.
        with suppress(TokenRefusedError, TokensUnavailableError):
            said = {**said, **(said_in(read_as(endpoint, source, token, roots)) or {})}
    found = (said.get(name) for name in _NAMES)
    return next(
        (one for one in found if isinstance(one, str) and one.isprintable() and 0 < len(one) <= _MOST_CHARACTERS), ""
    )


def _claims(token: Secret | None) -> dict[str, Any]:
    if token is None:
        raise TokenRefusedError("it gives no ID token, and `openid` is among the scopes")
    parts = token.reveal().split(b".")
    try:
        said = said_in(urlsafe_b64decode(parts[1] + b"==")) if len(parts) == 3 else None  # noqa: PLR2004 - of a JWS
    except (ValueError, binascii.Error):
        said = None
    if said is None:
        raise TokenRefusedError("its ID token cannot be read")
    return said
