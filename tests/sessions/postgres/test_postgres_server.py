"""Server processes with `sessions.store: postgres`, and the commands that look after such a store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from pdp.testing.inprocess import write_folder
from tests.machinery.servers.notes import notes_bundle
from tests.machinery.servers.server_process import Callers, ServerProcess
from tests.sessions.postgres.onpostgres import basis, open_session, run, start

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
    """The tests run without the safety of a disk, and it says so; where nothing answers, that is a problem."""
    with start(folder) as server:
        server.terminate()
    _, examined = run(folder, "doctor")
    (folder / "postgres").write_text("host=127.0.0.1 port=1 user=pdp dbname=postgres", encoding="utf-8")
    _, absent = run(folder, "doctor")
    found = {one["found"] for one in examined["findings"] if one["check"] == "store"}

    assert any(one.startswith("PostgreSQL runs with `fsync=off`") for one in found)
    assert any(one.startswith("sound to read, schema ") for one in found)
    assert ["the session store does not answer: nothing listens there"] == [
        one["found"] for one in absent["findings"] if one["check"] == "store"
    ]
