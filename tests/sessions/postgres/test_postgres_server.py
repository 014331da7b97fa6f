"""Server processes with `sessions.store: postgres`, and the commands that look after such a store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import grpc
import psycopg
import pytest

from pdp.model import Role, Session
from pdp.record.reader import read_records
from pdp.sessions.postgres import PostgresSessionStore
from pdp.testing.inprocess import write_folder
from pdp.testing.waiting import wait_until
from pdp.v1 import session_pb2
from pdp.v1.session_pb2_grpc import SessionServiceStub
from tests.machinery.servers.notes import notes_bundle
from tests.machinery.servers.server_process import PATIENCE, Callers, ServerProcess
from tests.sessions.postgres.conftest import PATIENT
from tests.sessions.postgres.onpostgres import basis, open_session, run, start
from tests.sessions.postgres.postgresserver import PostgresServer

pytestmark = pytest.mark.replicas


@pytest.fixture
def folder(conninfo: str, tmp_path: Path) -> Path:
    """Give a folder with policies, and with the connection string of empty tables."""
    write_folder(tmp_path / "policies", notes_bundle())
    (tmp_path / "postgres").write_text(conninfo + "\n", encoding="utf-8")
    (tmp_path / "postgres").chmod(0o600)
    return tmp_path


@pytest.fixture
def workers(folder: Path) -> Iterator[tuple[Callers, Callers]]:
    """Give the callers of two server processes on one data folder and one database."""
    with ExitStack() as opened:
        servers = [opened.enter_context(start(folder)) for _ in range(2)]
        here, there = (opened.enter_context(Callers.of(server)) for server in servers)
        yield here, there


def test_a_revocation_by_one_process_holds_in_the_other(workers: tuple[Callers, Callers]) -> None:
    """At its next call, although it remembers its answers."""
    here, there = workers
    opened = open_session(here)
    before = [basis(there, opened), basis(there, opened)]
    here.approver.revoke_sessions(session_id=opened.session.session_id, reason="enough")

    assert ["permit", "permit"] == before
    assert ["session_revoked", "session_revoked"] == [basis(there, opened), basis(here, opened)]


def test_a_restored_database_is_accepted_without_what_was_live(folder: Path, conninfo: str) -> None:
    """The server refuses one that lacks what its record knows; the command revokes, and then the server starts."""
    with start(folder) as server, Callers.of(server) as callers:
        opened = open_session(callers)
        assert 0 == server.terminate()
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("UPDATE pdp_sessions.meta SET revision = 1, forgotten_revision = 0")
    refused = ServerProcess.refused(folder, sessions_store="postgres", sessions_postgres_file=str(folder / "postgres"))
    code, restored = run(folder, "store", "restore")
    with start(folder) as server, Callers.of(server) as callers:
        after = basis(callers, opened)

    assert 2 == refused.returncode
    assert "`pdp store restore`" in refused.stderr
    assert (0, [opened.session.session_id]) == (code, restored["revoked"])
    assert "session_revoked" == after


@pytest.mark.parametrize(("command", "named"), [("backup", "no session store file"), ("restore", "name no file")])
def test_commands_for_files_say_that_there_is_none(folder: Path, command: str, named: str) -> None:
    """A database has means of its own."""
    code, error = run(folder, "store", command, "file")

    assert 2 == code
    assert named in error


def test_the_doctor_looks_at_the_database(folder: Path) -> None:
    """The tests run without the safety of a disk, and it says so; where nothing answers, that is a problem.

    It says too what a failover can lose.
    """
    with start(folder) as server:
        server.terminate()
    _, examined = run(folder, "doctor", replication="async")
    (folder / "postgres").write_text("host=127.0.0.1 port=1 user=pdp dbname=postgres", encoding="utf-8")
    _, absent = run(folder, "doctor")
    found = {one["found"] for one in examined["findings"] if one["check"] == "store"}

    assert any(one.startswith("PostgreSQL runs with `fsync=off`") for one in found)
    assert any(one.startswith("sound to read, schema ") for one in found)
    assert any(one.startswith("`sessions.replication` is `async`: a failover can lose") for one in found)
    assert ["the session store does not answer: nothing listens there"] == [
        one["found"] for one in absent["findings"] if one["check"] == "store"
    ]


def test_a_server_records_what_a_failover_may_have_lost(folder: Path, takes_over: Callable[[], None]) -> None:
    """Before it listens again, and then each session that it has revoked for that."""
    with start(folder, sessions_replication="async") as server, Callers.of(server) as callers:
        opened = open_session(callers)
        assert 0 == server.terminate()
    takes_over()
    with start(folder, sessions_replication="async") as server, Callers.of(server) as callers:
        after = basis(callers, opened)
    records = [one.record for one in read_records(server.record_folder)]
    told = [one for one in records if one.get("caller_id") == "store-went-back"]
    log = server.log.read_text(encoding="utf-8")

    assert "session_revoked" == after
    assert ["store.went_back", "session.revoked"] == [one["kind"] for one in told]
    assert told[0]["facts"]["revision"] == told[0]["facts"]["known_revision"]
    assert ("0", opened.session.session_id) == (told[0]["facts"]["changes_lost"], told[1]["session_id"])
    assert "another server has taken the place of the database" in log


def test_a_server_records_what_it_has_closed_again(
    folder: Path, conninfo: str, loses: Callable[[Session], None]
) -> None:
    """By a name of its own, after what the failover may have lost; what is live lives on."""
    settings = {"sessions_replication": "async", "sessions_after_going_back": "reassert"}
    with start(folder, **settings) as server, Callers.of(server) as callers:
        ended, live = open_session(callers), open_session(callers)
        with closing(PostgresSessionStore(conninfo, **PATIENT)) as store:
            (before,) = store.get(ended.session.session_id)
        callers.approver.revoke_sessions(session_id=ended.session.session_id, reason="enough")
        assert 0 == server.terminate()
    loses(before)
    with start(folder, **settings) as server, Callers.of(server) as callers:
        after = [basis(callers, one) for one in (ended, live)]
    records = [one.record for one in read_records(server.record_folder)]
    told = [one for one in records if one.get("caller_id") in ("store-went-back", "store-reassert")]

    assert ["session_revoked", "permit"] == after
    assert ["store.went_back", "session.revoked"] == [one["kind"] for one in told]
    assert ended.session.session_id == told[1]["session_id"]
    assert "written again after a failover: enough" == told[1]["facts"]["reason"]


def test_what_a_killed_server_has_committed_is_found_under_its_request_id(folder: Path, server: PostgresServer) -> None:
    """It was killed before it answered, while it waited for a machine that does not confirm."""
    with ExitStack() as opened, server.connect() as connection:
        here, there = (opened.enter_context(start(folder)) for _ in range(2))
        callers = opened.enter_context(Callers.of(there))
        session = open_session(callers).session
        connection.execute("INSERT INTO pdp_sessions.replicas VALUES ('silent', 0, 60)")
        request = session_pb2.RevokeSessionsRequest(
            session_id=session.session_id, reason="enough", request_id="00000000-0000-4000-8000-000000000001"
        )
        asked = opened.enter_context(ThreadPoolExecutor(1)).submit(_revoke, here, request)
        ended = "SELECT 1 FROM pdp_sessions.sessions WHERE state = 'revoked'"
        wait_until(lambda: connection.execute(ended).fetchone() is not None)
        here.kill()
        with pytest.raises(grpc.RpcError):
            asked.result(timeout=60)
        connection.execute("DELETE FROM pdp_sessions.replicas")
        again = _revoke(there, request)

    assert [session.session_id] == list(again.session_ids)


def _revoke(server: ServerProcess, request: session_pb2.RevokeSessionsRequest) -> session_pb2.RevokeSessionsResponse:
    metadata = (("authorization", f"Bearer {server.token(Role.APPROVER)}"),)
    with server.channel() as channel:
        revoke = SessionServiceStub(channel).RevokeSessions  # type: ignore[no-untyped-call]
        answer: session_pb2.RevokeSessionsResponse = revoke(request, metadata=metadata, timeout=PATIENCE)
        return answer
