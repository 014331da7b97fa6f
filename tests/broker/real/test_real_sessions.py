"""A whole broker beside a whole server: a database session ends when the session of the agent is revoked."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest

from pdp.broker.serving import assembled
from pdp.broker.store.checkouts import CheckoutStore
from pdp.broker.v1 import broker_pb2, broker_pb2_grpc
from pdp.client import CallTokenRequest
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.clock import FakeClock
from pdp.testing.inprocess import running_server
from tests.broker.listening import listening, settings_of
from tests.broker.notes import AUDIENCE, CALLERS, ISSUER, opened_session
from tests.broker.real.postgresserver import BROKERS_PASSWORD, database, running_postgres
from tests.broker.tills import KEY, KIND, SERVER
from tests.broker.tills import RULES as CHECKOUT_RULES
from tests.broker.vaults import BY, Files
from tests.broker.worlds import Noting
from tests.machinery.servers.patientbroker import patient
from tests.machinery.servers.running import PATIENCE

pytestmark = pytest.mark.credentials

_FILES = bundle_files(
    policies={"reports": '@id("reports/all") permit (principal, action, resource);'},
    tools={SERVER: [tool("read", {"path": {"type": "string"}})]},
    directory="{users: {alice: {}}, agents: {coder: {ceiling: ['reports/*']}}}",
    overlays={
        SERVER: f"audiences: [{AUDIENCE}]\nconnection: {{kind: {KIND}, scopes: [app_reader]}}\n"
        "tools:\n  read: {risk: read_only}\n"
    },
)


def ended(session: Any) -> bool:
    """Say whether a session of the database was ended within some seconds."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            session.execute("SELECT n FROM facts, pg_sleep(0.05)")
        except psycopg.errors.AdminShutdown:
            return True
    return False


def test_the_revocation_of_a_session_reaches_the_database(project_root: Path, tmp_path: Path) -> None:
    """Whatever it has open there; the login of another session goes on."""
    record, files = Noting(), Files(tmp_path)
    with (
        running_postgres(18, project_root / ".venv-credentials") as postgres,
        running_server(_FILES, callers=CALLERS, call_token_issuer=ISSUER, clock=FakeClock(time.time())) as server,
        closing(files.open()) as vault,
        closing(CheckoutStore(files.store)) as checkouts,
    ):
        vault.add(database(postgres.port, tenant="default", compartment=""), by=BY)
        vault.put("app", BROKERS_PASSWORD.encode(), by=BY)
        calls = f"unix:{tmp_path}/calls.sock"
        settings = settings_of(tmp_path, server.address, server.token("broker"), calls=calls, rules=CHECKOUT_RULES)

        def now() -> float:
            return server.clock.now().wall_at

        def login(handle: str) -> Any:
            wanted = CallTokenRequest(audience=AUDIENCE)
            answer = server.client("gateway").authorize(handle, SERVER, "read", {"path": "p"}, call_tokens=(wanted,))
            asked = broker_pb2.CheckoutRequest(call_token=answer.call_tokens[0].token, server=SERVER)
            made = KEY.opened(stub.Checkout(asked, timeout=PATIENCE).sealed, asked.call_token)
            return postgres.connected("app", made.user, made.secret)

        with (
            patient(),
            assembled(settings, vault, checkouts, record, wall=now) as parts,
            listening(settings, parts),
            grpc.insecure_channel(calls) as channel,
        ):
            stub = broker_pb2_grpc.BrokerServiceStub(channel)  # type: ignore[no-untyped-call]  # generated
            server.clock.advance(6)
            (session_id, handle), (_, other) = (opened_session(server, "reports/*") for _ in range(2))
            with closing(login(handle)) as one, closing(login(other)) as stays:
                one.execute("SET ROLE app_reader")

                server.client("lead").revoke_sessions(session_id=session_id, reason="acts strangely")

                assert ended(one)
                assert [(1,)] == stays.execute("SELECT n FROM facts").fetchall()
    assert ["credential.revoked"] == [kind for kind in record.kinds if kind == "credential.revoked"]
