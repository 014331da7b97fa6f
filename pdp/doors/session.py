"""The session in which a door asks: one that it was given, or one that it requests, waits for and ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from pdp.client import (
    AsyncClient,
    AsyncClientSession,
    OverloadedError,
    PDPClientError,
    UnavailableError,
)
from pdp.doors import refusals
from pdp.doors.feeds import SessionFeed
from pdp.doors.tasks import Joined
from pdp.errors import ConfigurationError
from pdp.v1 import session_pb2

_LOG = logging.getLogger(__name__)

_AGAIN_SECONDS, _LONGEST_PAUSE = 0.5, 5.0
# How often a session that waits is looked at while its feed is silent: that it expires is no change.
_LOOK_SECONDS = 15.0
_MOST_START_SECONDS, _MOST_END_SECONDS = 20.0, 5.0


class NoSessionError(Exception):
    """There is no session to ask in now. The message is for the agent.

    `tools` are those that were asked for while a person has not answered yet, as `server/tool`.
    """

    def __init__(self, text: str, tools: frozenset[str] = frozenset()) -> None:
        super().__init__(text)
        self.tools = tools


class CredentialRefusedError(Exception):
    """What a client presents is not accepted: it must present something else."""


class DoorSession(Protocol):
    """Where a door gets its session from."""

    async def current(self) -> AsyncClientSession:
        """Return the session to ask in. Raise `NoSessionError` when there is none, or none yet.

        Never waits for a person.
        """
        ...

    async def changed(self) -> None:
        """Wait until the session, or whether there is one, may have changed since the last time."""
        ...

    async def close(self) -> None:
        """End what this door began."""
        ...


class GivenSession:
    """A session whose handle the door was given, and which others end."""

    def __init__(self, session: AsyncClientSession) -> None:
        self._session = session
        self._feed = SessionFeed(session)

    async def current(self) -> AsyncClientSession:
        """Return the session, whatever its state: the server decides about each call."""
        return self._session

    async def changed(self) -> None:
        """Wait for the server's feed."""
        await self._feed.changed()

    async def close(self) -> None:
        """Follow the session no longer."""
        await self._feed.close()


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

    `pdp_command` returns a whole command of `pdp` for its words, as a person must type it.
    Make it where the event loop runs.
    """

    def __init__(
        self,
        client: AsyncClient,
        task: Joining,
        *,
        pdp_command: Callable[[str], str],
        wait_for_approval: float = 0.0,
    ) -> None:
        self._client = client
        self._task = task
        self._pdp_command = pdp_command
        self._wait_for_approval = wait_for_approval
        self._session: AsyncClientSession | None = None
        self._missing = NoSessionError("The policy decision point has not answered yet. Try again in a moment.")
        # Whether the server has answered the request for a session.
        self._answered = asyncio.Event()
        # Whether a person has, or nothing more will come of the request.
        self._decided = asyncio.Event()
        self._feed: SessionFeed | None = None
        self._opening = asyncio.ensure_future(self._open())

    async def current(self) -> AsyncClientSession:
        """Return the session once a person has approved it. Raise `NoSessionError` before, and after a refusal.

        Waits a while for a server that has just been started.
        """
        if not self._answered.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_MOST_START_SECONDS):
                    await self._answered.wait()
        if self._session is None:
            raise NoSessionError(str(self._missing), self._missing.tools)
        return self._session

    async def changed(self) -> None:
        """Wait for a person's answer, and then for the server's feed."""
        if not self._decided.is_set():
            await self._decided.wait()
        elif self._feed is not None:
            await self._feed.changed()
        else:
            await asyncio.Event().wait()

    @property
    def refused(self) -> bool:
        """Say whether there is no session and will be none: a person said no, or nobody answered in time."""
        return self._opening.done() and self._session is None

    async def close(self) -> None:
        """Leave the task; the last door ends its session, or the request for it."""
        self._opening.cancel()
        await asyncio.wait([self._opening])
        if self._feed is not None:
            await self._feed.close()
        # A server that is away lets the session end by its own time.
        with suppress(PDPClientError, TimeoutError):
            async with asyncio.timeout(_MOST_END_SECONDS):
                await self._task.leave(self._client)

    async def _open(self) -> None:
        try:
            await self._until_answered(*await self._patiently(partial(self._task.join, self._client)))
        except (PDPClientError, ConfigurationError) as error:
            _LOG.warning("no session can be opened: %s", error)
            self._missing = NoSessionError(
                f"No session could be opened, so no tool may be called: {error}. Do not retry; tell the user."
            )
        finally:
            self._answered.set()
            self._decided.set()

    async def _until_answered(self, handle: str, session: session_pb2.Session) -> None:
        attached = self._client.attach(handle, session_id=session.session_id, wait_for_approval=self._wait_for_approval)
        self._feed = SessionFeed(attached)
        while session.state == session_pb2.SESSION_STATE_REQUESTED:
            command = self._pdp_command(f"session approve {session.session_id}")
            self._missing = NoSessionError(
                "Waiting for approval: a person must approve this task before any tool may be called. "
                f"Tell the user to run `{command}`, and call the tool again after that.",
                frozenset(f"{tool.server}/{tool.tool}" for tool in session.tools),
            )
            self._answered.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._feed.changed()
            session = await self._patiently(partial(self._client.get_session, session.session_id))
        if session.state == session_pb2.SESSION_STATE_ACTIVE:
            # Followed on only if somebody asks: a door over HTTP has many sessions, and a server few feeds.
            await self._feed.close()
            self._feed = SessionFeed(attached)
            self._session = attached
            return
        state = session_pb2.SessionState.Name(session.state).removeprefix("SESSION_STATE_").lower()
        reason = f": {session.reason}" if session.reason else ""
        self._missing = NoSessionError(
            f"The request for a session is {state}{reason}. No tool may be called. Do not retry; tell the user."
        )

    async def _patiently(self, ask: Callable[[], Any]) -> Any:  # noqa: ANN401 - what it returns
        """Ask until the server answers."""
        pause, told = _AGAIN_SECONDS, False
        while True:
            try:
                return await ask()
            except (UnavailableError, OverloadedError) as error:
                if not told and self._answered.is_set():
                    _LOG.warning("the session cannot be opened now: %s", error)
                    told = True
                self._missing = NoSessionError(refusals.AWAY)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
