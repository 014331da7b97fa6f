"""Every RPC on a session in every state: one table, over all RPCs that the API describes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from pdp.policy.contents import version_of
from pdp.v1 import audit_pb2, explain_pb2, policy_pb2
from pdp.v1.authorization_pb2 import AuthorizeStreamRequest, BatchAuthorizeRequest, ListToolsRequest
from pdp.v1.session_pb2 import (
    ApproveSessionRequest,
    DenySessionRequest,
    EndSessionRequest,
    GetSessionRequest,
    ListSessionsRequest,
    NarrowSessionRequest,
    RequestSessionRequest,
    RevokeSessionsRequest,
    SessionState,
)
from tests.failures.service import (
    FILES,
    METHODS,
    UNKNOWN_HANDLE,
    UNKNOWN_ID,
    Opened,
    Service,
    a_call,
    basis_of,
    serving,
)


def requested(service: Service) -> Opened:
    """Return a session that waits for approval."""
    return service.open()


def active(service: Service) -> Opened:
    """Return a session that was approved."""
    return service.open().approved()


def in_its_last_second(service: Service) -> Opened:
    """Return an active session, one second before its end."""
    return _after(service, service.open(duration=600.0).approved(), 599.0)


def at_its_end(service: Service) -> Opened:
    """Return a session at the moment of its end."""
    return _after(service, service.open(duration=600.0).approved(), 600.0)


def one_second_over(service: Service) -> Opened:
    """Return a session one second after its end."""
    return _after(service, service.open(duration=600.0).approved(), 601.0)


def waited_too_long(service: Service) -> Opened:
    """Return a request that nobody approved in time."""
    return _after(service, service.open(), 3600.0)


def denied(service: Service) -> Opened:
    """Return a session that was refused."""
    opened = service.open()
    service.server.client("lead").deny_session(opened.id)
    return opened


def ended(service: Service) -> Opened:
    """Return a session that its owner ended."""
    opened = service.open().approved()
    service.server.client("gateway").end_session(opened.handle)
    return opened


def revoked(service: Service) -> Opened:
    """Return a session that somebody revoked."""
    opened = service.open().approved()
    service.server.client("admin").revoke_sessions(session_id=opened.id, reason="no longer trusted")
    return opened


def unknown(service: Service) -> Opened:
    """Return a session that nobody opened."""
    return Opened(service, "lead", UNKNOWN_HANDLE, UNKNOWN_ID, "sha256:" + "0" * 64)


def of_another_tenant(service: Service) -> Opened:
    """Return an active session of another tenant."""
    return service.open(by="foreign-gateway", lead="foreign-lead").approved()


def of_another_gateway(service: Service) -> Opened:
    """Return an active session that another gateway of the same tenant opened."""
    return service.open(by="sidecar").approved()


def _after(service: Service, opened: Opened, seconds: float) -> Opened:
    service.server.clock.advance(seconds)
    return opened


STATES: Mapping[str, Callable[[Service], Opened]] = {
    state.__name__: state
    for state in (
        requested,
        active,
        in_its_last_second,
        at_its_end,
        one_second_over,
        waited_too_long,
        denied,
        ended,
        revoked,
        unknown,
        of_another_tenant,
        of_another_gateway,
    )
}
_LIVE = ("active", "in_its_last_second")
_OVER = ("at_its_end", "one_second_over", "waited_too_long", "denied", "ended", "revoked")

MESSAGES: Mapping[str, Callable[[Opened], Message]] = {
    "Authorize": lambda session: a_call(session.handle),
    "BatchAuthorize": lambda session: BatchAuthorizeRequest(requests=[a_call(session.handle)]),
    "AuthorizeStream": lambda session: AuthorizeStreamRequest(request=a_call(session.handle)),
    "ListTools": lambda session: ListToolsRequest(session_handle=session.handle),
    "RequestSession": lambda session: RequestSessionRequest(
        user="ada", agent="coder", purpose="errand", tool_patterns=["git/*"], parent_session_handle=session.handle
    ),
    "ApproveSession": lambda session: ApproveSessionRequest(session_id=session.id, request_digest=session.digest),
    "DenySession": lambda session: DenySessionRequest(session_id=session.id),
    "EndSession": lambda session: EndSessionRequest(session_handle=session.handle),
    "RevokeSessions": lambda session: RevokeSessionsRequest(session_id=session.id, reason="a test"),
    "GetSession": lambda session: GetSessionRequest(session_id=session.id),
    "ListSessions": lambda _: ListSessionsRequest(page_size=1000),
    "NarrowSession": lambda session: NarrowSessionRequest(session_id=session.id, labels=["narrower"]),
    "GetBundle": lambda _: policy_pb2.GetBundleRequest(),
    "ListBundles": lambda _: policy_pb2.ListBundlesRequest(),
    "ActivateBundle": lambda _: policy_pb2.ActivateBundleRequest(version=version_of(FILES)),
    "ReloadBundle": lambda _: policy_pb2.ReloadBundleRequest(),
    "CheckBundle": lambda _: policy_pb2.CheckBundleRequest(),
    "Evaluate": lambda _: policy_pb2.EvaluateRequest(policies="permit (principal, action, resource);"),
    "Explain": lambda session: explain_pb2.ExplainRequest(
        session_id=session.id, server="git", tool="log", arguments_json=b'{"repo": "web"}'
    ),
    "GetRecord": lambda session: audit_pb2.GetRecordRequest(decision_id=session.decision_id),
    "ListRecords": lambda session: audit_pb2.ListRecordsRequest(
        filter=audit_pb2.RecordFilter(session_id=session.id, kind="session.requested")
    ),
    "ListApprovals": lambda session: audit_pb2.ListApprovalsRequest(session_id=session.id),
    "ListTouched": lambda session: audit_pb2.ListTouchedRequest(filter=audit_pb2.RecordFilter(session_id=session.id)),
    "PlanRevocation": lambda session: audit_pb2.PlanRevocationRequest(session_id=session.id),
}


def row(*, live: str, over: str, **more: str) -> dict[str, str]:
    """Return a row: what an active session gets, what one gets that is over, and each further state by name."""
    return dict.fromkeys(_LIVE, live) | dict.fromkeys(_OVER, over) | more


# A call is answered whatever the state is: its handle is all that counts, whoever of the tenant holds it.
_CALL = row(
    live="permit",
    over="session_expired",
    requested="session_not_approved",
    denied="session_not_approved",
    ended="session_ended",
    revoked="session_revoked",
    unknown="session_not_found",
    of_another_tenant="session_not_found",
    of_another_gateway="permit",
)
_DECIDED = row(
    live="FAILED_PRECONDITION",
    over="FAILED_PRECONDITION",
    requested="OK",
    unknown="NOT_FOUND",
    of_another_tenant="NOT_FOUND",
    of_another_gateway="FAILED_PRECONDITION",
)
_SEEN = row(
    live="active",
    over="expired",
    requested="requested",
    denied="denied",
    ended="ended",
    revoked="revoked",
    unknown="NOT_FOUND",
    of_another_tenant="NOT_FOUND",
    of_another_gateway="NOT_FOUND",
)
_WHATEVER = dict.fromkeys(STATES, "OK")

EXPECTED: Mapping[str, Mapping[str, str]] = {
    "Authorize": _CALL,
    "BatchAuthorize": _CALL,
    "AuthorizeStream": _CALL,
    "ListTools": row(
        live="OK",
        over="FAILED_PRECONDITION",
        requested="FAILED_PRECONDITION",
        unknown="NOT_FOUND",
        of_another_tenant="NOT_FOUND",
        of_another_gateway="OK",
    ),
    # The session is the parent of the one that is asked for.
    "RequestSession": row(
        live="OK",
        over="FAILED_PRECONDITION",
        requested="FAILED_PRECONDITION",
        unknown="NOT_FOUND",
        of_another_tenant="NOT_FOUND",
        of_another_gateway="NOT_FOUND",
    ),
    "ApproveSession": _DECIDED,
    "DenySession": _DECIDED,
    "EndSession": row(
        live="OK",
        over="FAILED_PRECONDITION",
        requested="OK",
        unknown="NOT_FOUND",
        of_another_tenant="NOT_FOUND",
        of_another_gateway="NOT_FOUND",
    ),
    # To revoke what is over is no mistake: two people may revoke at the same time.
    "RevokeSessions": row(
        live="revokes 1",
        over="revokes 0",
        requested="revokes 1",
        unknown="NOT_FOUND",
        of_another_tenant="NOT_FOUND",
        of_another_gateway="revokes 1",
    ),
    "GetSession": _SEEN,
    "ListSessions": {state: "not listed" if seen == "NOT_FOUND" else seen for state, seen in _SEEN.items()},
    "NarrowSession": row(
        live="OK",
        over="FAILED_PRECONDITION",
        requested="FAILED_PRECONDITION",
        unknown="NOT_FOUND",
        of_another_tenant="NOT_FOUND",
        of_another_gateway="NOT_FOUND",
    ),
    # Policies belong to no session.
    "GetBundle": _WHATEVER,
    "ListBundles": _WHATEVER,
    "ActivateBundle": _WHATEVER,
    "ReloadBundle": _WHATEVER,
    "CheckBundle": _WHATEVER,
    "Evaluate": _WHATEVER,
    # What a call would be answered, to authors of the tenant, whichever gateway opened the session.
    "Explain": _CALL | {"unknown": "NOT_FOUND", "of_another_tenant": "NOT_FOUND"},
    # The record tells an auditor everything of the own tenant, and nothing of another one.
    "GetRecord": _WHATEVER | {"unknown": "NOT_FOUND", "of_another_tenant": "NOT_FOUND"},
    "ListRecords": dict.fromkeys(STATES, "1 record") | {"unknown": "no record", "of_another_tenant": "no record"},
    "ListApprovals": _SEEN | {"of_another_gateway": "active"},
    "ListTouched": _WHATEVER,
    "PlanRevocation": row(
        live="revoke it",
        over="nothing to revoke",
        requested="revoke it",
        unknown="nothing to revoke",
        of_another_tenant="nothing to revoke",
        of_another_gateway="revoke it",
    ),
}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """Serve for the whole table; each cell opens a session of its own."""
    with serving() as running:
        yield running


def test_the_table_has_a_cell_for_every_rpc_and_state() -> None:
    """A new RPC, or a new state, cannot be left out."""
    assert set(METHODS) == set(EXPECTED) == set(MESSAGES)
    assert [name for name, cells in EXPECTED.items() if set(cells) != set(STATES)] == []


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("method", METHODS)
def test_every_rpc_in_every_state(service: Service, method: str, state: str) -> None:
    """One function says what a session's state is, and every RPC asks it."""
    session = STATES[state](service)

    assert EXPECTED[method][state] == answer(service, method, session)


def answer(service: Service, method: str, session: Opened) -> str:
    """Call an RPC about a session and return what came of it in one word: a basis, a state, or the status."""
    try:
        found = service.send(method, MESSAGES[method](session))
    except grpc.RpcError as error:
        return str(error.code().name)
    read = READ.get(method)
    return read(found, session) if read else "OK"


def _shown(session: Any) -> str:
    return SessionState.Name(session.state).removeprefix("SESSION_STATE_").lower()


def _recorded(approval: Any) -> str:
    return audit_pb2.RecordedState.Name(approval.state).removeprefix("RECORDED_STATE_").lower()


READ: Mapping[str, Callable[[Any, Opened], str]] = {
    "Authorize": lambda found, _: basis_of(found.decision.basis),
    "BatchAuthorize": lambda found, _: basis_of(found.decisions[0].basis),
    "AuthorizeStream": lambda found, _: basis_of(found.decision.basis),
    "Explain": lambda found, _: basis_of(found.basis),
    "RevokeSessions": lambda found, session: f"revokes {list(found.session_ids).count(session.id)}",
    "GetSession": lambda found, _: _shown(found.session),
    "ListSessions": lambda found, session: next(
        (_shown(one) for one in found.sessions if one.session_id == session.id), "not listed"
    ),
    "ListRecords": lambda found, _: "1 record" if found.records else "no record",
    "ListApprovals": lambda found, _: _recorded(found.approvals[0]),
    "PlanRevocation": lambda found, session: (
        "revoke it" if [session.id] == [one.session_id for one in found.sessions] else "nothing to revoke"
    ),
}
