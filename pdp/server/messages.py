"""Translate messages of the API to the PDP's own types and back. What callers wrote is checked here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from pdp.errors import InvalidRequestError
from pdp.limits import MOST_AT_ONCE, MOST_POLICIES_OF_TOOL, Limits
from pdp.model import (
    Call,
    CallRequest,
    CallStatus,
    Session,
    SessionState,
    TraceParent,
    Visibility,
)
from pdp.policy.reading import CacheClass, Reading
from pdp.registry.narrowing import Narrowing
from pdp.registry.outcomes import OutcomeReport
from pdp.registry.readings import ReportedValues, ResultReading, require_digests
from pdp.registry.scope import ScopedTool
from pdp.registry.words import Review, Selector, SessionRequest, SessionView
from pdp.server.decisionmessages import numbers
from pdp.server.fields import (
    optional_digest,
    optional_id,
    optional_text,
    require_id,
    require_ids,
    require_outcome_token,
    require_purpose,
    require_server,
    require_size,
    require_text,
    seconds_of,
    timestamp,
)
from pdp.server.revisions import optional_revision
from pdp.serving.status import duration
from pdp.v1 import authorization_pb2 as calls
from pdp.v1 import decision_pb2 as decisions
from pdp.v1 import reading_pb2 as readings
from pdp.v1 import session_pb2 as sessions

_VISIBILITIES = numbers(Visibility, calls.Visibility, "VISIBILITY_")
_CACHE_CLASSES = numbers(CacheClass, readings.CacheClass, "CACHE_CLASS_")
_STATES = numbers(SessionState, sessions.SessionState, "SESSION_STATE_")
_CALL_STATUSES = numbers(CallStatus, calls.CallStatus, "CALL_STATUS_")
_CALL_STATUSES_BY_NUMBER = {number: status for status, number in _CALL_STATUSES.items()}
_STATES_BY_NUMBER = {number: state for state, number in _STATES.items()}


def call_request(request: calls.AuthorizeRequest, limits: Limits) -> CallRequest:
    """Return the call that a PEP asks about. The agent's tool name and arguments are checked later."""
    if not request.HasField("call"):
        raise InvalidRequestError("call", "is required")
    call, traceparent = request.call, request.traceparent
    return CallRequest(
        call=Call(
            session_handle=require_id("call.session_handle", call.session_handle),
            server=require_server("call.server", call.server),
            tool=call.tool,
            arguments_json=call.arguments_json,
            definition_digest=optional_digest("call.definition_digest", call.definition_digest),
            facts_json=require_size("call.facts_json", call.facts_json, limits.arguments_bytes, "arguments_bytes"),
        ),
        request_id=optional_id("request_id", request.request_id),
        # The model made this up, so it is text and not one of our ids.
        tool_call_id=optional_text("tool_call_id", request.tool_call_id, limits.text_characters),
        parent=TraceParent(traceparent=traceparent, tracestate=request.tracestate) if traceparent else None,
        least=optional_revision("min_revision", request.min_revision),
    )


def call_requests(request: calls.BatchAuthorizeRequest, limits: Limits) -> tuple[CallRequest, ...]:
    """Return the calls of a batch; an invalid field in one of them refuses them all."""
    found = []
    for index, one in enumerate(sized_batch(request, limits)):
        try:
            found.append(call_request(one, limits))
        except InvalidRequestError as error:
            raise InvalidRequestError(f"requests[{index}].{error.attribute}", error.problem) from None
    return tuple(found)


def sized_batch(request: calls.BatchAuthorizeRequest, limits: Limits) -> Sequence[calls.AuthorizeRequest]:
    """Return the messages of a batch, of which there must be one, and no more than the limit."""
    if not request.requests:
        raise InvalidRequestError("requests", "is required")
    if len(request.requests) > limits.batch_size:
        raise InvalidRequestError("requests", f"more than {limits.batch_size} (limit `batch_size`)")
    return request.requests


def outcome_report(request: calls.ReportOutcomeRequest) -> OutcomeReport:
    """Return what a PEP says came of a call. Whether the token was given to it is checked later."""
    status = _CALL_STATUSES_BY_NUMBER.get(request.status)
    if status is None:
        unstated = request.status == calls.CALL_STATUS_UNSPECIFIED
        raise InvalidRequestError("status", "is required" if unstated else f"`{request.status}` is unknown")
    values = ReportedValues(issued=tuple(request.values.issued), others=tuple(request.values.others))
    require_digests(values)
    return OutcomeReport(
        outcome_token=require_outcome_token("outcome_token", request.outcome_token),
        status=status,
        labels=labels(request.labels),
        values=values,
    )


def write_reading(reading: ResultReading, message: decisions.ResultReading) -> None:
    """Write how to read the result of a call into an empty message."""
    message.key = reading.key
    message.trusted = reading.trusted
    message.issues.extend(reading.issues)
    message.kinds.extend(reading.kinds)


def visibility_number(seen: Visibility) -> calls.Visibility:
    """Return a visibility as the API numbers it."""
    number: calls.Visibility = _VISIBILITIES[seen]
    return number


def reading_message(reading: Reading) -> readings.Reading:
    """Return what policies read of the calls of a tool."""
    return readings.Reading(
        cache_class=_CACHE_CLASSES[reading.kind],
        remembered=reading.cacheable,
        attributes=[
            readings.ReadAttribute(name=name, policy_ids=policies) for name, policies in reading.readers.items()
        ],
    )


def session_request(request: sessions.RequestSessionRequest, limits: Limits) -> SessionRequest:
    """Return the session that a PEP asks for. The directory and the policies judge it later."""
    return SessionRequest(
        user=require_id("user", request.user),
        agent=require_id("agent", request.agent),
        purpose=require_purpose("purpose", request.purpose, limits.purpose_characters),
        tool_patterns=tool_patterns(request.tool_patterns, limits),
        duration=seconds_of("duration", request.duration) if request.HasField("duration") else None,
        parent_session_handle=optional_id("parent_session_handle", request.parent_session_handle),
        environment=optional_id("environment", request.environment),
        user_attributes_json=require_size(
            "user_attributes_json", request.user_attributes_json, limits.attributes_bytes, "attributes_bytes"
        ),
        labels=labels(request.labels),
        may_delegate=request.may_delegate,
        terms_json=require_size("terms_json", request.terms_json, limits.terms_bytes, "terms_bytes"),
    )


def narrowing(
    request: sessions.ApproveSessionRequest | sessions.ReviewSessionRequest, limits: Limits
) -> Narrowing | None:
    """Return what to approve of a session; None for all of it. That it is less is checked later."""
    if not request.HasField("narrowing"):
        return None
    less = request.narrowing
    return Narrowing(
        tool_patterns=tool_patterns(less.tool_patterns, limits, "narrowing."),
        duration=seconds_of("narrowing.duration", less.duration) if less.HasField("duration") else None,
        terms_json=require_size("narrowing.terms_json", less.terms_json, limits.terms_bytes, "terms_bytes"),
    )


def tool_patterns(patterns: Iterable[str], limits: Limits, prefix: str = "") -> tuple[str, ...]:
    """Return tool patterns; their content is checked later."""
    return tuple(
        require_text(f"{prefix}tool_patterns[{index}]", pattern, limits.text_characters)
        for index, pattern in enumerate(patterns)
    )


def labels(values: Iterable[str]) -> tuple[str, ...]:
    """Return the labels of a session."""
    return require_ids("labels", values, MOST_AT_ONCE)


def grants(values: Iterable[str]) -> tuple[str, ...]:
    """Return the grants that an approver gives."""
    return require_ids("grants", values, MOST_AT_ONCE)


def selector(request: sessions.RevokeSessionsRequest) -> Selector:
    """Return the selector of the sessions to revoke: exactly one of its fields must be set."""
    of = optional_id("of_tenant", request.of_tenant)
    match request.WhichOneof("selector"):
        case "session_id":
            return Selector(kind="session", value=require_id("session_id", request.session_id), of_tenant=of)
        case "user":
            return Selector(kind="user", value=require_id("user", request.user), of_tenant=of)
        case "agent":
            return Selector(kind="agent", value=require_id("agent", request.agent), of_tenant=of)
        case "tenant":
            if of:
                raise InvalidRequestError("of_tenant", "must be empty with `tenant`")
            return Selector(kind="tenant", value=require_id("tenant", request.tenant))
    raise InvalidRequestError("selector", "one of `session_id`, `user`, `agent` and `tenant` is required")


def wanted_state(number: int) -> SessionState | None:
    """Return the state to filter by, or None for any."""
    if number == sessions.SESSION_STATE_UNSPECIFIED:
        return None
    if number not in _STATES_BY_NUMBER:
        raise InvalidRequestError("state", f"`{number}` is not a state")
    return _STATES_BY_NUMBER[number]


def session_message(view: SessionView) -> sessions.Session:
    """Return a session as callers see it: without its handle, and without what the directory says."""
    session, message = view.session, summary_message(view)
    message.tool_patterns.extend(session.tool_patterns)
    message.tools.extend(map(scoped_tool_message, view.tools))
    message.tool_count = len(view.tools)
    message.request_digest = view.request_digest
    message.label_origins.extend(
        sessions.LabelOrigin(label=label, decision_id=by) for label, by in sorted(session.label_origins.items())
    )
    message.user_attributes_json = session.user_attributes_json.encode("utf-8")
    message.user_groups.extend(session.user_groups)
    message.terms_json = session.terms_json.encode("utf-8")
    message.values_kept = view.values_kept
    message.budgets.extend(
        sessions.Budget(name=one.name, most=one.most, left=one.left, spent=one.spent, held=one.held)
        for one in view.budgets
    )
    return message


def summary_message(view: SessionView) -> sessions.Session:
    """Return a session as lists show it: without its tools, and without what was vouched for or agreed on."""
    session = view.session
    return sessions.Session(
        session_id=session.id,
        state=_STATES[view.state],
        user=session.user,
        agent=session.agent,
        purpose=session.purpose,
        duration=duration(session.duration),
        request_time=timestamp(session.requested_at),
        approve_time=_moment(session.approved_at),
        expire_time=timestamp(session.deadline.wall_at),
        end_time=_moment(session.ended_at),
        parent_session_id=session.parent_id,
        depth=session.depth,
        may_delegate=session.may_delegate,
        grants=session.grants,
        labels=session.labels,
        tenant=session.tenant,
        environment=session.environment,
        opened_by=session.opened_by,
        approved_by=session.approved_by,
        epoch=session.epoch,
        reason=session.reason,
        ended_by=session.ended_by,
        tool_count=len(session.scope.tools) if session.scope else 0,
    )


def session_change(session: Session, state: SessionState) -> sessions.SessionChange:
    """Return what those who follow a session are told of its change."""
    return sessions.SessionChange(
        session_id=session.id,
        state=_STATES[state],
        epoch=session.epoch,
        expire_time=timestamp(session.deadline.wall_at),
        user=session.user,
        agent=session.agent,
        parent_session_id=session.parent_id,
    )


def review_message(review: Review) -> sessions.ReviewSessionResponse:
    """Return a session as an approver judges it."""
    return sessions.ReviewSessionResponse(
        session=session_message(review.view),
        tools=[
            sessions.ReviewedTool(
                tool=scoped_tool_message(one.tool),
                visibility=visibility_number(one.visibility),
                opened_by=one.opened_by,
                policy_ids=one.policies[:MOST_POLICIES_OF_TOOL],
                policies_left_out=max(0, len(one.policies) - MOST_POLICIES_OF_TOOL),
            )
            for one in review.tools
        ],
        known_grants=review.known_grants,
        grant_uses=[
            sessions.GrantUse(grant=grant, policy_ids=policies) for grant, policies in review.known_grants.items()
        ],
        bundle_version=review.bundle_version,
        unusual=[
            sessions.Unusual(
                rule=one.rule,
                sentence=one.sentence,
                window=duration(one.window),
                session_count=one.count,
                minimum_count=one.minimum,
            )
            for one in review.unusual
        ],
    )


def scoped_tool_message(tool: ScopedTool) -> sessions.ScopedTool:
    """Return a tool of a scope."""
    return sessions.ScopedTool(
        server=tool.server,
        tool=tool.tool,
        definition_digest=tool.definition_digest,
        risk=tool.risk,
        groups=tool.groups,
        adds_labels=tool.adds_labels,
        connection_kind=tool.connection.kind if tool.connection else "",
        connection_scopes=tool.connection.scopes if tool.connection else (),
    )


def _moment(at: float) -> Timestamp | None:
    return timestamp(at) if at else None
