"""RPCs about calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pdp.client import Answer, ListedTool
from pdp.model import Outcome, Visibility
from pdp.v1.authorization_pb2 import (
    CALL_STATUS_FAILED,
    CALL_STATUS_SUCCEEDED,
    VISIBILITY_ALWAYS,
    VISIBILITY_DEPENDS,
    VISIBILITY_NEVER,
    AuthorizeRequest,
    AuthorizeStreamRequest,
    BatchAuthorizeRequest,
    ListToolsRequest,
    ListToolsResponse,
    ReportedValues,
    ReportOutcomeRequest,
    ReportOutcomeResponse,
    ToolVisibility,
)
from pdp.v1.calltoken_pb2 import CallTokenRequest
from pdp.v1.decision_pb2 import Call
from tests.machinery.rpcs.asking import BIDI, DIGEST, LONG_ID, a_call, asked, basis_of, calling
from tests.machinery.rpcs.row import CALL, ERROR, LOGS, RECORD, TRACES, Row, Wrapped, opener, tenant
from tests.machinery.rpcs.states import CALLED, in_states

_FROM_A_DECISION = "pdpo_1"
_ALLOWED = Answer(
    outcome=Outcome.ALLOW, basis="permit", server="files", tool="read", request_id="r", outcome_token=_FROM_A_DECISION
)


def _wanting(**more: Any) -> AuthorizeRequest:
    """Return a call with which one call token is asked for."""
    return asked(call_tokens=[CallTokenRequest(audience="a", **more)])


def _failed(token: str = _FROM_A_DECISION, **more: Any) -> ReportOutcomeRequest:
    """Report that a call failed."""
    return ReportOutcomeRequest(**{"outcome_token": token, "status": CALL_STATUS_FAILED, **more})


_CALL_FIELDS = {
    "call.server": {RECORD, TRACES, LOGS},
    "call.tool": {RECORD, TRACES, LOGS},
    "call.definition_digest": {RECORD, LOGS},
    "request_id": {RECORD, TRACES, LOGS},
    "tool_call_id": {RECORD, TRACES, LOGS},
}

AUTHORIZATION: Mapping[str, Row] = {
    "Authorize": Row(
        ask=lambda session: a_call(session.handle),
        said=lambda found, _: basis_of(found.decision.basis),
        roles={"pep": CALL},
        states=CALLED,
        wrong=(
            (a_call("h", server="git/x"), "call.server"),
            (AuthorizeRequest(), "call"),
            (AuthorizeRequest(call=Call(server="git", tool="git_log")), "call.session_handle"),
            (calling(handle="pdps_ä"), "call.session_handle"),
            (calling(handle=LONG_ID), "call.session_handle"),
            (calling(server=""), "call.server"),
            (calling(server="git/x"), "call.server"),
            (calling(server="git\n"), "call.server"),
            (calling(server="g" * 65), "call.server"),
            (calling(definition_digest="a" * 64), "call.definition_digest"),
            (calling(definition_digest=DIGEST.upper()), "call.definition_digest"),
            (calling(definition_digest=DIGEST + "a"), "call.definition_digest"),
            (calling(facts_json=b" " * (128 * 1024 + 1)), "call.facts_json"),
            (calling(facts_json=b"[]"), "call.facts_json"),
            (asked(request_id="a b"), "request_id"),
            (asked(request_id=LONG_ID), "request_id"),
            (asked(request_id="a\n"), "request_id"),
            (asked(tool_call_id="a\nb"), "tool_call_id"),
            (asked(tool_call_id=BIDI), "tool_call_id"),
            (asked(tool_call_id="a" * 513), "tool_call_id"),
            (asked(min_revision="x"), "min_revision"),
            (asked(call_tokens=[CallTokenRequest(audience="a")] * 3), "call_tokens"),
            (asked(call_tokens=[CallTokenRequest()]), "call_tokens[0].audience"),
            (asked(call_tokens=[CallTokenRequest(audience="a b")]), "call_tokens[0].audience"),
            (_wanting(certificate_thumbprint="c"), "call_tokens[0].certificate_thumbprint"),
            (_wanting(key_thumbprint="k" * 44), "call_tokens[0].key_thumbprint"),
        ),
        seen_again=_CALL_FIELDS,
    ),
    "BatchAuthorize": Row(
        ask=lambda session: BatchAuthorizeRequest(requests=[a_call(session.handle)]),
        said=lambda found, _: basis_of(found.decisions[0].basis),
        roles={"pep": CALL},
        states=CALLED,
        wrong=(
            (BatchAuthorizeRequest(requests=[a_call("h"), a_call("")]), "requests[1].call.session_handle"),
            (BatchAuthorizeRequest(), "requests"),
            (BatchAuthorizeRequest(requests=[calling()] * 101), "requests"),
            (
                BatchAuthorizeRequest(requests=[calling(), calling(), calling(), calling(server="")]),
                "requests[3].call.server",
            ),
            (BatchAuthorizeRequest(requests=[calling(), AuthorizeRequest()]), "requests[1].call"),
            (BatchAuthorizeRequest(requests=[calling(), calling(facts_json=b"[]")]), "requests[1].call.facts_json"),
        ),
        seen_again={f"requests.{field}": places for field, places in _CALL_FIELDS.items()},
    ),
    "AuthorizeStream": Row(
        ask=lambda session: AuthorizeStreamRequest(request=a_call(session.handle)),
        said=lambda found, _: basis_of(found.decision.basis),
        roles={"pep": CALL},
        states=CALLED,
        wrong=((AuthorizeStreamRequest(request=a_call("h", request_id="a b")), "request_id"),),
        seen_again={f"request.{field}": places for field, places in _CALL_FIELDS.items()},
    ),
    "ReportOutcome": Row(
        ask=lambda session: ReportOutcomeRequest(
            outcome_token=session.outcome_token, status=CALL_STATUS_SUCCEEDED, labels=["untrusted"]
        ),
        # Only the gateway that was allowed the call has its token.
        roles={"pep": opener("OK", hidden="INVALID_ARGUMENT")},
        states=in_states(
            live="OK",
            over="FAILED_PRECONDITION",
            requested="FAILED_PRECONDITION",
            unknown="NOT_FOUND",
            of_another_tenant="NOT_FOUND",
            of_another_gateway="OK",
        ),
        wrong=(
            (ReportOutcomeRequest(outcome_token=_FROM_A_DECISION), "status"),
            (_failed(status=77), "status"),
            (_failed(""), "outcome_token"),
            (_failed("dec_1"), "outcome_token"),
            (_failed("pdpo_" + "a" * 64), "outcome_token"),
            (_failed("pdpo_" + "a" * 2049), "outcome_token"),
            (_failed(labels=["a b"]), "labels[0]"),
            (_failed(labels=["a"] * 65), "labels"),
            (_failed(values=ReportedValues(issued=[b"v" * 16, b"v" * 17])), "values.issued"),
            (_failed(values=ReportedValues(others=[b""])), "values.others"),
            (_failed(values=ReportedValues(issued=[b"v" * 16], others=[b"v" * 16] * 2048)), "values"),
        ),
        wrapped=Wrapped(
            lambda client: client.report_outcome(_ALLOWED, succeeded=False, labels=["untrusted"]),
            _failed(labels=["untrusted"]),
            ReportOutcomeResponse(decision_id="dec_1"),
            None,
        ),
        seen_again={"labels": {ERROR}},
    ),
    "ListTools": Row(
        ask=lambda session: ListToolsRequest(session_handle=session.handle),
        roles={"pep": tenant("OK")},
        states=in_states(
            live="OK",
            over="FAILED_PRECONDITION",
            requested="FAILED_PRECONDITION",
            unknown="NOT_FOUND",
            of_another_tenant="NOT_FOUND",
            of_another_gateway="OK",
        ),
        wrong=(
            (ListToolsRequest(session_handle="\n"), "session_handle"),
            (ListToolsRequest(), "session_handle"),
        ),
        wrapped=Wrapped(
            lambda client: client.list_tools("pdps_1", session_id="ses_1"),
            ListToolsRequest(session_handle="pdps_1"),
            ListToolsResponse(
                session_id="ses_1",
                tools=[
                    ToolVisibility(
                        server="files",
                        tool="a",
                        visibility=VISIBILITY_ALWAYS,
                        definition_digest="sha256:a",
                    ),
                    ToolVisibility(server="files", tool="b", visibility=VISIBILITY_DEPENDS),
                    ToolVisibility(server="files", tool="c", visibility=VISIBILITY_NEVER),
                    ToolVisibility(server="files", tool="d"),
                    ToolVisibility(server="files", tool="e", visibility=77),  # type: ignore[arg-type]  # from the future
                ],
            ),
            (
                ListedTool(server="files", tool="a", visibility=Visibility.ALWAYS, definition_digest="sha256:a"),
                ListedTool(server="files", tool="b", visibility=Visibility.DEPENDS, definition_digest=""),
                ListedTool(server="files", tool="c", visibility=Visibility.NEVER, definition_digest=""),
                ListedTool(server="files", tool="d", visibility=Visibility.NEVER, definition_digest=""),
                ListedTool(server="files", tool="e", visibility=Visibility.NEVER, definition_digest=""),
            ),
        ),
    ),
}
