"""The sessions that a door opens for agents with access tokens: one for each person, program and task.

A person approves each. It lives half an hour at most, ends when it is idle, when a token that has used it is denied,
or when the door ends, and is not asked for again soon after a no.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeAlias

from pdp.client import AsyncClient, InvalidRequestError, NotFoundError, WrongStateError
from pdp.doors.accesstokens import AccessTokens, Claimant, Identities
from pdp.doors.feeds import SessionsFeed
from pdp.doors.session import DoorSession, NoSessionError, RequestedSession
from pdp.doors.tasks import Joined
from pdp.errors import ConfigurationError
from pdp.identity.tokens import VerifiedToken

_LONGEST_SECONDS, _IDLE_SECONDS, _AFTER_NO_SECONDS = 1800.0, 600.0, 600.0
_LOOK_SECONDS = 1.0
# That are remembered to have used one session, the last ones.
_MOST_TOKENS = 256
MOST_OF_A_USER, MOST_SESSIONS = 8, 1024

_Key: TypeAlias = tuple[str, str, str]


@dataclass(eq=False, kw_only=True)
class _Kept:
    """A session, or a refused request for one, and the tokens that have used it. Times are those of the clock."""

    session: RequestedSession
    used_at: float
    tokens: dict[VerifiedToken, None] = field(default_factory=dict)
    open: int = 0
    refused_at: float | None = field(default=None)


class TokenSessions:
    """Opens sessions for the holders of access tokens, and ends them. Make it where the event loop runs.

    `pdp_command` and `wait_for_approval` are those of `RequestedSession`.
    """

    def __init__(
        self,
        client: AsyncClient,
        tokens: AccessTokens,
        identities: Identities,
        *,
        pdp_command: Callable[[str], str],
        wait_for_approval: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._tokens = tokens
        self._identities = identities
        self._pdp_command = pdp_command
        self._wait_for_approval = wait_for_approval
        self._clock = clock
        self._feed = SessionsFeed(lambda since: client.watch_sessions(since_revision=since))
        self._kept: dict[_Key, _Kept] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._looking = asyncio.ensure_future(self._look_again())

    def session(self, token: str, task: str, audience: str) -> RequestedSession:
        """Return the session of a token's holder for a task, which is asked for now if there is none.

        It is the same for all servers, each of which wants tokens for itself: `audience`.

        Raise `NoSessionError` when too many are open, and what `AccessTokens.claimant` raises.
        """
        claimant = self._tokens.claimant(token, audience)
        key = (claimant.subject, claimant.client, task)
        self._look()
        kept = self._kept.get(key)
        if kept is None:
            self._require_room(claimant)
            opening = _Opening(claimant, task or self._identities.purpose, self._identities)
            session = RequestedSession(
                self._client,
                opening,
                pdp_command=self._pdp_command,
                wait_for_approval=self._wait_for_approval,
                feed=self._feed,
            )
            kept = self._kept[key] = _Kept(session=session, used_at=self._clock())
        kept.tokens[claimant.token] = None
        if len(kept.tokens) > _MOST_TOKENS:
            del kept.tokens[next(iter(kept.tokens))]
        kept.used_at = self._clock()
        return kept.session

    @contextmanager
    def using(self, session: DoorSession) -> Iterator[None]:
        """Keep a session from ending as idle while the `with` block runs."""
        kept = next((one for one in self._kept.values() if one.session is session), None)
        if kept is None:
            yield
            return
        kept.open += 1
        try:
            yield
        finally:
            kept.open -= 1
            kept.used_at = self._clock()

    def forget(self, session: DoorSession) -> None:
        """End a session that is over for the PDP: the next request asks for another one."""
        self._end([key for key, one in self._kept.items() if one.session is session])

    async def close(self) -> None:
        """End all sessions and requests."""
        self._looking.cancel()
        self._end(list(self._kept))
        await asyncio.gather(self._looking, *self._ending, return_exceptions=True)
        await self._feed.close()

    def _require_room(self, claimant: Claimant) -> None:
        open_ones = Counter(subject for subject, _, _ in self._kept)
        if open_ones[claimant.subject] >= MOST_OF_A_USER or open_ones.total() >= MOST_SESSIONS:
            raise NoSessionError("Too many tasks are open: end one, or try again later.")

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self._look()

    def _look(self) -> None:
        """End what is idle or was used by a token that is denied, and forget a no that is long past."""
        now = self._clock()
        over = []
        for key, kept in self._kept.items():
            if kept.session.refused:
                kept.refused_at = now if kept.refused_at is None else kept.refused_at
                if now - kept.refused_at >= _AFTER_NO_SECONDS:
                    over.append(key)
            elif (not kept.open and now - kept.used_at >= _IDLE_SECONDS) or any(map(self._tokens.denied, kept.tokens)):
                over.append(key)
        self._end(over)

    def _end(self, keys: list[_Key]) -> None:
        for key in keys:
            task = asyncio.ensure_future(self._kept.pop(key).session.close())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)


class _Opening:
    """Requests the session of a claimant, and ends it: nobody shares it."""

    def __init__(self, claimant: Claimant, purpose: str, identities: Identities) -> None:
        self._claimant = claimant
        self._purpose = purpose
        self._identities = identities
        self._handle = ""

    async def join(self, client: AsyncClient) -> Joined:
        try:
            opened = await client.request_session(
                user=self._claimant.user,
                agent=self._claimant.agent,
                purpose=self._purpose,
                tools=self._identities.tools,
                duration=_LONGEST_SECONDS,
                environment=self._identities.environment,
            )
        except InvalidRequestError as error:
            # It says which pattern matches no tool, of those that the operator may never have written.
            raise ConfigurationError(f"{error} (`session` in the file of --access-tokens)") from None
        self._handle = opened.session_handle
        return Joined(opened.session_handle, opened.session, opened.link)

    async def leave(self, client: AsyncClient) -> None:
        if self._handle:
            with suppress(NotFoundError, WrongStateError):
                await client.end_session(self._handle)
