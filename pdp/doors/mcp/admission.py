"""Whose request it is over HTTP: that of a handle in a header, or else of an access token."""

from __future__ import annotations

import hashlib
import logging
import re
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar

from pdp.client import PDPClientError
from pdp.doors import refusals
from pdp.doors.mcp import headers as http
from pdp.doors.mcp.load import Load
from pdp.doors.mcp.parties import Party, Place, Visitor
from pdp.doors.mcp.resources import ProtectedResource
from pdp.doors.session import CredentialRefusedError, DoorSession, NoSessionError
from pdp.errors import UnavailableError
from pdp.serving.web import BAD_REQUEST, HANDLE, UNAUTHORIZED, RefusedRequestError

_LOG = logging.getLogger(__name__)

MOST_VISITORS = 1024

_ENDED = "The session of this task is over. The next request asks for another one, which a person must approve."

_HANDLE = re.compile(r"[\x21-\x7e]{1,512}")
_BEARER = re.compile(r"[Bb]earer +([\x21-\x7e]{1,8192})")
_TASK = re.compile(r"[\x20-\x7e]{0,128}")


K = TypeVar("K")


class TokenSource(Protocol):
    """Where the sessions of access tokens come from: `pdp.doors.tokensessions` opens and ends them."""

    def session(self, token: str, task: str, audience: str) -> DoorSession:
        """Return the session of a token's holder for a task. The token must be for `audience`.

        Raise `CredentialRefusedError`, `NoSessionError`, or `UnavailableError` while tokens cannot be verified.
        """
        ...

    def using(self, session: DoorSession) -> AbstractContextManager[None]:
        """Keep a session from ending as idle while the `with` block runs."""
        ...

    def forget(self, session: DoorSession) -> None:
        """Ask for another session at the next request: this one is over."""
        ...


class Admission:
    """Finds the party of a request: bounded, and the sessions that were used last are kept.

    `session_of` returns the session of a handle. The messages of each session are a part of `load`.
    """

    def __init__(
        self,
        session_of: Callable[[str], DoorSession],
        tokens: TokenSource | None = None,
        *,
        load: Load,
    ) -> None:
        self._session_of = session_of
        self._load = load
        self._tokens = tokens
        self._by_handle: OrderedDict[bytes, Visitor] = OrderedDict()
        self._by_token: OrderedDict[DoorSession, Visitor] = OrderedDict()

    @property
    def visitors(self) -> int:
        """Return how many sessions are kept."""
        return len(self._by_handle) + len(self._by_token)

    async def party(self, headers: http.Headers, place: Place) -> tuple[Party | None, str]:
        """Return whose request this is, or why nobody's. Raise `RefusedRequestError` when a token is needed."""
        if self._tokens is not None and place.resource is not None and HANDLE not in headers:
            return await self._of_token(self._tokens, place.resource, headers, place)
        handle = headers.get(HANDLE, "")
        if not _HANDLE.fullmatch(handle):
            return None, refusals.without_session("proxy", HANDLE)
        key = hashlib.sha256(handle.encode("ascii")).digest()
        visitor = self._by_handle.get(key)
        if visitor is None:
            visitor = Visitor(self._session_of(handle), self._load.part())
            # A handle that is not valid is not kept: it would displace others.
            if missing := await self.lives(visitor.at(place)):
                return None, missing
        return _kept(self._by_handle, key, visitor).at(place), ""

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

    async def _of_token(
        self, tokens: TokenSource, resource: ProtectedResource, headers: http.Headers, place: Place
    ) -> tuple[Party | None, str]:
        task = headers.get(http.TASK, "")
        if not _TASK.fullmatch(task):
            raise RefusedRequestError(BAD_REQUEST, f"the header `{http.TASK}` is not up to 128 characters of ASCII")
        match = _BEARER.fullmatch(headers.get("authorization", ""))
        if match is None:
            raise _unauthorized(resource)
        try:
            session = tokens.session(match[1], task, resource.url)
        except CredentialRefusedError:
            raise _unauthorized(resource, "invalid_token") from None
        except UnavailableError:
            return None, refusals.AWAY
        except NoSessionError as missing:
            return None, str(missing)
        party = _kept(self._by_token, session, Visitor(session, self._load.part())).at(place)
        if (why := await self.lives(party)) == refusals.SESSION_OVER:
            tokens.forget(session)
            return None, _ENDED
        return (None, why) if why else (party, "")


def _unauthorized(resource: ProtectedResource, error: str = "") -> RefusedRequestError:
    challenge = {"www-authenticate": resource.challenge(error)}
    return RefusedRequestError(UNAUTHORIZED, "an access token is needed", challenge)


def _kept(visitors: OrderedDict[K, Visitor], key: K, visitor: Visitor) -> Visitor:
    """Return the session under a key, which is now the last one that was used; keep the new one if there is none."""
    kept = visitors.setdefault(key, visitor)
    visitors.move_to_end(key)
    while len(visitors) > MOST_VISITORS:
        visitors.popitem(last=False)
    return kept
