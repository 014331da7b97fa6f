"""Every RPC on a session in every state: one table, over all RPCs that the API describes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import grpc
import pytest

from tests.failures.questions import MESSAGES, READ
from tests.failures.service import METHODS, UNKNOWN_HANDLE, UNKNOWN_ID, Opened, Service, serving


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
    # What is over is not judged any more.
    "ReviewSession": row(
        live="active",
        over="FAILED_PRECONDITION",
        requested="requested",
        unknown="NOT_FOUND",
        of_another_tenant="NOT_FOUND",
        of_another_gateway="active",
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
    # The record tells an auditor everything of the own tenant, what its gateways asked with a foreign handle as well.
    "GetRecord": _WHATEVER,
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
