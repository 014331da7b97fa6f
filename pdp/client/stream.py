"""Ask about many calls on one open stream: quicker than a call each, and just as strict.

A stream that faltered once is not trusted again: what follows is denied until another one is opened.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import grpc

from pdp.client.asking import Asked, judge_stream, prepare
from pdp.client.values import Answer, ToolCall
from pdp.v1.authorization_pb2 import AuthorizeStreamRequest, AuthorizeStreamResponse

_NOT_OPEN = "the stream is not open"
_OTHER_CALL = "the answer is to another call"
# A server ends the whole stream, and the calls of others on it, where a message is larger than its limit
# `message_bytes`; this is that by default, less a frame.
_LARGEST_BYTES = 256 * 1024 - 16
_TOO_LARGE = f"a call on a stream may not be larger than {_LARGEST_BYTES} bytes"


class AuthorizationStream:
    """One open stream, from `Client.stream`. Threads may share it: calls go one after the other, in order."""

    def __init__(
        self,
        start: Callable[[Any], Any],
        *,
        timeout: float,
        known_obligations: frozenset[str],
        describe: Callable[[BaseException], str],
    ) -> None:
        self._start = start
        self._describe = describe
        self._timeout = timeout
        self._known_obligations = known_obligations
        self._lock = threading.Lock()
        self._outgoing: queue.SimpleQueue[AuthorizeStreamRequest | None] = queue.SimpleQueue()
        self._incoming: queue.SimpleQueue[AuthorizeStreamResponse | str] = queue.SimpleQueue()
        self._call: Any = None
        self._reader: threading.Thread | None = None
        self._fault = _NOT_OPEN

    @property
    def fault(self) -> str:
        """Return why every further call is denied; empty while the stream works."""
        return self._fault

    def __enter__(self) -> Self:
        if self._call is not None:
            raise RuntimeError("a stream opens only once; ask the client for another one")
        try:
            self._call = self._start(iter(self._outgoing.get, None))
        except Exception as error:  # noqa: BLE001 - fails closed: without a stream every call on it is denied
            self._fault = self._describe(error)
            return self
        self._fault = ""
        # gRPC cannot wait for a message with a bound; a queue can.
        self._reader = threading.Thread(target=self._read, name="pdp-stream", daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._break(self._fault or _NOT_OPEN)
        if self._reader is not None:
            self._reader.join()

    def authorize(
        self,
        session_handle: str,
        server: str,
        tool: str,
        arguments: Mapping[str, Any] | bytes | None = None,
        *,
        session_id: str = "",
        definition_digest: str = "",
        facts: Mapping[str, Any] | bytes | None = None,
        request_id: str = "",
        tool_call_id: str = "",
    ) -> Answer:
        """Ask about one call and return the answer; never raises for a fault of server or stream."""
        return self.ask(
            ToolCall(
                session_handle=session_handle,
                server=server,
                tool=tool,
                arguments=arguments,
                session_id=session_id,
                definition_digest=definition_digest,
                facts=facts,
                request_id=request_id,
                tool_call_id=tool_call_id,
            )
        )

    def ask(self, call: ToolCall) -> Answer:
        """Ask about one call, as `authorize` does."""
        asked = _prepare(call)
        if isinstance(asked, Answer):
            return asked
        with self._lock:
            if self._fault:
                return asked.refused(self._fault)
            self._outgoing.put(AuthorizeStreamRequest(request=asked.request))
            response = self._next()
            if isinstance(response, str):
                self._break(response)
            elif response.request_id != asked.request.request_id:
                self._break(_OTHER_CALL)
            else:
                return judge_stream(asked, response, self._known_obligations)
            return asked.refused(self._fault)

    def _next(self) -> AuthorizeStreamResponse | str:
        try:
            return self._incoming.get(timeout=self._timeout)
        except queue.Empty:
            return f"no answer within {self._timeout:g} s"

    def _read(self) -> None:
        try:
            for response in self._call:
                self._incoming.put(response)
        except grpc.RpcError as error:
            self._incoming.put(self._describe(error))
        else:
            self._incoming.put("the server ended the stream")

    def _break(self, fault: str) -> None:
        self._fault = fault
        self._outgoing.put(None)
        if self._call is not None:
            self._call.cancel()


class AsyncAuthorizationStream:
    """One open stream, from `AsyncClient.stream`. Tasks may share it: calls go one after the other, in order."""

    def __init__(
        self,
        start: Callable[[], Any],
        *,
        timeout: float,
        known_obligations: frozenset[str],
        describe: Callable[[BaseException], str],
    ) -> None:
        self._start = start
        self._describe = describe
        self._timeout = timeout
        self._known_obligations = known_obligations
        self._lock = asyncio.Lock()
        self._call: Any = None
        self._fault = _NOT_OPEN

    @property
    def fault(self) -> str:
        """Return why every further call is denied; empty while the stream works."""
        return self._fault

    async def __aenter__(self) -> Self:
        if self._call is not None:
            raise RuntimeError("a stream opens only once; ask the client for another one")
        try:
            self._call = self._start()
        except Exception as error:  # noqa: BLE001 - fails closed: without a stream every call on it is denied
            self._fault = self._describe(error)
        else:
            self._fault = ""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._break(self._fault or _NOT_OPEN)

    async def authorize(
        self,
        session_handle: str,
        server: str,
        tool: str,
        arguments: Mapping[str, Any] | bytes | None = None,
        *,
        session_id: str = "",
        definition_digest: str = "",
        facts: Mapping[str, Any] | bytes | None = None,
        request_id: str = "",
        tool_call_id: str = "",
    ) -> Answer:
        """Ask about one call and return the answer; never raises for a fault of server or stream."""
        return await self.ask(
            ToolCall(
                session_handle=session_handle,
                server=server,
                tool=tool,
                arguments=arguments,
                session_id=session_id,
                definition_digest=definition_digest,
                facts=facts,
                request_id=request_id,
                tool_call_id=tool_call_id,
            )
        )

    async def ask(self, call: ToolCall) -> Answer:
        """Ask about one call, as `authorize` does."""
        asked = _prepare(call)
        if isinstance(asked, Answer):
            return asked
        async with self._lock:
            if self._fault:
                return asked.refused(self._fault)
            response = await self._exchange(AuthorizeStreamRequest(request=asked.request))
            if isinstance(response, str):
                self._break(response)
            elif response.request_id != asked.request.request_id:
                self._break(_OTHER_CALL)
            else:
                return judge_stream(asked, response, self._known_obligations)
            return asked.refused(self._fault)

    async def _exchange(self, request: AuthorizeStreamRequest) -> AuthorizeStreamResponse | str:
        try:
            async with asyncio.timeout(self._timeout):
                await self._call.write(request)
                response = await self._call.read()
        except TimeoutError:
            return f"no answer within {self._timeout:g} s"
        except asyncio.CancelledError:
            # The answer to the call that was given up may still come: the stream is out of step.
            self._break("the stream was cancelled")
            if was_cancelled_by_caller():
                raise
            return self._fault
        except Exception as error:  # noqa: BLE001 - fails closed: whatever went wrong, the answer is a deny
            return self._describe(error)
        return response if isinstance(response, AuthorizeStreamResponse) else "the server ended the stream"

    def _break(self, fault: str) -> None:
        self._fault = fault
        if self._call is not None:
            self._call.cancel()


def _prepare(call: ToolCall) -> Asked | Answer:
    """Return the question to send, or the deny when it must not be sent."""
    asked = prepare(call)
    if isinstance(asked, Asked) and asked.request.ByteSize() > _LARGEST_BYTES:
        return asked.refused(_TOO_LARGE)
    return asked


def was_cancelled_by_caller() -> bool:
    """Say whether the running task is being cancelled; gRPC raises the same when its channel closes."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
