"""Every RPC on a session in every state: one table, over all RPCs that the API describes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import grpc
import pytest

from tests.machinery.rpcs.table import OWN
from tests.machinery.servers.rawmessages import METHODS, UNKNOWN_HANDLE, UNKNOWN_ID, Opened, Service, serving


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


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """Serve for the whole table; each cell opens a session of its own."""
    with serving() as running:
        yield running


def test_the_table_has_a_cell_for_every_rpc_and_state() -> None:
    """A new RPC, or a new state, cannot be left out."""
    assert set(METHODS) == set(OWN)
    assert [name for name, row in OWN.items() if set(row.states) != set(STATES)] == []


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("method", METHODS)
def test_every_rpc_in_every_state(service: Service, method: str, state: str) -> None:
    """One function says what a session's state is, and every RPC asks it."""
    session = STATES[state](service)

    assert OWN[method].states[state] == answer(service, method, session)


def answer(service: Service, method: str, session: Opened) -> str:
    """Call an RPC about a session and return what came of it in one word: a basis, a state, or the status."""
    try:
        found = service.send(method, OWN[method].ask(session))
    except grpc.RpcError as error:
        return str(error.code().name)
    return OWN[method].said(found, session)
