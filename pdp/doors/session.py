"""The session in which a door asks: one that it was given, or one that it requests, waits for and ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from pdp.client import (
    AsyncClient,
    AsyncClientSession,
    NotFoundError,
    OverloadedError,
    PDPClientError,
    UnavailableError,
    WrongStateError,
)
from pdp.v1 import session_pb2

_LOG = logging.getLogger(__name__)

_AGAIN_SECONDS, _LONGEST_PAUSE = 1.0, 30.0
_MOST_END_SECONDS = 5.0


class NoSessionError(Exception):
    """There is no session to ask in now. The message is for the agent.

    `tools` are those that were asked for while a person has not answered yet, as `server/tool`.
    """

    def __init__(self, text: str, tools: frozenset[str] = frozenset()) -> None:
        super().__init__(text)
        self.tools = tools


class DoorSession(Protocol):
    """Where a door gets its session from."""

    async def current(self) -> AsyncClientSession:
        """Return the session to ask in. Raise `NoSessionError` when there is none, or none yet. Never waits."""
        ...

    async def close(self) -> None:
        """End what this door began."""
        ...


class GivenSession:
    """A session whose handle the door was given, and which others end."""

    def __init__(self, session: AsyncClientSession) -> None:
        self._session = session

    async def current(self) -> AsyncClientSession:
        """Return the session, whatever its state: the server decides about each call."""
        return self._session

    async def close(self) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a door requests a session for; `AsyncClient.request_session` explains the fields."""

    user: str
    agent: str
    purpose: str
    tools: tuple[str, ...]
    duration: float | None = None
    environment: str = ""
    terms: Mapping[str, Any] | bytes | None = None
    labels: tuple[str, ...] = ()


class RequestedSession:
    """A session that the door itself requests when it opens, and ends when it closes.

    `approval` returns the command by which a person approves a session of an id. `changed` is called when the person
    has answered. Make it where the event loop runs.
    """

    def __init__(
        self,
        client: AsyncClient,
        wish: Wish,
        *,
        approval: Callable[[str], str],
        wait_for_approval: float = 0.0,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._wish = wish
        self._approval = approval
        self._wait_for_approval = wait_for_approval
        self._changed = changed
        self._handle = ""
        self._session: AsyncClientSession | None = None
        self._missing = NoSessionError("The policy decision point has not answered yet. Try again in a moment.")
        self._opening = asyncio.ensure_future(self._open())

    async def current(self) -> AsyncClientSession:
        """Return the session once a person has approved it. Raise `NoSessionError` before, and after a refusal."""
        if self._session is None:
            raise NoSessionError(str(self._missing), self._missing.tools)
        return self._session

    async def close(self) -> None:
        """End the session, or its request."""
        self._opening.cancel()
        await asyncio.wait([self._opening])
        if self._handle:
            # A server that is away lets the session end by its own time.
            with suppress(NotFoundError, WrongStateError, PDPClientError, TimeoutError):
                async with asyncio.timeout(_MOST_END_SECONDS):
                    await self._client.end_session(self._handle)

    async def _open(self) -> None:
        try:
            opened = await self._patiently(self._request)
            self._handle = opened.session_handle
            await self._until_answered(opened.session)
        except PDPClientError as error:
            self._missing = NoSessionError(
                f"No session could be opened, so no tool may be called: {error}. Do not retry; tell the user."
            )
        self._changed()

    async def _until_answered(self, session: session_pb2.Session) -> None:
        while session.state == session_pb2.SESSION_STATE_REQUESTED:
            command = self._approval(session.session_id)
            self._missing = NoSessionError(
                "Waiting for approval: a person must approve this task before any tool may be called. "
                f"Tell the user to run `{command}`, and call the tool again after that.",
                frozenset(f"{tool.server}/{tool.tool}" for tool in session.tools),
            )
            await asyncio.sleep(_AGAIN_SECONDS)
            session = await self._patiently(partial(self._client.get_session, session.session_id))
        if session.state == session_pb2.SESSION_STATE_ACTIVE:
            self._session = self._client.attach(
                self._handle, session_id=session.session_id, wait_for_approval=self._wait_for_approval
            )
            return
        state = session_pb2.SessionState.Name(session.state).removeprefix("SESSION_STATE_").lower()
        reason = f": {session.reason}" if session.reason else ""
        self._missing = NoSessionError(
            f"The request for a session is {state}{reason}. No tool may be called. Do not retry; tell the user."
        )

    def _request(self) -> Any:  # noqa: ANN401 - an awaitable of a message
        wish = self._wish
        return self._client.request_session(
            user=wish.user,
            agent=wish.agent,
            purpose=wish.purpose,
            tools=wish.tools,
            duration=wish.duration,
            environment=wish.environment,
            terms=wish.terms,
            labels=wish.labels,
        )

    async def _patiently(self, ask: Callable[[], Any]) -> Any:  # noqa: ANN401 - what it returns
        """Ask until the server answers."""
        pause = _AGAIN_SECONDS
        while True:
            try:
                return await ask()
            except (UnavailableError, OverloadedError) as error:
                _LOG.warning("the session cannot be opened yet: %s", error)
                self._missing = NoSessionError(
                    "The policy decision point does not answer, so no tool may be called. Try again later."
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
