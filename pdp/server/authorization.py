"""Answers `AuthorizationService`: decisions about tool calls."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from pdp.decision.authorizer import Authorizer
from pdp.limits import Limits
from pdp.model import Caller, CallRequest, Decision
from pdp.registry.calltokens import CallTokens, TokenRequest
from pdp.registry.outcomes import Outcomes
from pdp.server.calltokens import token_requests, write_tokens
from pdp.server.fields import require_id
from pdp.server.links import NO_LINKS, Links
from pdp.server.messages import (
    call_request,
    call_requests,
    outcome_report,
    reading_message,
    visibility_number,
    write_decision,
    write_reading,
)
from pdp.serving.origin import Origin
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

    def authorize(self, request: calls.AuthorizeRequest, origin: Origin) -> calls.AuthorizeResponse:
        """Decide about one call."""
        answer = calls.AuthorizeResponse()
        self._decide(request, origin, answer.decision)
        return answer

    def batch_authorize(self, request: calls.BatchAuthorizeRequest, origin: Origin) -> calls.BatchAuthorizeResponse:
        """Decide about several calls on one snapshot."""
        asked = call_requests(request, self._limits)
        wanted = [token_requests(one, f"requests[{index}].") for index, one in enumerate(request.requests)]
        decided = self._authorizer.batch(asked, origin.caller, parent=origin.parent)
        answer = calls.BatchAuthorizeResponse()
        for decision, one, tokens in zip(decided, asked, wanted, strict=True):
            self._write(decision, one, tokens, origin.caller, answer.decisions.add())
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
        write_decision(decision, message)
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
    try:
        request_id = calls.AuthorizeStreamRequest.FromString(wire).request.request_id
    except DecodeError:
        request_id = ""
    error = calls.StreamError(code=refusal.number, message=refusal.details, reason=refusal.kind)
    if refusal.retry_seconds is not None:
        error.retry_delay.CopyFrom(duration(refusal.retry_seconds))
    return calls.AuthorizeStreamResponse(request_id=request_id, error=error).SerializeToString()
