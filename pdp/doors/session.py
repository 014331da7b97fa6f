"""The session in which a door asks: one that it was given, or one that it requests, waits for and ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

from pdp.client import (
    AsyncClient,
    AsyncClientSession,
    FrozenError,
    OverloadedError,
    PDPClientError,
    UnavailableError,
)
from pdp.client.enumwords import session_state
from pdp.doors import refusals
from pdp.doors.feeds import SessionsFeed, heard
from pdp.doors.observing import NotMadeError
from pdp.doors.tasks import Joined
from pdp.errors import ConfigurationError
from pdp.observer import CallOutcome
from pdp.v1 import session_pb2

_LOG = logging.getLogger(__name__)

_AGAIN_SECONDS, _LONGEST_PAUSE = 0.5, 5.0
# How often a session that waits is looked at while its feed is silent: that it expires is no change.
_LOOK_SECONDS = 15.0
_MOST_START_SECONDS, _MOST_END_SECONDS = 20.0, 5.0


class NoSessionError(NotMadeError):
    """There is no session to ask in now. The message is for the agent.

    `tools` are those that were asked for while a person has not answered yet, as `server/tool`. Each has the digest of
    the definition to approve, empty where a downstream connection is approved with it. `away` says that the PDP has not
    answered.
    """

    def __init__(self, text: str, tools: Mapping[str, str] = MappingProxyType({}), *, away: bool = False) -> None:
        super().__init__(text)
        self.tools = tools
        self.away = away
        # While a person has not answered, it names the tools that were asked for.
        waiting = CallOutcome.WAITING if tools else CallOutcome.DENY
        self.outcome = CallOutcome.UNDECIDED if away else waiting


class CredentialRefusedError(Exception):
    """What a client presents is not accepted: it must present something else."""


class DoorSession(Protocol):
    """Where a door gets its session from."""

    async def current(self) -> AsyncClientSession:
        """Return the session to ask in. Raise `NoSessionError` when there is none, or none yet.

        Never waits for a person.
        """
        ...

    def hearing(self) -> AbstractContextManager[asyncio.Event]:
        """Provide an event that is set whenever the session, or whether there is one, may have changed.

        That it expires is no change.
        """
        ...

    async def close(self) -> None:
        """End what this door began."""
        ...


class GivenSession:
    """A session whose handle the door was given, and which others end. It is followed by a feed of its own, or `feed`.

    Make it where the event loop runs.
    """

    def __init__(self, session: AsyncClientSession, feed: SessionsFeed | None = None) -> None:
        self._session = session
        self._own = SessionsFeed(lambda since: session.changes(since_revision=since))
        self._feed = feed or self._own

    async def current(self) -> AsyncClientSession:
        """Return the session, whatever its state: the server decides about each call."""
        return self._session

    def hearing(self) -> AbstractContextManager[asyncio.Event]:
        """Provide an event that the server's feed sets."""
        return self._feed.hearing(lambda: self._session.id)

    async def close(self) -> None:
        """Follow the session no longer."""
        await self._own.close()


class Joining(Protocol):
    """How a door comes to the session of a task: `pdp.doors.tasks.Task` shares one with other doors."""

    async def join(self, client: AsyncClient) -> Joined:
        """Return the session, requested now if there is none. Raise `PDPClientError` or `ConfigurationError`."""
        ...

    async def leave(self, client: AsyncClient) -> None:
        """End the session, unless others need it. Raise `PDPClientError` if that fails."""
        ...


class RequestedSession:
    """The session of a task, which the door requests or joins when it opens, and leaves when it closes.

    `pdp_command` returns a whole command of `pdp` for its words, as a person must type it. It is followed by a feed of
    its own, or `feed`. Make it where the event loop runs.
    """

    def __init__(
        self,
        client: AsyncClient,
        task: Joining,
        *,
        pdp_command: Callable[[str], str],
        wait_for_approval: float = 0.0,
        feed: SessionsFeed | None = None,
    ) -> None:
        self._client = client
        self._task = task
        self._session_id = ""
        self._own = SessionsFeed(self._changes)
        self._feed = feed or self._own
        self._pdp_command = pdp_command
        self._wait_for_approval = wait_for_approval
        self._session: AsyncClientSession | None = None
        self._missing = NoSessionError(
            "The policy decision point has not answered yet. Try again in a moment.", away=True
        )
        # A server that was started together with the door is not there yet.
        self._starts_until = asyncio.get_running_loop().time() + _MOST_START_SECONDS
        # Whether the server has answered the request for a session.
        self._answered = asyncio.Event()
        self._listening: set[asyncio.Event] = set()
        self._opening = asyncio.ensure_future(self._open())

    async def current(self) -> AsyncClientSession:
        """Return the session once a person has approved it. Raise `NoSessionError` before, and after a refusal.

        Waits for a server that is being started, a while from the beginning.
        """
        if not self._answered.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._starts_until):
                    await self._answered.wait()
        if self._session is None:
            raise NoSessionError(str(self._missing), self._missing.tools, away=self._missing.away)
        return self._session

    @contextmanager
    def hearing(self) -> Iterator[asyncio.Event]:
        """Provide an event that a person's answer sets, and the server's feed."""
        with self._feed.hearing(lambda: self._session_id) as changed:
            self._listening.add(changed)
            try:
                yield changed
            finally:
                self._listening.discard(changed)

    @property
    def refused(self) -> bool:
        """Say whether there is no session and will be none: a person said no, or nobody answered in time."""
        return self._opening.done() and self._session is None

    @property
    def _late(self) -> bool:
        return asyncio.get_running_loop().time() >= self._starts_until

    async def close(self) -> None:
        """Leave the task; the last door ends its session, or the request for it."""
        self._opening.cancel()
        await asyncio.wait([self._opening])
        await self._own.close()
        # A server that is away lets the session end by its own time.
        with suppress(PDPClientError, TimeoutError):
            async with asyncio.timeout(_MOST_END_SECONDS):
                await self._task.leave(self._client)

    async def _open(self) -> None:
        try:
            await self._until_answered(await self._patiently(partial(self._task.join, self._client)))
        except (PDPClientError, ConfigurationError) as error:
            _LOG.warning("no session can be opened: %s", error)
            self._missing = NoSessionError(
                f"No session could be opened, so no tool may be called: {error}. Do not retry; tell the user."
            )
        finally:
            self._answered.set()
            for changed in self._listening:
                changed.set()

    async def _until_answered(self, joined: Joined) -> None:
        session_id = self._session_id = joined.session.session_id
        attached = self._client.attach(joined.handle, session_id=session_id, wait_for_approval=self._wait_for_approval)
        with self._feed.hearing(lambda: self._session_id) as changed:
            session = await self._until_decided(joined.session, joined.link, changed)
        if session.state == session_pb2.SESSION_STATE_ACTIVE:
            self._session = attached
            return
        reason = f": {session.reason}" if session.reason else ""
        self._missing = NoSessionError(
            f"The request for a session is {session_state(session)}{reason}. "
            "No tool may be called. Do not retry; tell the user."
        )

    async def _until_decided(
        self, session: session_pb2.Session, link: str, changed: asyncio.Event
    ) -> session_pb2.Session:
        while session.state == session_pb2.SESSION_STATE_REQUESTED:
            how = refusals.how_to_approve(link, self._pdp_command(f"session approve {session.session_id}"))
            self._missing = NoSessionError(
                "Waiting for approval: a person must approve this task before any tool may be called. "
                f"Tell the user to {how}, and call the tool again after that.",
                {
                    f"{tool.server}/{tool.tool}": "" if tool.connection_kind else tool.definition_digest
                    for tool in session.tools
                },
            )
            self._answered.set()
            await heard(changed, _LOOK_SECONDS)
            changed.clear()
            session = await self._patiently(partial(self._client.get_session, session.session_id))
        return session

    async def _changes(self, since: str) -> AsyncIterator[session_pb2.WatchSessionsResponse]:
        """Follow this session alone, once there is one."""
        await self._answered.wait()
        async for message in self._client.watch_sessions(since_revision=since, session_id=self._session_id):
            yield message

    async def _patiently(self, ask: Callable[[], Any]) -> Any:  # noqa: ANN401 - what it returns
        """Ask until the server answers, and the tenant is not frozen."""
        pause, told = _AGAIN_SECONDS, False
        while True:
            try:
                return await ask()
            except (FrozenError, UnavailableError, OverloadedError) as error:
                self._missing = NoSessionError(refusals.AWAY, away=True)
                if isinstance(error, FrozenError):
                    self._missing = NoSessionError(refusals.FROZEN, away=True)
                    self._answered.set()
                if not told and (self._answered.is_set() or self._late):
                    _LOG.warning("the session cannot be opened now: %s", error)
                    told = True
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
