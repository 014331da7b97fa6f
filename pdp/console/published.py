"""What a provider of log-ins publishes of itself: its endpoints, and the keys of its ID tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import httpx2
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from pdp.clock import Clock
from pdp.errors import ConfigurationError
from pdp.foundation.loopback import is_secure

# With keys that the provider publishes; a secret that verifies could sign as well.
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA"]
# Keys are not read again for an unknown one before so long.
_PAUSE_SECONDS = 10.0
_OK = 200
_DISCOVERY = "/.well-known/openid-configuration"
_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")

Document: TypeAlias = Mapping[str, Any]


class LogInFailedError(Exception):
    """There is no log-in; the message says why, for the person and without secrets."""


class Published:
    """What the provider with an issuer publishes, read by `http` when it is first needed."""

    def __init__(self, issuer: str, http: httpx2.AsyncClient, clock: Clock) -> None:
        _require_safe("issuer", issuer)
        self._issuer = issuer
        self._http = http
        self._clock = clock
        self._document: Document | None = None
        self._keys: KeySet | None = None
        self._keys_read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def document(self) -> Document:
        """Return what the provider says of itself. Raise `LogInFailedError`."""
        if self._document is None:
            found = await self._get(self._issuer.rstrip("/") + _DISCOVERY)
            if found.get("issuer") != self._issuer:
                raise LogInFailedError("the provider calls itself by another name than the configured issuer")
            for name in _ENDPOINTS:
                require_endpoint(name, found.get(name))
            self._document = found
        return self._document

    def decoded(self, id_token: str) -> jwt.Token:
        """Return a token whose signature is right. Raise `ValueError`."""
        if self._keys is None:
            raise ValueError("no keys")
        try:
            return jwt.decode(id_token, self._keys, algorithms=_ALGORITHMS)
        except JoseError as error:
            raise ValueError(error.error) from None

    async def read_keys(self) -> None:
        """Read the keys again, unless that was done a moment ago. Raise `LogInFailedError`."""
        async with self._reading:
            now_at = self._clock.now().boot_at
            if now_at - self._keys_read_at < _PAUSE_SECONDS and self._keys is not None:
                return
            document = await self._get((await self.document())["jwks_uri"])
            try:
                self._keys = KeySet.import_key_set(dict(document))  # type: ignore[arg-type]  # what is no JWKS is refused
            except (JoseError, ValueError, KeyError, TypeError):
                raise LogInFailedError("the provider's keys cannot be read") from None
            self._keys_read_at = now_at

    async def _get(self, url: str) -> Document:
        try:
            answer = await self._http.get(url)
            if answer.status_code != _OK:
                raise LogInFailedError("the provider does not answer as it should; try again")
            found = answer.json()
        except (httpx2.HTTPError, ValueError):
            raise LogInFailedError("the provider cannot be reached; try again") from None
        if not isinstance(found, dict):
            raise LogInFailedError("the provider does not answer as it should; try again")
        return found


def _require_safe(name: str, url: str) -> None:
    """Raise `ConfigurationError` unless a URL is https, or http on loopback."""
    parts = urlsplit(url)
    if not is_secure(parts) or not parts.netloc or parts.query or parts.fragment:
        raise ConfigurationError(f"the {name} must be an https URL without a query: `{url}`")


def require_endpoint(name: str, url: object) -> None:
    """Raise `LogInFailedError` unless a URL is https, or http on loopback."""
    if not is_secure(urlsplit(url if isinstance(url, str) else "")):
        raise LogInFailedError(f"the provider names no `{name}` that the console may use")
