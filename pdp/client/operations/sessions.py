"""Request, approve, end and look at sessions: each RPC as a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from pdp.client.asking import json_object
from pdp.client.enumwords import session_state
from pdp.client.errors import InvalidRequestError, PDPClientError, SessionNotApprovedError
from pdp.client.fencing import OnFence, told
from pdp.client.operations.fields import duration_of, presence, seconds_and_nanos, strings
from pdp.client.operations.rpc import Method, Operation, Page, Reply, new_request_id, unchanged
from pdp.v1 import reach_pb2, session_pb2
from pdp.v1.session_pb2 import Session

WATCH_SESSIONS = Method(path="/pdp.v1.SessionService/WatchSessions", reply=session_pb2.WatchSessionsResponse)


def watch_sessions(since_revision: str, session_id: str, heartbeat: float | None) -> session_pb2.WatchSessionsRequest:
    """Return the question of a watch."""
    request = session_pb2.WatchSessionsRequest(since_revision=since_revision, session_id=session_id)
    if heartbeat is not None:
        request.heartbeat.CopyFrom(duration_of(heartbeat))
    return request


def request_session(
    *,
    user: str,
    agent: str,
    purpose: str,
    tools: Sequence[str],
    duration: float | None,
    parent_session_handle: str,
    environment: str,
    user_attributes: Mapping[str, Any] | bytes | None,
    labels: Sequence[str],
    may_delegate: bool,
    terms: Mapping[str, Any] | bytes | None,
) -> Operation[session_pb2.RequestSessionResponse, session_pb2.RequestSessionResponse]:
    """Ask for a session."""
    request = session_pb2.RequestSessionRequest(
        user=user,
        agent=agent,
        purpose=purpose,
        tool_patterns=strings("tools", tools),
        parent_session_handle=parent_session_handle,
        environment=environment,
        user_attributes_json=json_object("user_attributes", user_attributes),
        labels=strings("labels", labels),
        may_delegate=may_delegate,
        terms_json=json_object("terms", terms),
        request_id=new_request_id(),
    )
    if duration is not None:
        request.duration.CopyFrom(duration_of(duration))
    return Operation(
        method=_method("RequestSession", session_pb2.RequestSessionResponse),
        request=request,
        read=_opened,
    )


def approve_session(
    session_id: str,
    *,
    request_digest: str,
    grants: Sequence[str],
    tools: Sequence[str],
    duration: float | None,
    terms: Mapping[str, Any] | bytes | None,
    id_token: str,
    on_fence: OnFence = None,
) -> Operation[session_pb2.ApproveSessionResponse, Session]:
    """Approve exactly what was shown."""
    return Operation(
        method=_method("ApproveSession", session_pb2.ApproveSessionResponse),
        request=session_pb2.ApproveSessionRequest(
            session_id=session_id,
            request_digest=request_digest,
            grants=strings("grants", grants),
            narrowing=_narrowing(tools, duration, terms),
            request_id=new_request_id(),
        ),
        read=lambda reply: told(reply, on_fence).session,
        metadata=presence(id_token),
    )


def deny_session(session_id: str, *, reason: str) -> Operation[session_pb2.DenySessionResponse, Session]:
    """Deny a requested session."""
    return Operation(
        method=_method("DenySession", session_pb2.DenySessionResponse),
        request=session_pb2.DenySessionRequest(session_id=session_id, reason=reason, request_id=new_request_id()),
        read=lambda reply: reply.session,
    )


def end_session(session_handle: str, *, on_fence: OnFence = None) -> Operation[session_pb2.EndSessionResponse, Session]:
    """End a session."""
    return Operation(
        method=_method("EndSession", session_pb2.EndSessionResponse),
        request=session_pb2.EndSessionRequest(session_handle=session_handle, request_id=new_request_id()),
        read=lambda reply: told(reply, on_fence).session,
    )


def revoke_sessions(
    *, session_id: str, user: str, agent: str, tenant: str, of_tenant: str, reason: str, on_fence: OnFence = None
) -> Operation[session_pb2.RevokeSessionsResponse, tuple[str, ...]]:
    """Revoke the sessions that one selector names."""
    return Operation(
        method=_method("RevokeSessions", session_pb2.RevokeSessionsResponse),
        request=_revocation(session_id, user, agent, tenant, of_tenant, reason=reason),
        read=lambda reply: tuple(told(reply, on_fence).session_ids),
    )


def preview_revocation(
    *, session_id: str, user: str, agent: str, tenant: str, of_tenant: str
) -> Operation[session_pb2.RevokeSessionsResponse, session_pb2.RevokeSessionsResponse]:
    """Show what a revocation would revoke."""
    # INVARIANT: no reason is sent. A server that does not know `validate_only` then refuses, and revokes nothing.
    return Operation(
        method=_method("RevokeSessions", session_pb2.RevokeSessionsResponse),
        request=_revocation(session_id, user, agent, tenant, of_tenant, validate_only=True),
        read=unchanged,
    )


def review_session(
    session_id: str,
    *,
    grants: Sequence[str],
    tools: Sequence[str],
    duration: float | None,
    terms: Mapping[str, Any] | bytes | None,
) -> Operation[session_pb2.ReviewSessionResponse, session_pb2.ReviewSessionResponse]:
    """Show one session as an approver judges it."""
    return Operation(
        method=_method("ReviewSession", session_pb2.ReviewSessionResponse),
        request=session_pb2.ReviewSessionRequest(
            session_id=session_id, grants=strings("grants", grants), narrowing=_narrowing(tools, duration, terms)
        ),
        read=unchanged,
    )


def get_reach(
    *,
    session_id: str,
    user: str,
    agent: str,
    asked_now: bool,
    terms: Mapping[str, Any] | bytes | None,
    used_days: int,
    page_size: int,
    page_token: str,
    former_version: str = "",
) -> Operation[reach_pb2.GetReachResponse, reach_pb2.GetReachResponse]:
    """Show a page of the tools that can be called."""
    return Operation(
        method=Method(path="/pdp.v1.ReachService/GetReach", reply=reach_pb2.GetReachResponse),
        request=reach_pb2.GetReachRequest(
            session_id=session_id,
            user=user,
            agent=agent,
            asked_now=asked_now,
            terms_json=json_object("terms", terms),
            used_days=used_days,
            page_size=page_size,
            page_token=page_token,
            former_version=former_version,
        ),
        read=unchanged,
    )


def get_session(session_id: str, min_revision: str = "") -> Operation[session_pb2.GetSessionResponse, Session]:
    """Show one session."""
    return Operation(
        method=_method("GetSession", session_pb2.GetSessionResponse),
        request=session_pb2.GetSessionRequest(session_id=session_id, min_revision=min_revision),
        read=lambda reply: reply.session,
    )


def list_sessions(
    *, state: str, user: str, agent: str, tenant: str, summaries: bool, page_size: int, page_token: str
) -> Operation[session_pb2.ListSessionsResponse, Page[Session]]:
    """List one page of sessions."""
    name = f"SESSION_STATE_{state.upper()}" if state else "SESSION_STATE_UNSPECIFIED"
    if name not in session_pb2.SessionState.keys():  # noqa: SIM118 - the enum wrapper is no mapping
        raise InvalidRequestError(f"`state`: unknown session state: `{state}`")
    return Operation(
        method=_method("ListSessions", session_pb2.ListSessionsResponse),
        request=session_pb2.ListSessionsRequest(
            state=name,
            user=user,
            agent=agent,
            tenant=tenant,
            summaries=summaries,
            page_size=page_size,
            page_token=page_token,
        ),
        read=lambda reply: Page(items=reply.sessions, next_token=reply.next_page_token),
    )


def narrow_session(
    session_id: str,
    *,
    tools: Sequence[str],
    expires_at: float | None,
    labels: Sequence[str],
    on_fence: OnFence = None,
) -> Operation[session_pb2.NarrowSessionResponse, Session]:
    """Narrow an active session."""
    request = session_pb2.NarrowSessionRequest(
        session_id=session_id,
        tool_patterns=strings("tools", tools),
        labels=strings("labels", labels),
        request_id=new_request_id(),
    )
    if expires_at is not None:
        seconds, nanos = seconds_and_nanos(expires_at)
        request.expire_time.CopyFrom(Timestamp(seconds=seconds, nanos=nanos))
    return Operation(
        method=_method("NarrowSession", session_pb2.NarrowSessionResponse),
        request=request,
        read=lambda reply: told(reply, on_fence).session,
    )


def is_approved(session: Session) -> bool:
    """Say whether a session is active (True) or waits for approval (False).

    Raise `SessionNotApprovedError` when it will never be active.
    """
    if session.state == session_pb2.SESSION_STATE_ACTIVE:
        return True
    if session.state == session_pb2.SESSION_STATE_REQUESTED:
        return False
    raise SessionNotApprovedError(
        f"the state of session `{session.session_id}` is {session_state(session)}"
        + (f": {session.reason}" if session.reason else "")
    )


def still_waiting(session: Session, wait: float) -> SessionNotApprovedError:
    """Return the error for a session that was not approved within `wait` seconds."""
    return SessionNotApprovedError(f"session `{session.session_id}` was not approved within {wait:g} s")


def _narrowing(
    tools: Sequence[str], duration: float | None, terms: Mapping[str, Any] | bytes | None
) -> session_pb2.Narrowing | None:
    if not tools and duration is None and terms is None:
        return None
    return session_pb2.Narrowing(
        tool_patterns=strings("tools", tools),
        duration=None if duration is None else duration_of(duration),
        terms_json=json_object("terms", terms),
    )


def _revocation(
    session_id: str,
    user: str,
    agent: str,
    tenant: str,
    of_tenant: str,
    *,
    reason: str = "",
    validate_only: bool = False,
) -> session_pb2.RevokeSessionsRequest:
    selectors = {"session_id": session_id, "user": user, "agent": agent, "tenant": tenant}
    given = {name: value for name, value in selectors.items() if value}
    if len(given) != 1:
        raise InvalidRequestError(
            f"exactly one of `session_id`, `user`, `agent` and `tenant` is required, not {len(given)}"
        )
    request = session_pb2.RevokeSessionsRequest(
        reason=reason,
        validate_only=validate_only,
        of_tenant=of_tenant,
        request_id="" if validate_only else new_request_id(),
    )
    for name, value in given.items():
        setattr(request, name, value)
    return request


def _opened(reply: session_pb2.RequestSessionResponse) -> session_pb2.RequestSessionResponse:
    if not reply.session_handle or not reply.session.session_id:
        raise PDPClientError("the server returned no session")
    return reply


def _method(name: str, reply: type[Reply]) -> Method[Reply]:
    return Method(path=f"/pdp.v1.SessionService/{name}", reply=reply)
