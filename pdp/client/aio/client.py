"""The client for asyncio: its connection, and questions about calls. What else it does is a base class by subject."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pdp.client import approvals, operations, tasks
from pdp.client.aio.access import AsyncAccessCalls
from pdp.client.aio.calls import AsyncCalls
from pdp.client.aio.calltokens import AsyncCallTokenCalls
from pdp.client.aio.freezes import AsyncFreezeCalls
from pdp.client.aio.policies import AsyncPolicyCalls
from pdp.client.aio.records import AsyncRecordCalls
from pdp.client.aio.session import AsyncClientSession
from pdp.client.aio.sessions import AsyncSessionCalls
from pdp.client.aio.stream import AsyncAuthorizationStream
from pdp.client.aio.underway import AsyncCallsUnderWay, AsyncCallUnderWay
from pdp.client.aio.waiting import AsyncAccessAnswers
from pdp.client.asking import PreparedCall, judge, judge_batch, prepare, refuse_batch
from pdp.client.connection import Connection
from pdp.client.definitions import DefinitionDigests
from pdp.client.errors import (
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PDPClientError,
    UnavailableError,
    WrongStateError,
    reason_of,
)
from pdp.client.fulfilling import OnNotice
from pdp.client.held import HeldSession
from pdp.client.reading import read_result
from pdp.client.values import Answer, CallTokenRequest, ToolCall
from pdp.v1 import caller_pb2, session_pb2
from pdp.v1.authorization_pb2 import BatchAuthorizeRequest


class AsyncClient(
    AsyncSessionCalls, AsyncAccessCalls, AsyncFreezeCalls, AsyncRecordCalls, AsyncPolicyCalls, AsyncCallTokenCalls
):
    """A connection to the PDP, to be shared by tasks and closed at the end: `async with AsyncClient() as client:`.

    Make it where the event loop runs.
    `address` is `host:port` or `unix:…`; None means `PDP_ADDRESS` or else `127.0.0.1:50151`.
    `control_address` is where the server separately serves calls that end authority; None means
    `PDP_CONTROL_ADDRESS`. The client sends them there first, and to `address` when there is no answer or the call was
    not begun.
    `token` is a bearer token, or a function that returns the one for the call that is about to be made.
    `token_file` is read again when it changes, so that a token can be renewed.
    `tls` is True for the system's root certificates or the path of a PEM file; needed beyond loopback.
    Without it a server on loopback is verified with `tls/ca.pem` in `data_dir`; None means `PDP_DATA_DIR` or else
    `.pdp`.
    `plaintext` is for a server on loopback that speaks no TLS: any user of the machine can impersonate it.
    `tls_certificate` and `tls_key` are PEM files for a server that authenticates callers by certificates; renewed
    ones need a new client.
    `timeout` bounds a question about calls, retry included, `management_timeout` every other call, and the time to
    the first message of a watch; in seconds.
    `known_obligations` are the obligations that the caller meets; an answer with any other is a deny.
    `on_notice` shows a notice to a person before a guarded function runs: it gets the text and the answer, and must not
    block. Without it a call with a notice is denied.
    `report_values` False sends no digests of what results hold: what an agent takes from a result is then unseen.
    `traceparent` returns the W3C header of the current trace, for calls that do not state one.
    `ask_together` False sends every question by itself; None means `PDP_ASK_TOGETHER` or else True: those that wait at
    the same time go as one message, and each is answered as if it had gone alone.
    Raise `ConfigurationError` when the address, the token, the certificates or `PDP_ASK_TOGETHER` are wrong.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        control_address: str | None = None,
        token: str | Callable[[], str] | None = None,
        token_file: str | Path | None = None,
        tls: bool | str | Path = False,
        tls_certificate: str | Path | None = None,
        tls_key: str | Path | None = None,
        data_dir: str | Path | None = None,
        plaintext: bool = False,
        timeout: float = 2.0,
        management_timeout: float = 30.0,
        known_obligations: Iterable[str] = (),
        on_notice: OnNotice | None = None,
        report_values: bool = True,
        traceparent: Callable[[], str] | None = None,
        ask_together: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = tasks.sleep,
    ) -> None:
        self._connection = Connection.to(
            address,
            token=token,
            token_file=token_file,
            tls=tls,
            tls_certificate=tls_certificate,
            tls_key=tls_key,
            data_dir=data_dir,
            plaintext=plaintext,
        )
        self._calls = AsyncCalls(
            self._connection,
            control_address,
            timeout=timeout,
            management_timeout=management_timeout,
            traceparent=traceparent,
            ask_together=ask_together,
            clock=clock,
            sleep=sleep,
        )
        self._answers = AsyncAccessAnswers(self._begin_watch, self._read_access, clock=clock)
        self._under_way = AsyncCallsUnderWay(self._begin_following, self._read_session, clock=clock)
        self._known_obligations = frozenset(known_obligations)
        self.on_notice = on_notice
        self._report_values = report_values
        self._clock = clock
        self._sleep = sleep

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await tasks.completed(self.close)

    @property
    def revision(self) -> str:
        """Return the revision of the store in the latest answer to a change, for `min_revision`; empty before one.

        Where several changes are under way at once, it is that of any of them.
        """
        return self._calls.revision

    async def close(self) -> None:
        """Close the connection; calls in progress and later ones are denied.

        A process that was forked since closes nothing: there gRPC would wait for threads that only the other one has.
        """
        if self._connection.forked:
            return
        await self._answers.close()
        await self._under_way.close()
        await self._calls.close()

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
        call_tokens: tuple[CallTokenRequest, ...] = (),
        min_revision: str = "",
        traceparent: str = "",
        tracestate: str = "",
        wait: float = 0.0,
    ) -> Answer:
        """Ask whether a tool call can go ahead; `ToolCall` explains the fields.

        A call that a person must approve waits up to `wait` seconds for the answer, and is then asked about again.
        Never raises for a fault of server, network or arguments: the answer is then a deny with `error`.
        """
        call = ToolCall(
            session_handle=session_handle,
            server=server,
            tool=tool,
            arguments=arguments,
            session_id=session_id,
            definition_digest=definition_digest,
            facts=facts,
            request_id=request_id,
            tool_call_id=tool_call_id,
            call_tokens=call_tokens,
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
        wait: float = 0.0,
    ) -> Answer:
        """Ask about one call, as `authorize` does.

        `known_obligations` are those that the caller meets for this call, None for those of the client.
        """
        known = self._known_obligations if known_obligations is None else frozenset(known_obligations)
        prepared = prepare(call)
        if isinstance(prepared, Answer):
            return prepared
        ask = partial(self._ask_once, prepared, known, traceparent, tracestate)
        answer = await ask()
        return await self._once_approved(ask, answer, wait) if answer.waits else answer

    async def batch(
        self, calls: Sequence[ToolCall], *, traceparent: str = "", tracestate: str = ""
    ) -> tuple[Answer, ...]:
        """Ask about up to 100 calls at once, all decided on one snapshot.

        The answers are in the order of the calls.
        """
        prepared = tuple(prepare(call) for call in calls)
        requests = [entry.request for entry in prepared if not isinstance(entry, Answer)]
        if not requests:
            return refuse_batch(prepared, "")
        try:
            message = BatchAuthorizeRequest(requests=requests)
            reply = await self._calls.batch_authorize(message, traceparent, tracestate)
            return judge_batch(prepared, reply.decisions, self._known_obligations)
        except Exception as error:  # noqa: BLE001 - fails closed: whatever went wrong, every answer is a deny
            return refuse_batch(prepared, self._connection.describe(error), reason_of(error))

    def stream(self, *, traceparent: str = "", tracestate: str = "") -> AsyncAuthorizationStream:
        """Return a stream for many calls one after the other; open it with `async with`."""
        return AsyncAuthorizationStream(
            partial(self._calls.exchange, traceparent, tracestate),
            known_obligations=self._known_obligations,
            describe=self._connection.describe,
        )

    def under_way(self, answer: Answer, *, unheard: float | None = None) -> AsyncCallUnderWay:
        """Stop an allowed call, made within what this returns, when its session is over: `ToolCallStopped`.

        What its `on_stop` was given is called then; without it, a task is cancelled, and a thread goes on. A session is
        over when it is revoked, ended or expired, or its tenant is frozen. With `unheard`, a call also stops when for
        so many seconds it could not be known that it is not. Entering raises `NotFoundError` when this caller has not
        opened the session, since only then it is told of it.
        """
        if not answer.allowed:
            raise InvalidRequestError("only a call that was allowed can be under way")
        return AsyncCallUnderWay(self._under_way, answer, tasks.Stopping(), unheard)

    async def report_outcome(
        self,
        answer: Answer,
        *,
        succeeded: bool = True,
        labels: Sequence[str] = (),
        result: Any = None,  # noqa: ANN401 - whatever the tool returned
    ) -> None:
        """Report what came of an allowed call whose answer has an `outcome_token`, before its result is used.

        `labels` are added to the session and to all above it. Of `result`, what the tool returned, digests are sent
        where policies look at what results hold. Use the result only when this returns. Raise `AlreadyReportedError`
        when the call was reported otherwise, and `WrongStateError` when the session is over.
        """
        reading = answer.result_reading if succeeded and self._report_values else None
        held = read_result(reading, result)
        await self._calls.manage(operations.report_outcome(answer, succeeded=succeeded, labels=labels, held=held))

    async def get_caller(self) -> caller_pb2.Caller:
        """Return what the server knows of this caller: id, roles, tenants, and how it is proved."""
        return await self._calls.manage(operations.get_caller())

    @asynccontextmanager
    async def session(
        self,
        *,
        user: str,
        agent: str,
        purpose: str,
        tools: Sequence[str],
        duration: float | None = None,
        wait: float = 300.0,
        poll: float = 0.5,
        announce: Callable[[session_pb2.Session], None] | None = None,
        definitions: DefinitionDigests | None = None,
        parent_session_handle: str = "",
        environment: str = "",
        user_attributes: Mapping[str, Any] | bytes | None = None,
        labels: Sequence[str] = (),
        may_delegate: bool = False,
        terms: Mapping[str, Any] | bytes | None = None,
        wait_for_approval: float = 0.0,
    ) -> AsyncIterator[AsyncClientSession]:
        """Hold a session: ask for it, wait for its approval, and end it in any case.

        `announce` is called with a session that waits, so that an approver can be asked. `wait` bounds the waiting and
        `poll` is the pause between two checks, in seconds. `definitions` come from `definition_digests`. A call that a
        person must approve waits up to `wait_for_approval` seconds for the answer.
        Raise `SessionNotApprovedError` when the session is refused or not approved in time.
        """
        opened = await self.request_session(
            user=user,
            agent=agent,
            purpose=purpose,
            tools=tools,
            duration=duration,
            parent_session_handle=parent_session_handle,
            environment=environment,
            user_attributes=user_attributes,
            labels=labels,
            may_delegate=may_delegate,
            terms=terms,
        )
        try:
            await self._await_approval(opened.session, wait, poll, announce)
            yield self.attach(
                opened.session_handle,
                session_id=opened.session.session_id,
                definitions=definitions,
                wait_for_approval=wait_for_approval,
            )
        except BaseException as error:
            try:
                await self._end_if_live(opened.session_handle)
            except PDPClientError as failure:
                error.add_note(f"the session could not be ended: {failure}")
            raise
        await self._end_if_live(opened.session_handle)

    def attach(
        self,
        session_handle: str,
        *,
        session_id: str = "",
        definitions: DefinitionDigests | None = None,
        wait_for_approval: float = 0.0,
    ) -> AsyncClientSession:
        """Return a session that already exists; this client does not end it."""
        held = HeldSession(
            handle=session_handle,
            id=session_id,
            definitions=definitions or {},
            wait_for_approval=wait_for_approval,
        )
        return AsyncClientSession(self, held)

    async def _ask_once(
        self, prepared: PreparedCall, known: frozenset[str], traceparent: str, tracestate: str
    ) -> Answer:
        try:
            reply = await self._calls.authorize(prepared.request, traceparent, tracestate)
            return judge(prepared, reply.decision, known)
        except Exception as error:  # noqa: BLE001 - fails closed: whatever went wrong, the answer is a deny
            return prepared.refused(self._connection.describe(error), reason_of(error))

    async def _once_approved(self, ask: Callable[[], Awaitable[Answer]], answer: Answer, wait: float) -> Answer:
        """Wait for people as long as a call waits for one, and ask about it again with the same request id.

        The server tells a repeated question by that id, so an approval is used once, also when an answer was lost.
        """
        deadline, asked = self._clock() + wait, ""
        while answer.waits and answer.access_request_id != asked and (remaining := deadline - self._clock()) > 0:
            asked = answer.access_request_id
            try:
                request = await self._answers.of(asked, remaining)
            except Exception as error:  # noqa: BLE001 - fails closed: the answer stays a deny
                told = f"what a person answers cannot be read: {self._connection.describe(error)}"
                return replace(answer, advice=(told, *answer.advice))
            if not approvals.lets_ask_again(request):
                return approvals.unapproved(answer, request, wait)
            answer = await ask()
        return answer

    async def _await_approval(
        self,
        session: session_pb2.Session,
        wait: float,
        poll: float,
        announce: Callable[[session_pb2.Session], None] | None,
    ) -> None:
        if operations.is_approved(session):
            return
        if announce is not None:
            announce(session)
        deadline = self._clock() + wait
        while not operations.is_approved(session):
            remaining = deadline - self._clock()
            if remaining <= 0:
                raise operations.still_waiting(session, wait)
            await self._sleep(min(poll, remaining))
            try:
                session = await self.get_session(session.session_id)
            except (UnavailableError, OverloadedError):
                continue  # a server that is away for a moment has not refused anything

    async def _end_if_live(self, session_handle: str) -> None:
        try:
            await tasks.completed(partial(self.end_session, session_handle))
        except (NotFoundError, WrongStateError):
            return  # it expired, or another caller ended or revoked it
