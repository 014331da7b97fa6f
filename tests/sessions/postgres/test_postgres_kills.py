"""A server is killed between a commit and its answer: the change is found under its request id, and not made again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from pdp.model import Role
from pdp.record import read_records
from pdp.testing.inprocess import write_folder
from pdp.v1 import freeze_pb2, session_pb2
from pdp.v1.freeze_pb2_grpc import FreezeServiceStub
from pdp.v1.session_pb2_grpc import SessionServiceStub
from tests.machinery.servers.notes import notes_bundle
from tests.machinery.servers.server_process import PATIENCE, Callers, ServerProcess
from tests.sessions.postgres.onpostgres import open_session, run

pytestmark = pytest.mark.replicas

DYING = (sys.executable, "-m", "tests.machinery.servers.dying")


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_a_change_whose_server_was_killed_is_found_made(store: str, conninfo: str, tmp_path: Path) -> None:
    """By the server that is started next: the sessions are told, their epochs have not risen again, and calls stop."""
    write_folder(tmp_path / "policies", notes_bundle())
    file = tmp_path / "postgres"
    file.touch(mode=0o600)
    file.write_text(conninfo, encoding="utf-8")
    settings = {"sessions_store": store}
    if store == "postgres":
        settings["sessions_postgres_file"] = str(file)
    with ServerProcess(tmp_path, through=(*DYING, "change_tree"), **settings) as server:
        with Callers.of(server) as callers:
            opened = open_session(callers)
        revoke = session_pb2.RevokeSessionsRequest(
            session_id=opened.session.session_id, reason="enough", request_id="revoke"
        )
        with pytest.raises(grpc.RpcError) as lost:
            _send(server, SessionServiceStub, "RevokeSessions", revoke)
        ended = server.wait()
    with ServerProcess(tmp_path, through=(*DYING, "freeze"), **settings) as server:
        again = [_send(server, SessionServiceStub, "RevokeSessions", revoke) for _ in range(2)]
        with Callers.of(server) as callers:
            stored = callers.approver.get_session(opened.session.session_id)
        freeze = freeze_pb2.SetFreezeRequest(tenant="default", reason="enough", request_id="freeze")
        with pytest.raises(grpc.RpcError):
            _send(server, FreezeServiceStub, "SetFreeze", freeze)
        server.wait()
    with ServerProcess(tmp_path, **settings) as server:
        frozen = [_send(server, FreezeServiceStub, "SetFreeze", freeze).freeze for _ in range(2)]
        listed = _send(server, FreezeServiceStub, "ListFreezes", freeze_pb2.ListFreezesRequest()).freezes
    kinds = [record["kind"] for _, _, record in read_records(server.record_folder)]
    _, told = run(tmp_path, "audit", "session", stored.session_id, store=store)

    assert (-9, grpc.StatusCode.UNAVAILABLE) == (ended, lost.value.code())
    assert [[stored.session_id]] * 2 == [list(one.session_ids) for one in again]
    # A request, an approval and the revocation.
    assert (session_pb2.SESSION_STATE_REVOKED, 3) == (stored.state, stored.epoch)
    assert list(listed) * 2 == frozen
    if store == "postgres":
        # Each of the two was killed before it had recorded its change: the next one has, once.
        assert [1, 1] == [kinds.count("session.revoked"), kinds.count("freeze.set")]
        assert [("session.revoked", "enough")] == [
            (one["kind"], one["facts"]["reason"]) for one in told["entries"] if one["kind"] == "session.revoked"
        ]


def _send(server: ServerProcess, stub: Any, method: str, request: Message) -> Any:
    metadata = (("authorization", f"Bearer {server.token(Role.APPROVER)}"),)
    with server.channel() as channel:
        return getattr(stub(channel), method)(request, metadata=metadata, timeout=PATIENCE)
