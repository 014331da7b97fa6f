"""Answers `AuthorizationService`: decisions about tool calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from google.protobuf.message import DecodeError

from pdp.decision.authorizer import Authorizer, Decided, Passed
from pdp.identity.authentication import Metadata
from pdp.limits import Limits
from pdp.model import Caller, CallRequest, Decision, TraceParent
from pdp.registry.calltokens import CallTokens, TokenRequest
from pdp.registry.outcomes import Outcomes
from pdp.server.calltokens import token_requests, write_tokens
from pdp.server.decisionmessages import DecisionMessages
from pdp.server.fields import require_id
from pdp.server.links import NO_LINKS, Links
from pdp.server.messages import (
    call_request,
    call_requests,
    outcome_report,
    reading_message,
    sized_batch,
    visibility_number,
    write_reading,
)
from pdp.serving.atonce import AtOnce
from pdp.serving.origin import Origin
from pdp.serving.parts import Parts
from pdp.serving.status import Refusal, duration
from pdp.v1 import authorization_pb2 as calls
from pdp.v1 import decision_pb2 as decisions


class AuthorizationHandlers:
    """One method for each RPC; each takes the message and its origin."""

    def __init__(
        self,
        authorizer: Authorizer,
        outcomes: Outcomes,
        tokens: CallTokens,
        limits: Limits,
        links: Links = NO_LINKS,
    ) -> None:
        self._authorizer = authorizer
        self._outcomes = outcomes
        self._tokens = tokens
        self._limits = limits
        self._links = links
        self._messages = DecisionMessages()

    def authorize(self, request: calls.AuthorizeRequest, origin: Origin) -> calls.AuthorizeResponse:
        """Decide about one call."""
        answer = calls.AuthorizeResponse()
        answer.batch_size = self._limits.batch_size
        self._decide(request, origin, answer.decision)
        return answer

    def begin_at_once(self, asked: Iterable[tuple[calls.AuthorizeRequest, Origin]]) -> Iterator[Passed]:
        """Begin to decide about calls, up to the first for which something has to be waited for."""
        return self._authorizer.try_now(
            self._without_tokens(asked), reportable_at_once=self._outcomes.gives_tokens_at_once
        )

    def _without_tokens(
        self, asked: Iterable[tuple[calls.AuthorizeRequest, Origin]]
    ) -> Iterator[tuple[CallRequest, Caller, TraceParent]]:
        """Yield what is asked, up to the first that asks for a call token: signing one takes long."""
        for request, origin in asked:
            if token_requests(request):
                return
            yield call_request(request, self._limits), origin.caller, origin.parent

    def go_on_at_once(self, passed: Sequence[Passed]) -> Sequence[Decided | None]:
        """Decide about calls that were begun; None for each that has to wait after all."""
        return self._authorizer.decide_now(passed)

    def go_on_in_order(self, passed: Sequence[Passed]) -> Sequence[Decided | None]:
        """Decide about calls of a batch that were begun, up to the first that has to wait after all."""
        return self._authorizer.decide_now(passed, in_order=True)

    def finish_at_once(self, decided: Sequence[Decided]) -> Sequence[bytes] | None:
        """Record decisions, and return the answers; None when that has to be waited for."""
        return self._finished(decided, self._answer_at_once)

    def _answer_at_once(self, decided: Decided, decision: Decision) -> bytes:
        answer = calls.AuthorizeResponse()
        answer.batch_size = self._limits.batch_size
        self._write_at_once(decided, decision, answer.decision)
        return answer.SerializeToString()

    def finish_independent(self, decided: Sequence[Decided]) -> Sequence[bytes] | None:
        """Record decisions about calls of a batch, and return the answers; None when that has to be waited for."""
        return self._finished(decided, self._independent_answer)

    def _independent_answer(self, decided: Decided, decision: Decision) -> bytes:
        whole = calls.BatchAuthorizeResponse()
        answer = whole.answers.add()
        answer.request_id = decision.request_id
        self._write_at_once(decided, decision, answer.decision)
        return whole.SerializeToString()

    def _finished(
        self, decided: Sequence[Decided], answer: Callable[[Decided, Decision], bytes]
    ) -> Sequence[bytes] | None:
        # Before the record: when an answer cannot be written, threads do all of this again, and record it.
        answers = [answer(one, one.decision) for one in decided]
        recorded = self._authorizer.record(decided)
        if recorded is None:
            return None
        made = zip(decided, recorded, answers, strict=True)
        return [written if decision is one.decision else answer(one, decision) for one, decision, written in made]

    def _write_at_once(self, decided: Decided, decision: Decision, message: decisions.Decision) -> None:
        self._messages.write(decision, message)
        if decision.reportable:
            message.outcome_token = self._outcomes.token_at_once(decision, decided.snapshot.now.wall_at)

    def batch_authorize(self, request: calls.BatchAuthorizeRequest, origin: Origin) -> calls.BatchAuthorizeResponse:
        """Decide about several calls on one snapshot."""
        asked = call_requests(request, self._limits)
        wanted = [token_requests(one, f"requests[{index}].") for index, one in enumerate(request.requests)]
        decided = self._authorizer.batch(asked, origin.caller, parent=origin.parent)
        answer = calls.BatchAuthorizeResponse()
        for decision, one, tokens in zip(decided, asked, wanted, strict=True):
            self._write(decision, one, tokens, origin.caller, answer.decisions.add())
        return answer

    def independent_calls(self, request: calls.BatchAuthorizeRequest) -> Sequence[calls.AuthorizeRequest] | None:
        """Return the calls of a batch that are decided by themselves; None when they are decided together."""
        return sized_batch(request, self._limits) if request.independent else None

    def independent_call(self, request: calls.AuthorizeRequest, origin: Origin) -> calls.BatchAnswer:
        """Decide about one call of a batch by itself."""
        answer = calls.BatchAnswer(request_id=request.request_id)
        self._decide(request, origin, answer.decision)
        return answer

    def authorize_stream(self, request: calls.AuthorizeStreamRequest, origin: Origin) -> calls.AuthorizeStreamResponse:
        """Decide about one call of a stream."""
        answer = calls.AuthorizeStreamResponse(request_id=request.request.request_id)
        self._decide(request.request, origin, answer.decision)
        return answer

    def report_outcome(self, request: calls.ReportOutcomeRequest, origin: Origin) -> calls.ReportOutcomeResponse:
        """Take a report of what came of an allowed call."""
        reported = self._outcomes.report(outcome_report(request), origin.caller)
        return calls.ReportOutcomeResponse(decision_id=reported.decision_id)

    def list_tools(self, request: calls.ListToolsRequest, origin: Origin) -> calls.ListToolsResponse:
        """List the tools that a session could call."""
        handle = require_id("session_handle", request.session_handle)
        listing = self._authorizer.list_tools(handle, origin.caller, with_readings=request.with_readings)
        return calls.ListToolsResponse(
            tools=[
                calls.ToolVisibility(
                    server=tool.server,
                    tool=tool.tool,
                    visibility=visibility_number(tool.visibility),
                    definition_digest=tool.definition_digest,
                    reading=reading_message(tool.reading) if tool.reading else None,
                )
                for tool in listing.tools
            ],
            bundle_version=listing.bundle_version,
            session_id=listing.session_id,
        )

    def _decide(self, request: calls.AuthorizeRequest, origin: Origin, message: decisions.Decision) -> None:
        asked, wanted = call_request(request, self._limits), token_requests(request)
        decision = self._authorizer.authorize(asked, origin.caller, parent=origin.parent)
        self._write(decision, asked, wanted, origin.caller, message)

    def _write(
        self,
        decision: Decision,
        asked: CallRequest,
        wanted: tuple[TokenRequest, ...],
        caller: Caller,
        message: decisions.Decision,
    ) -> None:
        self._messages.write(decision, message)
        if decision.access_request_id:
            message.access_request.link = self._links.to_access_request(decision.access_request_id)
        if decision.reportable:
            message.outcome_token = self._outcomes.token(decision)
            reading = self._outcomes.reading(decision, asked.call.session_handle)
            if reading is not None:
                write_reading(reading, message.result_reading)
        if wanted:
            write_tokens(self._tokens.issue(decision, asked, wanted, caller), message)


def stream_error(wire: bytes, refusal: Refusal) -> bytes:
    """Return the message for a call of a stream that got no decision. The stream goes on."""
    request_id = _streamed(wire).request_id
    return calls.AuthorizeStreamResponse(request_id=request_id, error=_error(refusal)).SerializeToString()


def independent_parts(handlers: AuthorizationHandlers) -> Parts:
    """Return how `BatchAuthorize` answers calls that are decided by themselves."""
    return Parts(
        of=handlers.independent_calls,
        handle=handlers.independent_call,
        at_once=AtOnce(begin=handlers.begin_at_once, go_on=handlers.go_on_in_order, finish=handlers.finish_independent),
        refused=lambda request, refusal: calls.BatchAnswer(request_id=request.request_id, error=_error(refusal)),
        whole=lambda answer: calls.BatchAuthorizeResponse(answers=[answer]),
        headers=trace_headers,
    )


def calls_at_once(handlers: AuthorizationHandlers) -> AtOnce:
    """Return how `Authorize` is answered without a thread."""
    return AtOnce(begin=handlers.begin_at_once, go_on=handlers.go_on_at_once, finish=handlers.finish_at_once)


def trace_headers_of(method: str, wire: bytes) -> Metadata:
    """Return the trace headers that the one call in a message has of its own; none where there is no such call."""
    if method == "Authorize":
        return trace_headers(_asked(wire))
    return trace_headers(_streamed(wire)) if method == "AuthorizeStream" else ()


def trace_headers(request: calls.AuthorizeRequest) -> Metadata:
    """Return the trace headers that a call has of its own; none without a `traceparent`."""
    if not request.traceparent:
        return ()
    return (("traceparent", request.traceparent), ("tracestate", request.tracestate))


def _asked(wire: bytes) -> calls.AuthorizeRequest:
    """Return what was asked; an empty message for bytes that are none."""
    try:
        return calls.AuthorizeRequest.FromString(wire)
    except DecodeError:
        return calls.AuthorizeRequest()


def _streamed(wire: bytes) -> calls.AuthorizeRequest:
    """Return what was asked in a message of a stream; an empty message for bytes that are none."""
    try:
        return calls.AuthorizeStreamRequest.FromString(wire).request
    except DecodeError:
        return calls.AuthorizeRequest()


def _error(refusal: Refusal) -> calls.StreamError:
    error = calls.StreamError(code=refusal.number, message=refusal.details, reason=refusal.kind)
    if refusal.retry_seconds is not None:
        error.retry_delay.CopyFrom(duration(refusal.retry_seconds))
    return error
