"""The control address: what ends authority is served there on its own, and nothing else."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from pdp.app.embedded import Embedded
from pdp.limits import Limits
from pdp.model import Caller, Role
from pdp.registry.words import SessionRequest
from pdp.server.rpcs import CONTROL, RPCS
from pdp.sessions.access import AccessState
from pdp.testing.clock import FakeClock
from pdp.v1.access_pb2 import DenyCallRequest, RevokeAccessRequest
from pdp.v1.session_pb2 import RevokeSessionsRequest, RevokeSessionsResponse
from tests.machinery.servers.running import PATIENCE, Running, Serve, a_call
from tests.machinery.servers.waitingcalls import waiting

REVOKE = "/pdp.v1.SessionService/RevokeSessions"
RELOAD = "/pdp.v1.PolicyService/ReloadBundle"
AUTHORIZE = "/pdp.v1.AuthorizationService/Authorize"
SERVED = {
    "DenySession",
    "DenyCall",
    "SetFreeze",
    "ListFreezes",
    "RevokeAccess", "EndSession", "RevokeSessions", "NarrowSession", "ActivateBundle", "ReloadBundle", "Check", "Watch",
    "WithdrawCallTokenKey",
}  # fmt: skip


WANTED = SessionRequest(user="alice", agent="coder", purpose="x", tool_patterns=("git/git_log",))
GATEWAY = Caller(id="pep", kind="token", roles=frozenset({Role.PEP}))


@pytest.fixture
def control(serve: Serve, tmp_path: Path) -> Running:
    """Return a server that serves the control address, a socket."""
    return serve(address=f"unix:{tmp_path}/control.sock", control=True)


def test_what_ends_authority_is_served(control: Running) -> None:
    """Revocation, reload and health are answered there as at the main address."""
    revoked = control.unary(REVOKE, RevokeSessionsRequest(user="alice", reason="x").SerializeToString(), "admin")
    reloaded = control.unary(RELOAD, b"", "admin")
    health = HealthStub(control.channel).Check(HealthCheckRequest(), timeout=PATIENCE).status

    assert not RevokeSessionsResponse.FromString(revoked).session_ids
    assert reloaded != b""
    assert health == HealthCheckResponse.SERVING


def test_answers_that_end_authority_are_served(control: Running, embedded: Embedded, clock: FakeClock) -> None:
    """A no to a call, and the end of a yes, are taken there too, by the same rules."""
    main = embedded.registrar.request(WANTED, GATEWAY)[0].session
    request = waiting(embedded, clock, main.id, by="pep", action="git/git_log")
    access = "/pdp.v1.AccessService"

    control.unary(f"{access}/DenyCall", DenyCallRequest(access_request_id=request.id).SerializeToString(), "approver")
    wire = RevokeAccessRequest(session_id=main.id, reason="x").SerializeToString()

    assert control.unary(f"{access}/RevokeAccess", wire, "admin") == b""
    assert control.refused(f"{access}/ApproveCall", b"", "approver").code() is grpc.StatusCode.UNIMPLEMENTED
    denied = embedded.history.access().get(request.id)
    assert denied is not None
    assert denied.state is AccessState.DENIED


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
