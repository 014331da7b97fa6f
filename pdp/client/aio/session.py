"""A session as the gateway holds it: asks about calls, and guards Python functions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pdp.client import tasks
from pdp.client.aio.admitted import AsyncAdmittedCall
from pdp.client.aio.underway import AsyncCallUnderWay
from pdp.client.fulfilling import OnNotice, duties_before, guarded_obligations
from pdp.client.held import HeldSession
from pdp.client.values import Answer, ListedTool, ToolCall
from pdp.v1 import session_pb2

if TYPE_CHECKING:  # The client creates sessions, so a real import would be circular.
    from pdp.client.aio.client import AsyncClient


class AsyncClientSession:
    """A session, from `AsyncClient.session` or `AsyncClient.attach`."""

    def __init__(self, client: AsyncClient, held: HeldSession) -> None:
        self._client = client
        self._held = held

    @property
    def id(self) -> str:
        """Return the public id (`ses_…`); empty while it is not known, until the first `list_tools`."""
        return self._held.id

    @property
    def on_notice(self) -> OnNotice | None:
        """Return what shows notices, from the client."""
        return self._client.on_notice

    @property
    def handle(self) -> str:
        """Return the secret handle; never log it."""
        return self._held.handle

    async def authorize(
        self,
        server: str,
        tool: str,
        arguments: Mapping[str, Any] | bytes | None = None,
        *,
        definition_digest: str = "",
        facts: Mapping[str, Any] | bytes | None = None,
        request_id: str = "",
        tool_call_id: str = "",
        min_revision: str = "",
        traceparent: str = "",
        tracestate: str = "",
        wait: float | None = None,
    ) -> Answer:
        """Ask about one call, as `AsyncClient.authorize` does, with its digest if known.

        The digest is that of the tool's definition. `wait` None means the session's `wait_for_approval`.
        """
        call = ToolCall(
            server=server,
            tool=tool,
            arguments=arguments,
            definition_digest=definition_digest,
            facts=facts,
            request_id=request_id,
            tool_call_id=tool_call_id,
            min_revision=min_revision,
        )
        return await self.ask(call, traceparent=traceparent, tracestate=tracestate, wait=wait)

    async def ask(
        self,
        call: ToolCall,
        *,
        known_obligations: Iterable[str] | None = None,
        traceparent: str = "",
        tracestate: str = "",
        wait: float | None = None,
    ) -> Answer:
        """Ask about one call of this session, as `AsyncClient.ask` does.

        `wait` None means the session's `wait_for_approval`.
        """
        return await self._client.ask(
            self._held.completed(call),
            known_obligations=known_obligations,
            traceparent=traceparent,
            tracestate=tracestate,
            wait=self._held.wait_for_approval if wait is None else wait,
        )

    async def admit(
        self,
        call: ToolCall,
        *,
        met: Collection[str] = (),
        labels: Callable[[Any], Iterable[str]] | None = None,
        report: bool = True,
        traceparent: str = "",
        tracestate: str = "",
        wait: float | None = None,
    ) -> AsyncAdmittedCall:
        """Ask about one call as a guard does, for programs that make the call themselves.

        `met`, `labels` and `report` are those of `guard`, the others those of `ask`. Notices are shown before this
        returns. Raise `ToolCallDenied` when the call must not be made.
        """
        known = guarded_obligations(self.on_notice, met)
        answer = await self.ask(
            call, known_obligations=known, traceparent=traceparent, tracestate=tracestate, wait=wait
        )
        return AsyncAdmittedCall(self, duties_before(answer, self.on_notice, met), labels, report=report)

    async def batch(
        self, calls: Sequence[ToolCall], *, traceparent: str = "", tracestate: str = ""
    ) -> tuple[Answer, ...]:
        """Ask about several calls of this session, as `AsyncClient.batch` does."""
        completed = [self._held.completed(call) for call in calls]
        return await self._client.batch(completed, traceparent=traceparent, tracestate=tracestate)

    async def list_tools(self) -> tuple[ListedTool, ...]:
        """Return every tool of the catalogue as this session sees it."""
        session_id, tools = await self._client.identified_tools(self.handle, session_id=self.id)
        self._held = replace(self._held, id=session_id)
        return tools

    def changes(self, *, since_revision: str = "") -> AsyncIterator[session_pb2.WatchSessionsResponse]:
        """Yield what changes of this session, as `AsyncClient.watch_sessions` does.

        Of all sessions of the gateway where this one's id is not known.
        """
        return self._client.watch_sessions(since_revision=since_revision, session_id=self.id)

    def under_way(self, answer: Answer, *, unheard: float | None = None) -> AsyncCallUnderWay:
        """Stop an allowed call when this session is over, as `AsyncClient.under_way` does."""
        return self._client.under_way(answer, unheard=unheard)

    async def report_outcome(
        self,
        answer: Answer,
        *,
        succeeded: bool = True,
        labels: Sequence[str] = (),
        result: Any = None,  # noqa: ANN401 - whatever the tool returned
    ) -> None:
        """Report what came of an allowed call, as `AsyncClient.report_outcome` does."""
        await self._client.report_outcome(answer, succeeded=succeeded, labels=labels, result=result)

    guard = tasks.guard
