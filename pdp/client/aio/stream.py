"""Ask about many calls on one open stream: quicker than a call each, and just as strict.

After a failure a stream is not trusted again: later calls are denied until another one is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from pdp.client import tasks
from pdp.client.asking import judge_stream, prepare_for_stream
from pdp.client.values import Answer, ToolCall
from pdp.v1.authorization_pb2 import AuthorizeStreamRequest

_NOT_OPEN = "the stream is not open"


class AsyncAuthorizationStream:
    """One open stream, from `AsyncClient.stream`. Tasks can share it: calls go one after the other, in order."""

    def __init__(
        self,
        start: Callable[[], tasks.Exchange],
        *,
        known_obligations: frozenset[str],
        describe: Callable[[BaseException], str],
    ) -> None:
        self._start = start
        self._describe = describe
        self._known_obligations = known_obligations
        self._exchange: tasks.Exchange | None = None
        self._fault = _NOT_OPEN

    @property
    def fault(self) -> str:
        """Return why every further call is denied; empty while the stream works."""
        return self._fault

    async def __aenter__(self) -> Self:
        if self._exchange is not None:
            raise RuntimeError("a stream opens only once; get a new one from the client")
        try:
            self._exchange = self._start()
        except Exception as error:  # noqa: BLE001 - fails closed: without a stream every call on it is denied
            self._fault = self._describe(error)
        else:
            self._fault = ""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._fault = self._fault or _NOT_OPEN
        if self._exchange is not None:
            await self._exchange.close()

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
        prepared = prepare_for_stream(call)
        if isinstance(prepared, Answer):
            return prepared
        if self._exchange is None:
            return prepared.refused(self._fault)
        if fault := self._exchange.unusable():
            return prepared.refused(fault)
        async with self._exchange.turn:
            if self._fault:
                return prepared.refused(self._fault)
            try:
                response = await self._exchange.ask(AuthorizeStreamRequest(request=prepared.request))
            except BaseException:
                # The answer to the abandoned question can still come: the stream is out of step.
                self._break(self._exchange, "the stream was cancelled")
                raise
            if not isinstance(response, str) and response.request_id == prepared.request.request_id:
                return judge_stream(prepared, response, self._known_obligations)
            self._break(self._exchange, response if isinstance(response, str) else "the answer is for another call")
            return prepared.refused(self._fault)

    def _break(self, exchange: tasks.Exchange, fault: str) -> None:
        self._fault = fault
        exchange.cancel()
