"""Whose request it is over HTTP: that of a handle in a header, or else of an access token."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from pdp.client import PDPClientError
from pdp.doors import refusals
from pdp.doors.mcp import headers as http
from pdp.doors.mcp.conversations import ConversationOf, Party
from pdp.doors.session import CredentialRefusedError, DoorSession, NoSessionError
from pdp.doors.web import BAD_REQUEST, HANDLE, UNAUTHORIZED, RefusedRequestError
from pdp.errors import ConfigurationError, UnavailableError
from pdp.foundation.loopback import is_loopback

_LOG = logging.getLogger(__name__)

# Of RFC 9728; the path of the resource follows.
WELL_KNOWN = "/.well-known/oauth-protected-resource"
MOST_PARTIES = 1024

_ENDED = "The session of this task is over. The next request asks for another one, which a person must approve."

_HANDLE = re.compile(r"[\x21-\x7e]{1,512}")
_BEARER = re.compile(r"[Bb]earer +([\x21-\x7e]{1,8192})")
_TASK = re.compile(r"[\x20-\x7e]{0,128}")


K = TypeVar("K")


class TokenSource(Protocol):
    """Where the sessions of access tokens come from: `pdp.doors.tokensessions` opens and ends them."""

    def session(self, token: str, task: str) -> DoorSession:
        """Return the session of a token's holder for a task.

        Raise `CredentialRefusedError`, `NoSessionError`, or `UnavailableError` while tokens cannot be verified.
        """
        ...

    def using(self, session: DoorSession) -> AbstractContextManager[None]:
        """Keep a session from ending as idle while the `with` block runs."""
        ...

    def forget(self, session: DoorSession) -> None:
        """Ask for another session at the next request: this one is over."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtectedResource:
    """The proxy as OAuth sees it: its URL for clients, which tokens must be for, and who issues them."""

    url: str
    issuer: str

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        secure = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
        if not (secure and parts.hostname) or parts.query or parts.fragment:
            raise ConfigurationError(
                "`jwt.audience` must be the URL by which clients call this proxy, so that a token for another server "
                "is not taken here: https, or http on loopback"
            )

    @property
    def metadata(self) -> str:
        """Return what a client reads before it asks the issuer for a token (RFC 9728)."""
        return json.dumps(
            {"resource": self.url, "authorization_servers": [self.issuer], "bearer_methods_supported": ["header"]}
        )

    def challenge(self, error: str = "") -> str:
        """Return the value of `WWW-Authenticate` that leads there."""
        parts = urlsplit(self.url)
        place = f'Bearer resource_metadata="{parts.scheme}://{parts.netloc}{WELL_KNOWN}{parts.path.rstrip("/")}"'
        return f'{place}, error="{error}"' if error else place


class Admission:
    """Finds the party of a request: bounded, and the parties of handles that were used last are kept.

    `session_of` returns the session of a handle.
    """

    def __init__(
        self,
        session_of: Callable[[str], DoorSession],
        conversation_of: ConversationOf,
        *,
        tokens: TokenSource | None = None,
        resource: ProtectedResource | None = None,
    ) -> None:
        self._session_of = session_of
        self._conversation_of = conversation_of
        self._tokens = tokens
        self._resource = resource
        self._by_handle: OrderedDict[bytes, Party] = OrderedDict()
        self._by_token: OrderedDict[DoorSession, Party] = OrderedDict()

    async def party(self, headers: http.Headers) -> tuple[Party | None, str]:
        """Return whose request this is, or why nobody's. Raise `RefusedRequestError` when a token is needed."""
        if self._tokens is not None and HANDLE not in headers:
            return await self._of_token(self._tokens, headers)
        handle = headers.get(HANDLE, "")
        if not _HANDLE.fullmatch(handle):
            return None, refusals.without_session("proxy", HANDLE)
        key = hashlib.sha256(handle.encode("ascii")).digest()
        party = self._by_handle.get(key)
        if party is None:
            party = Party(self._session_of(handle), self._conversation_of)
            # A handle that is not valid is not kept: it would displace others.
            if missing := await self.lives(party):
                return None, missing
        return _kept(self._by_handle, key, party), ""

    async def lives(self, party: Party) -> str:
        """Say why a session may not be used; empty if it may."""
        try:
            return "" if await party.lives() else refusals.SESSION_OVER
        except PDPClientError as error:
            _LOG.warning("a session cannot be looked at: %s", error)
            return refusals.AWAY

    def using(self, party: Party) -> AbstractContextManager[None]:
        """Keep the session of a party from ending as idle while the `with` block runs."""
        own = self._tokens is not None and party.session in self._by_token
        return self._tokens.using(party.session) if own and self._tokens is not None else nullcontext()

    async def _of_token(self, tokens: TokenSource, headers: http.Headers) -> tuple[Party | None, str]:
        task = headers.get(http.TASK, "")
        if not _TASK.fullmatch(task):
            raise RefusedRequestError(BAD_REQUEST, f"the header `{http.TASK}` is not up to 128 characters of ASCII")
        match = _BEARER.fullmatch(headers.get("authorization", ""))
        if match is None:
            raise self._unauthorized()
        try:
            session = tokens.session(match[1], task)
        except CredentialRefusedError:
            raise self._unauthorized("invalid_token") from None
        except UnavailableError:
            return None, refusals.AWAY
        except NoSessionError as missing:
            return None, str(missing)
        party = _kept(self._by_token, session, Party(session, self._conversation_of))
        if (why := await self.lives(party)) == refusals.SESSION_OVER:
            tokens.forget(session)
            return None, _ENDED
        return (None, why) if why else (party, "")

    def _unauthorized(self, error: str = "") -> RefusedRequestError:
        challenge = {"www-authenticate": self._resource.challenge(error)} if self._resource is not None else {}
        return RefusedRequestError(UNAUTHORIZED, "an access token is needed", challenge)


def _kept(parties: OrderedDict[K, Party], key: K, party: Party) -> Party:
    """Return the party under a key, which is now the last one that was used; keep the new one if there is none."""
    kept = parties.setdefault(key, party)
    parties.move_to_end(key)
    while len(parties) > MOST_PARTIES:
        parties.popitem(last=False)
    return kept
