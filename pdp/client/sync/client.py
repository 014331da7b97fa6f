# Generated from pdp/client/aio/client.py by `make client`; never edited.

"""The client for threads."""

from __future__ import annotations

import time
from collections.abc import Iterator, Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pdp.client import approvals, auditing, fencing, freezes, operations, threads
from pdp.client.sync.calls import Calls
from pdp.client.sync.session import ClientSession
from pdp.client.sync.stream import AuthorizationStream
from pdp.client.sync.underway import HEARTBEAT_SECONDS, CallsUnderWay, CallUnderWay
from pdp.client.sync.waiting import AccessAnswers
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
from pdp.client.values import Answer, CallTokenRequest, ListedTool, ToolCall
from pdp.v1 import (
    access_pb2,
    audit_pb2,
    caller_pb2,
    calltoken_pb2,
    explain_pb2,
    freeze_pb2,
    policy_pb2,
    reach_pb2,
    session_pb2,
)
from pdp.v1.authorization_pb2 import BatchAuthorizeRequest


class Client:
    """A connection to the PDP, to be shared by threads and closed at the end: `with Client() as client:`.

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
    `timeout` bounds a question about calls, retry included, `management_timeout` every other call; in seconds.
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
        sleep: Callable[[float], None] = threads.sleep,
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
        self._calls = Calls(
            self._connection,
            control_address,
            timeout=timeout,
            management_timeout=management_timeout,
            traceparent=traceparent,
            ask_together=ask_together,
            clock=clock,
            sleep=sleep,
        )
        self._answers = AccessAnswers(self._begin_watch, self._read_access, clock=clock)
        self._under_way = CallsUnderWay(self._begin_following, self._read_session, clock=clock)
        self._known_obligations = frozenset(known_obligations)
        self.on_notice = on_notice
        self._report_values = report_values
        self._clock = clock
        self._sleep = sleep

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def revision(self) -> str:
        """Return the revision of the store in the latest answer to a change, for `min_revision`; empty before one.

        Where several changes are under way at once, it is that of any of them.
        """
        return self._calls.revision

    def close(self) -> None:
        """Close the connection; calls in progress and later ones are denied."""
        self._answers.close()
        self._under_way.close()
        self._calls.close()

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
        return self.ask(call, traceparent=traceparent, tracestate=tracestate, wait=wait)

    def ask(
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
        answer = ask()
        return self._once_approved(ask, answer, wait) if answer.waits else answer

    def batch(self, calls: Sequence[ToolCall], *, traceparent: str = "", tracestate: str = "") -> tuple[Answer, ...]:
        """Ask about up to 100 calls at once, all decided on one snapshot.

        The answers are in the order of the calls.
        """
        prepared = tuple(prepare(call) for call in calls)
        requests = [entry.request for entry in prepared if not isinstance(entry, Answer)]
        if not requests:
            return refuse_batch(prepared, "")
        try:
            message = BatchAuthorizeRequest(requests=requests)
            reply = self._calls.batch_authorize(message, traceparent, tracestate)
            return judge_batch(prepared, reply.decisions, self._known_obligations)
        except Exception as error:  # noqa: BLE001 - fails closed: whatever went wrong, every answer is a deny
            return refuse_batch(prepared, self._connection.describe(error), reason_of(error))

    def stream(self, *, traceparent: str = "", tracestate: str = "") -> AuthorizationStream:
        """Return a stream for many calls one after the other; open it with `with`."""
        return AuthorizationStream(
            partial(self._calls.exchange, traceparent, tracestate),
            known_obligations=self._known_obligations,
            describe=self._connection.describe,
        )

    def under_way(self, answer: Answer, *, unheard: float | None = None) -> CallUnderWay:
        """Stop an allowed call, made within what this returns, when its session is over: `ToolCallStopped`.

        What its `on_stop` was given is called then; without it, a task is cancelled, and a thread goes on. A session is
        over when it is revoked, ended or expired, or its tenant is frozen. With `unheard`, a call also stops when for
        so many seconds it could not be known that it is not. Entering raises `NotFoundError` when this caller has not
        opened the session, since only then it is told of it.
        """
        if not answer.allowed:
            raise InvalidRequestError("only a call that was allowed can be under way")
        return CallUnderWay(self._under_way, answer, threads.Stopping(), unheard)

    def report_outcome(
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
        self._calls.manage(operations.report_outcome(answer, succeeded=succeeded, labels=labels, held=held))

    def get_caller(self) -> caller_pb2.Caller:
        """Return what the server knows of this caller: id, roles, tenants, and how it is proved."""
        return self._calls.manage(operations.get_caller())

    def get_call_token_keys(self) -> calltoken_pb2.GetCallTokenKeysResponse:
        """Return the public keys of call tokens, also as a JSON Web Key Set, and their issuer."""
        return self._calls.manage(operations.get_call_token_keys())

    def check_call_token(self, token: str, *, min_revision: str = "") -> calltoken_pb2.CheckCallTokenResponse:
        """Return whether a call token still counts, and why not. For callers with the role `broker`.

        `min_revision` is that of a `ToolCall`.
        """
        return self._calls.manage(operations.check_call_token(token, min_revision))

    def withdraw_call_token_key(self, key_id: str, *, reason: str) -> bool:
        """Withdraw a key: no call token that it has signed counts from now on. Return whether there was such a key."""
        return self._calls.manage(operations.withdraw_call_token_key(key_id, reason=reason))

    def list_tools(self, session_handle: str, *, session_id: str = "") -> tuple[ListedTool, ...]:
        """Return every tool of the catalogue as a session sees it. Being listed gives no authority."""
        _, tools = self.identified_tools(session_handle, session_id=session_id)
        return tools

    def identified_tools(self, session_handle: str, *, session_id: str = "") -> tuple[str, tuple[ListedTool, ...]]:
        """Return the public id of a session, and every tool of the catalogue as it sees it."""
        return self._calls.manage(operations.list_tools(session_handle, session_id))

    @contextmanager
    def session(
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
    ) -> Iterator[ClientSession]:
        """Hold a session: ask for it, wait for its approval, and end it in any case.

        `announce` is called with a session that waits, so that an approver can be asked. `wait` bounds the waiting and
        `poll` is the pause between two checks, in seconds. `definitions` come from `definition_digests`. A call that a
        person must approve waits up to `wait_for_approval` seconds for the answer.
        Raise `SessionNotApprovedError` when the session is refused or not approved in time.
        """
        opened = self.request_session(
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
            self._await_approval(opened.session, wait, poll, announce)
            yield self.attach(
                opened.session_handle,
                session_id=opened.session.session_id,
                definitions=definitions,
                wait_for_approval=wait_for_approval,
            )
        except BaseException as error:
            try:
                self._end_if_live(opened.session_handle)
            except PDPClientError as failure:
                error.add_note(f"the session could not be ended: {failure}")
            raise
        self._end_if_live(opened.session_handle)

    def attach(
        self,
        session_handle: str,
        *,
        session_id: str = "",
        definitions: DefinitionDigests | None = None,
        wait_for_approval: float = 0.0,
    ) -> ClientSession:
        """Return a session that already exists; this client does not end it."""
        held = HeldSession(
            handle=session_handle,
            id=session_id,
            definitions=definitions or {},
            wait_for_approval=wait_for_approval,
        )
        return ClientSession(self, held)

    def request_session(
        self,
        *,
        user: str,
        agent: str,
        purpose: str,
        tools: Sequence[str],
        duration: float | None = None,
        parent_session_handle: str = "",
        environment: str = "",
        user_attributes: Mapping[str, Any] | bytes | None = None,
        labels: Sequence[str] = (),
        may_delegate: bool = False,
        terms: Mapping[str, Any] | bytes | None = None,
    ) -> session_pb2.RequestSessionResponse:
        """Ask for a session; the reply has its secret handle, shown only here.

        `duration` is seconds. `terms` are those that the bundle declares; write them as bytes to keep the digits of a
        decimal.
        """
        return self._calls.manage(
            operations.request_session(
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
        )

    def approve_session(
        self,
        session_id: str,
        *,
        request_digest: str,
        grants: Sequence[str] = (),
        tools: Sequence[str] = (),
        duration: float | None = None,
        terms: Mapping[str, Any] | bytes | None = None,
        id_token: str = "",
        on_fence: fencing.OnFence = None,
    ) -> session_pb2.Session:
        """Approve exactly what was shown, or less: only `tools` that match, a shorter `duration`, smaller `terms`.

        `request_digest` comes from `review_session` with the same values; for the whole request without grants also
        from `get_session`. `duration` is seconds. `id_token`, that of the person's log-in, says when that was.
        `on_fence`, here and in the other changes, is called with what the change has waited for until every server
        answers by it, and with its revision.
        """
        return self._calls.manage(
            operations.approve_session(
                session_id,
                request_digest=request_digest,
                grants=grants,
                tools=tools,
                duration=duration,
                terms=terms,
                id_token=id_token,
                on_fence=on_fence,
            )
        )

    def deny_session(self, session_id: str, *, reason: str = "") -> session_pb2.Session:
        """Deny a requested session."""
        return self._calls.manage(operations.deny_session(session_id, reason=reason))

    def end_session(self, session_handle: str, *, on_fence: fencing.OnFence = None) -> session_pb2.Session:
        """End a session and all below it."""
        return self._calls.manage(operations.end_session(session_handle, on_fence=on_fence))

    def revoke_sessions(
        self,
        *,
        reason: str,
        session_id: str = "",
        user: str = "",
        agent: str = "",
        tenant: str = "",
        of_tenant: str = "",
        on_fence: fencing.OnFence = None,
    ) -> tuple[str, ...]:
        """Revoke the sessions of exactly one selector and all below them.

        `of_tenant` is the tenant of the session, user or agent; a caller of several tenants must say it of a user or
        agent. Return the ids of those that were live.
        """
        return self._calls.manage(
            operations.revoke_sessions(
                session_id=session_id,
                user=user,
                agent=agent,
                tenant=tenant,
                of_tenant=of_tenant,
                reason=reason,
                on_fence=on_fence,
            )
        )

    def preview_revocation(
        self, *, session_id: str = "", user: str = "", agent: str = "", tenant: str = "", of_tenant: str = ""
    ) -> session_pb2.RevokeSessionsResponse:
        """Return how many sessions `revoke_sessions` would revoke now, and the newest of them. Nothing is revoked."""
        return self._calls.manage(
            operations.preview_revocation(
                session_id=session_id, user=user, agent=agent, tenant=tenant, of_tenant=of_tenant
            )
        )

    def review_session(
        self,
        session_id: str,
        *,
        grants: Sequence[str] = (),
        tools: Sequence[str] = (),
        duration: float | None = None,
        terms: Mapping[str, Any] | bytes | None = None,
    ) -> session_pb2.ReviewSessionResponse:
        """Return a session as `approve_session` with the same values would make it, and what the policies then decide.

        `session.request_digest` is the digest to approve it with.
        """
        return self._calls.manage(
            operations.review_session(session_id, grants=grants, tools=tools, duration=duration, terms=terms)
        )

    def get_reach(
        self,
        *,
        session_id: str = "",
        user: str = "",
        agent: str = "",
        asked_now: bool = False,
        terms: Mapping[str, Any] | bytes | None = None,
        used_days: int = 0,
        page_size: int = 0,
        page_token: str = "",
        former_version: str = "",
    ) -> reach_pb2.GetReachResponse:
        """Return a page of the tools that can be called in a session, or in those of a user, of an agent, or of both.

        With `asked_now` it is a session that the agent asks for now, for the user, with these `terms`. When a tool was
        last allowed is told for the last `used_days`, 0 for 30; `page_token` is that of the page before. With a
        `former_version` of the bundle, each tool also says how far that would let it be reached.
        """
        return self._calls.manage(
            operations.get_reach(
                session_id=session_id,
                user=user,
                agent=agent,
                asked_now=asked_now,
                terms=terms,
                used_days=used_days,
                page_size=page_size,
                page_token=page_token,
                former_version=former_version,
            )
        )

    def get_session(self, session_id: str, *, min_revision: str = "") -> session_pb2.Session:
        """Return one session. `min_revision` is that of a `ToolCall`."""
        return self._calls.manage(operations.get_session(session_id, min_revision))

    def list_sessions(
        self,
        *,
        state: str = "",
        user: str = "",
        agent: str = "",
        tenant: str = "",
        summaries: bool = False,
        page_size: int = 0,
    ) -> Iterator[session_pb2.Session]:
        """Yield sessions, newest first, page by page.

        `state` is a name such as `active`; empty does not filter. With `summaries` they come without their tools and
        other details, much faster.
        """
        return self._calls.pages(
            lambda token: operations.list_sessions(
                state=state,
                user=user,
                agent=agent,
                tenant=tenant,
                summaries=summaries,
                page_size=page_size,
                page_token=token,
            )
        )

    def narrow_session(
        self,
        session_id: str,
        *,
        tools: Sequence[str] = (),
        expires_at: float | None = None,
        labels: Sequence[str] = (),
        on_fence: fencing.OnFence = None,
    ) -> session_pb2.Session:
        """Narrow an active session: keep only matching tools, end it earlier, add labels.

        The new end is in unix seconds.
        """
        return self._calls.manage(
            operations.narrow_session(session_id, tools=tools, expires_at=expires_at, labels=labels, on_fence=on_fence)
        )

    def get_records(
        self, decision_id: str, *, on_lacking: auditing.OnLacking = None
    ) -> tuple[audit_pb2.AuditRecord, ...]:
        """Return the records of a decision, in order of time: the last answer is last.

        Where several servers keep records, `on_lacking` is called with what the answer lacks, if it lacks something. So
        it is in the other questions about the record.
        """
        return self._calls.manage(auditing.get_records(decision_id, on_lacking=on_lacking))

    def list_records(
        self,
        which: audit_pb2.RecordFilter | None = None,
        *,
        page_size: int = 0,
        on_lacking: auditing.OnLacking = None,
    ) -> Iterator[audit_pb2.AuditRecord]:
        """Yield records in order of time, page by page."""
        return self._calls.pages(
            lambda token: auditing.list_records(which, page_size=page_size, page_token=token, on_lacking=on_lacking)
        )

    def list_approvals(
        self, *, session_id: str = "", decision_id: str = "", on_lacking: auditing.OnLacking = None
    ) -> tuple[audit_pb2.Approval, ...]:
        """Return the approvals of a session and of every session above it, nearest first.

        The id of a decision means its session.
        """
        return self._calls.manage(
            auditing.list_approvals(session_id=session_id, decision_id=decision_id, on_lacking=on_lacking)
        )

    def list_touched(
        self,
        which: audit_pb2.RecordFilter | None = None,
        *,
        page_size: int = 0,
        on_lacking: auditing.OnLacking = None,
    ) -> Iterator[audit_pb2.Touch]:
        """Yield the tools and resources that were reached or tried, page by page."""
        return self._calls.pages(
            lambda token: auditing.list_touched(which, page_size=page_size, page_token=token, on_lacking=on_lacking)
        )

    def verify_segment(self, segment: str) -> audit_pb2.VerifySegmentResponse:
        """Say whether one segment of the log is as it was written, as far as the server reads it."""
        return self._calls.manage(auditing.verify_segment(segment))

    def plan_revocation(
        self, wanted: audit_pb2.PlanRevocationRequest, *, on_lacking: auditing.OnLacking = None
    ) -> Iterator[audit_pb2.PlannedRevocation]:
        """Yield exactly the live sessions to revoke, page by page. Nothing is revoked."""
        return self._calls.pages(
            lambda token: auditing.plan_revocation(wanted, page_token=token, on_lacking=on_lacking)
        )

    def approve_call(
        self, access_request_id: str, *, request_digest: str, calls: int = 1, id_token: str = ""
    ) -> access_pb2.RequestedAccess:
        """Approve exactly the call that was shown; `request_digest` comes from `get_access_request`.

        `calls` is how many calls like it to approve, where its `most_calls` allows more than one. `id_token`, that of
        the person's log-in, says when that was.
        """
        return self._calls.manage(
            approvals.approve_call(access_request_id, request_digest=request_digest, calls=calls, id_token=id_token)
        )

    def deny_call(self, access_request_id: str, *, reason: str = "") -> access_pb2.RequestedAccess:
        """Refuse a call: in its session it is not asked for again."""
        return self._calls.manage(approvals.deny_call(access_request_id, reason=reason))

    def revoke_access(self, *, reason: str, access_request_id: str = "", session_id: str = "") -> tuple[str, ...]:
        """Take back approvals that are not used up: that of one request, or all of a session.

        Return the ids of their requests.
        """
        return self._calls.manage(
            approvals.revoke_access(access_request_id=access_request_id, session_id=session_id, reason=reason)
        )

    def set_freeze(
        self, *, reason: str, tenant: str = "", all_tenants: bool = False, on_fence: fencing.OnFence = None
    ) -> freeze_pb2.Freeze:
        """Stop all calls of the caller's tenant, or of all tenants. It ends no session.

        It replaces an earlier freeze of the same.
        """
        return self._calls.manage(
            freezes.set_freeze(tenant=tenant, all_tenants=all_tenants, reason=reason, on_fence=on_fence)
        )

    def preview_freeze(self, *, tenant: str = "", all_tenants: bool = False) -> int:
        """Return how many live sessions `set_freeze` would stop now. Nothing is frozen."""
        return self._calls.manage(freezes.preview_freeze(tenant=tenant, all_tenants=all_tenants))

    def lift_freeze(self, freeze_id: str) -> freeze_pb2.LiftFreezeResponse:
        """Confirm that a freeze is to be lifted; the second who does so within an hour lifts it.

        Neither may be who set it.
        """
        return self._calls.manage(freezes.lift_freeze(freeze_id))

    def list_freezes(self) -> tuple[freeze_pb2.Freeze, ...]:
        """Return what freezes the caller's tenant: that of all tenants first."""
        return self._calls.manage(freezes.list_freezes())

    def get_access_request(self, access_request_id: str) -> access_pb2.GetAccessRequestResponse:
        """Return one access request, with all that this caller may see."""
        return self._calls.manage(approvals.get_access_request(access_request_id))

    def compare_call(self, access_request_id: str) -> access_pb2.CompareCallResponse:
        """Compare a call that waits with the last one like it that was allowed, as far as the record holds both."""
        return self._calls.manage(approvals.compare_call(access_request_id))

    def list_access_requests(
        self, *, state: str = "", session_id: str = "", user: str = "", page_size: int = 0
    ) -> Iterator[access_pb2.RequestedAccess]:
        """Yield access requests, newest first, page by page.

        `state` is a name such as `open`; empty does not filter.
        """
        return self._calls.pages(
            lambda token: approvals.list_access_requests(
                state=state, session_id=session_id, user=user, page_size=page_size, page_token=token
            )
        )

    def watch_access_requests(self, *, session_id: str = "", user: str = "") -> Iterator[access_pb2.RequestedAccess]:
        """Yield the access requests that are open, and then each that changes, until the server or the caller ends it.

        Raise `PDPClientError` when the watch breaks. A new one begins with all that is open then.
        """
        feed = self._begin_watch(session_id, user)
        try:
            while (message := self._calls.next_of(feed)) is not None:
                for request in message.access_requests:
                    yield request
        finally:
            feed.cancel()

    def watch_sessions(
        self, *, since_revision: str = "", session_id: str = "", heartbeat: float | None = None
    ) -> Iterator[session_pb2.WatchSessionsResponse]:
        """Yield what changes of the sessions that the caller may see, until the server or the caller ends it.

        The first message comes at once, and holds what has changed since a revision, that of an earlier message. After
        a message with `reset` read again what you need. There is one at least every `heartbeat` seconds, None for 15.
        Nothing in it says that a call is allowed. Raise `PDPClientError` when the watch breaks.
        """
        request = operations.watch_sessions(since_revision, session_id, heartbeat)
        feed = self._calls.feed(operations.WATCH_SESSIONS, request)
        try:
            while (message := self._calls.next_of(feed)) is not None:
                yield message
        finally:
            feed.cancel()

    def get_bundle(
        self, version: str = "", *, with_sessions: bool = False, policy_ids: Sequence[str] = ()
    ) -> policy_pb2.GetBundleResponse:
        """Return the running bundle, or a kept version; and why the last load failed.

        With `with_sessions` also how many sessions it would deny because of their terms; with `policy_ids` only these
        policies, with their texts.
        """
        return self._calls.manage(operations.get_bundle(version, with_sessions=with_sessions, policy_ids=policy_ids))

    def list_bundles(self) -> tuple[policy_pb2.Bundle, ...]:
        """Return the bundles that can be activated again, newest activation first."""
        return self._calls.manage(operations.list_bundles())

    def activate_bundle(self, version: str, *, reason: str = "") -> policy_pb2.ActivateBundleResponse:
        """Make a version the running bundle, with a reason for the record.

        It stays until there is new content.
        """
        return self._calls.manage(operations.activate_bundle(version, reason=reason))

    def reload_bundle(self) -> policy_pb2.ReloadBundleResponse:
        """Have the server load the current content of its source of bundles.

        A bad bundle changes nothing.
        """
        return self._calls.manage(operations.reload_bundle())

    def check_bundle(self, files: Mapping[str, bytes] | None = None) -> policy_pb2.CheckBundleResponse:
        """Check a bundle, path to content, without loading it.

        Without files, check the server's own folder.
        """
        return self._calls.manage(operations.check_bundle(files))

    def evaluate(
        self,
        requests: Iterable[Mapping[str, Any] | str],
        *,
        policies: str | None = None,
        entities: Sequence[Mapping[str, Any]] | str = "",
        schema: str | Mapping[str, Any] = "",
        template_links: Iterable[policy_pb2.TemplateLink] = (),
        validate: bool = False,
        skip_request_validation: bool = False,
    ) -> policy_pb2.EvaluateResponse:
        """Evaluate plain Cedar requests, by default with the running bundle's policies.

        The schema is then that bundle's. Requests and entities are Cedar's JSON, as values or as text; a schema is
        Cedar's text or its JSON as a value.
        """
        return self._calls.manage(
            operations.evaluate(
                requests,
                policies=policies,
                entities=entities,
                schema=schema,
                template_links=template_links,
                validate=validate,
                skip_request_validation=skip_request_validation,
            )
        )

    def explain(
        self,
        server: str,
        tool: str,
        arguments: Mapping[str, Any] | bytes | None = None,
        *,
        session_id: str = "",
        user: str = "",
        agent: str = "",
        grants: Sequence[str] = (),
        labels: Sequence[str] = (),
        purpose: str = "",
        environment: str = "",
        user_attributes: Mapping[str, Any] | bytes | None = None,
        terms: Mapping[str, Any] | bytes | None = None,
        definition_digest: str = "",
        facts: Mapping[str, Any] | bytes | None = None,
        caller_id: str = "",
        at: float | None = None,
    ) -> explain_pb2.ExplainResponse:
        """Explain the decision that a call would get. Nothing is decided or remembered.

        The call is one of the session with this public id, or of a hypothetical session, of `user` and `agent`.
        `caller_id` is the gateway that makes it, by default the session's; `at` is unix seconds, by default now.
        """
        return self._calls.manage(
            operations.explain(
                server,
                tool,
                arguments,
                session_id=session_id,
                user=user,
                agent=agent,
                grants=grants,
                labels=labels,
                purpose=purpose,
                environment=environment,
                user_attributes=user_attributes,
                terms=terms,
                definition_digest=definition_digest,
                facts=facts,
                caller_id=caller_id,
                at=at,
            )
        )

    def _begin_watch(self, session_id: str = "", user: str = "") -> threads.Feed:
        return self._calls.feed(approvals.WATCH, approvals.watch_access_requests(session_id=session_id, user=user))

    def _begin_following(self, revision: str) -> threads.Feed:
        return self._calls.feed(operations.WATCH_SESSIONS, operations.watch_sessions(revision, "", HEARTBEAT_SECONDS))

    def _read_session(self, session_id: str, within: float) -> session_pb2.Session:
        return self._calls.manage(operations.get_session(session_id), within=within)

    def _read_access(self, access_request_id: str, within: float) -> access_pb2.RequestedAccess:
        found = self._calls.manage(approvals.get_access_request(access_request_id), within=within)
        return found.access_request

    def _ask_once(self, prepared: PreparedCall, known: frozenset[str], traceparent: str, tracestate: str) -> Answer:
        try:
            reply = self._calls.authorize(prepared.request, traceparent, tracestate)
            return judge(prepared, reply.decision, known)
        except Exception as error:  # noqa: BLE001 - fails closed: whatever went wrong, the answer is a deny
            return prepared.refused(self._connection.describe(error), reason_of(error))

    def _once_approved(self, ask: Callable[[], Answer], answer: Answer, wait: float) -> Answer:
        """Wait for people as long as a call waits for one, and ask about it again with the same request id.

        The server tells a repeated question by that id, so an approval is used once, also when an answer was lost.
        """
        deadline, asked = self._clock() + wait, ""
        while answer.waits and answer.access_request_id != asked and (remaining := deadline - self._clock()) > 0:
            asked = answer.access_request_id
            try:
                request = self._answers.of(asked, remaining)
            except Exception as error:  # noqa: BLE001 - fails closed: the answer stays a deny
                told = f"what a person answers cannot be read: {self._connection.describe(error)}"
                return replace(answer, advice=(told, *answer.advice))
            if not approvals.lets_ask_again(request):
                return approvals.unapproved(answer, request, wait)
            answer = ask()
        return answer

    def _await_approval(
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
            self._sleep(min(poll, remaining))
            try:
                session = self.get_session(session.session_id)
            except (UnavailableError, OverloadedError):
                continue  # a server that is away for a moment has not refused anything

    def _end_if_live(self, session_handle: str) -> None:
        try:
            self.end_session(session_handle)
        except (NotFoundError, WrongStateError):
            return  # it expired, or another caller ended or revoked it
