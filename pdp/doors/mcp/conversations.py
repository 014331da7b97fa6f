"""What belongs together over HTTP: the requests of one session of MCP, and of those without a handshake."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from pdp.client import CallTokenRequest
from pdp.doors.mcp import answers
from pdp.doors.mcp import headers as http
from pdp.doors.mcp.apart import apart
from pdp.doors.mcp.gate import Gate
from pdp.doors.mcp.load import Load
from pdp.doors.mcp.messages import InvalidMessageError, Message, error_in
from pdp.doors.mcp.methods import PROTOCOL_VERSION
from pdp.doors.mcp.serverasks import ServerAsks
from pdp.doors.mcp.upstream import Upstream, UpstreamError
from pdp.doors.session import DoorSession
from pdp.observer import DoorObserver
from pdp.serving.web import NOT_FOUND

# What the client of a session of MCP is told that is over.
IS_OVER = "this session of MCP is over: initialize again"
# How long a definition is taken for what the server does.
_FRESH_SECONDS = 10.0
_LIST_SECONDS, _END_SECONDS = 30.0, 5.0
# How long a server may take to say that it has taken a message that has no answer, and how many the proxy itself sends
# at one time in one session of MCP: a server that asks and does not listen must not use up connections.
TAKEN_SECONDS, MOST_TOLD = 30.0, 64

T = TypeVar("T")


class Background:
    """Work that goes on when the request that began it is cancelled."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin work that nobody waits for."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for work that goes on even if this task is cancelled."""
        return await asyncio.shield(self.begin(work))

    async def close(self) -> None:
        """Wait for all of it, for a moment."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_END_SECONDS)


class Cancellable(Protocol):
    """A request that can be taken back."""

    def take_back(self) -> bool:
        """Take the request back. Say whether it had reached the server."""
        ...


class Conversation:
    """What the requests of one session of MCP share; those without a handshake share only the definitions of tools.

    `version` is what the client's headers last called the revision of MCP.
    """

    def __init__(
        self,
        *,
        server: str,
        session: DoorSession,
        upstream: Upstream,
        load: Load,
        passes: frozenset[str],
        background: Background,
        pdp_command: Callable[[str], str],
        mcp_session: str = "",
        call_token: CallTokenRequest | None = None,
        observer: DoorObserver | None = None,
    ) -> None:
        self.mcp_session = mcp_session
        self.background = background
        self.version = ""
        # Whether the server does not know this session of MCP any more.
        self.forgotten = False
        # INVARIANT: what the server may still answer has an id that no other request gets: servers find by it the
        # stream on which they answer, some of them by its text, which is the same for `1` and `"1"`.
        self.open: dict[str, Cancellable] = {}
        self.given_up: set[str] = set()
        self.server_asks = ServerAsks()
        # The tasks that hand on what the server says besides its answers.
        self.listening: set[asyncio.Task[None]] = set()
        self._told = 0
        self._upstream = upstream
        self._load = load
        self.gate = Gate(
            server=server,
            session=session,
            ask_server=self._ask_server,
            pdp_command=pdp_command,
            passes=passes,
            lasting=_FRESH_SECONDS,
            reveals=upstream.credentials.shown_by,
            call_token=call_token,
            observer=observer,
            transport="tcp",
        )

    def look(self, status: int, error: str | None) -> None:
        """Take note of the status of an answer, and of the error in it: they can say that the server has forgotten.

        Some servers answer a method that they do not know with the same status.
        """
        if self.mcp_session and status == NOT_FOUND:
            self.forgotten |= json.loads(error or "{}").get("code") != answers.METHOD_NOT_FOUND

    def end(self) -> None:
        """Answer what is open as taken back, and end the streams."""
        for request in tuple(self.open.values()):
            request.take_back()
        for task in tuple(self.listening):
            task.cancel()

    def headers(self, of_client: http.Headers) -> dict[str, str]:
        """Return the headers with which a client's request is sent on."""
        return {**http.to_server(of_client), **({http.SESSION: self.mcp_session} if self.mcp_session else {})}

    def tell_server(self, text: str) -> None:
        """Send the server a message of the proxy's own that has no answer, unless it is slow to take others."""
        if self._told < MOST_TOLD:
            self._told += 1
            self.background.begin(self._tell(text))

    async def _tell(self, text: str) -> None:
        try:
            with suppress(UpstreamError):
                headers, content = self._own_headers(self.version), text.encode("utf-8")
                async with self._upstream.exchange(
                    "POST", headers, content, load=self._load, seconds=TAKEN_SECONDS
                ) as answer:
                    await answer.body()
        finally:
            self._told -= 1

    async def _ask_server(self, method: str, params: Mapping[str, Any]) -> Message:
        number = f"pdp-{secrets.token_hex(8)}"
        version = params.get("_meta", {}).get(PROTOCOL_VERSION)
        headers = self._own_headers(version if isinstance(version, str) else self.version)
        asked = answers.request(number, method, params).encode()
        if version is not None:
            headers[http.METHOD] = method
        try:
            async with (
                asyncio.timeout(_LIST_SECONDS),
                self._upstream.exchange("POST", headers, asked, load=self._load) as answer,
            ):
                if http.is_stream(answer.headers):
                    async for message in answer.messages():
                        if message is not None and message.id == number and not message.method:
                            return message
                else:
                    body = await answer.body()
                    self.look(answer.status, error_in(body))
                    message = await apart(Message.read, body)
                    if message.id == number and not message.method:
                        return message
        except UpstreamError as error:
            raise InvalidMessageError(str(error)) from None
        except TimeoutError:
            pass
        raise InvalidMessageError("the server does not answer")

    def _own_headers(self, version: str) -> dict[str, str]:
        headers = {"accept": "application/json, text/event-stream"}
        if version:
            headers[http.VERSION] = version
        if self.mcp_session:
            headers[http.SESSION] = self.mcp_session
        return headers
