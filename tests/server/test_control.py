"""The control address: what ends authority is served there on its own, and nothing else."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from pdp.limits import Limits
from pdp.server.rpcs import CONTROL, RPCS
from pdp.v1.session_pb2 import RevokeSessionsRequest
from tests.machinery.servers.running import PATIENCE, Running, Serve, a_call

REVOKE = "/pdp.v1.SessionService/RevokeSessions"
RELOAD = "/pdp.v1.PolicyService/ReloadBundle"
AUTHORIZE = "/pdp.v1.AuthorizationService/Authorize"
SERVED = {
    "DenySession", "EndSession", "RevokeSessions", "NarrowSession", "ActivateBundle", "ReloadBundle", "Check", "Watch",
}  # fmt: skip


@pytest.fixture
def control(serve: Serve, tmp_path: Path) -> Running:
    """Return a server that serves the control address, a socket."""
    return serve(address=f"unix:{tmp_path}/control.sock", control=True)


def test_what_ends_authority_is_served(control: Running) -> None:
    """Revocation, reload and health are answered there as at the main address."""
    revoked = control.unary(REVOKE, RevokeSessionsRequest(user="alice", reason="x").SerializeToString(), "admin")
    reloaded = control.unary(RELOAD, b"", "admin")
    health = HealthStub(control.channel).Check(HealthCheckRequest(), timeout=PATIENCE).status

    assert revoked == b""
    assert reloaded != b""
    assert health == HealthCheckResponse.SERVING


def test_nothing_else_is_served(control: Running) -> None:
    """Calls are refused with where to ask, also without credentials, and nothing is decided."""
    refused = [control.refused(AUTHORIZE, a_call().SerializeToString(), caller) for caller in ("pep", None)]

    assert {call.code() for call in refused} == {grpc.StatusCode.UNIMPLEMENTED}
    assert {call.details() for call in refused} == {
        "`pdp.v1.AuthorizationService/Authorize` is not served at the control address: use the main address"
    }
    assert control.notes.decisions == []


def test_it_receives_no_message_of_the_size_of_a_bundle(serve: Serve, tmp_path: Path) -> None:
    """Nothing that is served there is large, so gRPC itself reads no further than the largest message."""
    limits = Limits(message_bytes=1000)
    control = serve(address=f"unix:{tmp_path}/control.sock", control=True, limits=limits)

    refused = control.refused(REVOKE, b"\xff" * 1001, "admin")

    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "Received message larger than max" in (refused.details() or "")


def test_what_is_served_there_is_what_the_table_says() -> None:
    """The one table of RPCs says what is served there, by lane."""
    assert {rpc.method for rpc in RPCS.values() if rpc.lane in CONTROL} == SERVED


def test_roles_are_the_same(control: Running) -> None:
    """Whoever may not end authority at the main address may not at this one."""
    wire = RevokeSessionsRequest(user="alice", reason="x").SerializeToString()

    assert control.refused(REVOKE, wire, "pep").code() is grpc.StatusCode.PERMISSION_DENIED
    assert control.refused(REVOKE, wire, None).code() is grpc.StatusCode.UNAUTHENTICATED
