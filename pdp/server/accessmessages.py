"""Translate access requests to messages of the API. What callers wrote is checked here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from pdp.audit.comparison import Change, WaitingCall, compared, identical
from pdp.audit.values import Found
from pdp.errors import InvalidRequestError
from pdp.registry.access import AccessSelector
from pdp.registry.accessreview import AccessReview, AccessView
from pdp.registry.words import SessionView
from pdp.server.fields import require_id, timestamp
from pdp.server.messages import session_message
from pdp.sessions.access import AccessRequest, AccessState
from pdp.v1 import access_pb2 as access

_STATES: Mapping[AccessState, Any] = {
    state: access.AccessState.Value(f"ACCESS_STATE_{state.name}") for state in AccessState
}
_CHANGES: Mapping[Change, Any] = {
    change: access.ArgumentChange.Value(f"ARGUMENT_CHANGE_{change.name}") for change in Change
}
_STATES_BY_NUMBER = {number: state for state, number in _STATES.items()}


def access_state(number: int) -> AccessState | None:
    """Return the state to filter by, or None for any."""
    if number == access.ACCESS_STATE_UNSPECIFIED:
        return None
    if number not in _STATES_BY_NUMBER:
        raise InvalidRequestError("state", f"`{number}` is not a state")
    return _STATES_BY_NUMBER[number]


def access_selector(request: access.RevokeAccessRequest) -> AccessSelector:
    """Return the selector of the approvals to take back: exactly one of its fields must be set."""
    match request.WhichOneof("selector"):
        case "access_request_id":
            return AccessSelector(kind="request", value=require_id("access_request_id", request.access_request_id))
        case "session_id":
            return AccessSelector(kind="session", value=require_id("session_id", request.session_id))
    raise InvalidRequestError("selector", "one of `access_request_id` and `session_id` is required")


def access_message(view: AccessView) -> access.RequestedAccess:
    """Return a request for callers: without arguments."""
    request, call = view.request, view.request.call
    return access.RequestedAccess(
        access_request_id=request.id,
        state=_STATES[view.state],
        session_id=call.session_id,
        user=request.user,
        agent=request.agent,
        server=call.server,
        tool=call.tool,
        questions=_questions(request),
        asked_by=request.asked_by,
        decision_id=request.decision_id,
        request_time=timestamp(request.asked_at),
        expire_time=timestamp(request.deadline.wall_at),
        answer_time=_moment(request.answered_at),
        answered_by=request.answered_by,
        reason=request.reason,
        approved_calls=request.most_uses,
        used_calls=request.used,
        bundle_version=call.bundle_version,
        tenant=request.tenant,
    )


def access_review(reviewed: AccessReview) -> access.GetAccessRequestResponse:
    """Return a request as its approver judges it."""
    shown = None
    if reviewed.session is not None:
        view = SessionView(session=reviewed.session, state=reviewed.session.state, tools=(), request_digest="")
        shown = session_message(view)
    return access.GetAccessRequestResponse(
        access_request=access_message(reviewed.view),
        session=shown,
        arguments_json=reviewed.arguments_json,
        targets=[access.AccessTarget(path=one.path, provenance=one.provenance) for one in reviewed.targets],
        risk=reviewed.risk,
        groups=reviewed.groups,
        definition_digest=reviewed.definition_digest,
        connection_kind=reviewed.connection.kind if reviewed.connection else "",
        connection_scopes=reviewed.connection.scopes if reviewed.connection else (),
        critical=reviewed.critical,
        most_calls=reviewed.most_calls,
        request_digest=reviewed.request_digest,
    )


def _questions(request: AccessRequest) -> list[access.AccessQuestion]:
    return [
        access.AccessQuestion(
            session_id=ask.session_id,
            policy_id=ask.policy,
            policy_digest=ask.text_digest,
            text=ask.question,
            most_calls=ask.run,
        )
        for ask in request.call.asks
    ]


def _moment(at: float) -> Timestamp | None:
    return timestamp(at) if at else None


def comparison_message(call: WaitingCall, now: Mapping[str, Any], found: Found) -> access.CompareCallResponse:
    """Return a call, with its record, beside an earlier one that was found."""
    earlier = found.record()
    return access.CompareCallResponse(
        earlier_decision_id=str(earlier["id"]),
        earlier_session_id=str(earlier["session_id"]),
        earlier_time=timestamp(found.mark.at / 1e6),
        identical=identical(now, earlier),
        arguments=[
            access.ComparedArgument(
                name=one.name, change=_CHANGES[one.change], earlier_json=one.earlier_json.encode("utf-8", "replace")
            )
            for one in compared(call, now, earlier)
        ],
    )
