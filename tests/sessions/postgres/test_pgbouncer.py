"""A real pgbouncer between servers and PostgreSQL is refused, however it pools, and nothing is answered through it."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from pdp.testing.inprocess import write_folder
from pdp.testing.waiting import wait_until
from tests.machinery.ports import free_port
from tests.machinery.servers.notes import notes_bundle
from tests.machinery.servers.postgresprograms import as_another
from tests.machinery.servers.server_process import Callers, ServerProcess
from tests.sessions.postgres.onpostgres import basis, open_session, run, start
from tests.sessions.postgres.postgresserver import PostgresServer
from tests.sessions.postgres.tcpproxy import Proxy

pytestmark = [pytest.mark.replicas, pytest.mark.long]

MODES = ("session", "transaction")
AS_IT_COMES = ""
WITHOUT_OPTIONS = "ignore_startup_parameters = options"
CALLS = 100


@pytest.fixture
def folder(conninfo: str, tmp_path: Path) -> Path:
    """Give a folder with policies, and with the connection string of empty tables."""
    write_folder(tmp_path / "policies", notes_bundle())
    (tmp_path / "postgres").touch(mode=0o600)
    (tmp_path / "postgres").write_text(conninfo, encoding="utf-8")
    return tmp_path


@contextmanager
def pooler(server: PostgresServer, folder: Path, mode: str, more: str) -> Iterator[int]:
    """Run a pgbouncer before a server in the `with` block; give its port."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    assert program is not None, "there is no `pgbouncer`: install the package of that name"
    port = free_port()
    lines = (
        "[databases]",
        f"postgres = host=127.0.0.1 port={server.port} user=pdp",
        "[pgbouncer]",
        "listen_addr = 127.0.0.1",
        f"listen_port = {port}",
        "unix_socket_dir =",
        "auth_type = any",
        f"pool_mode = {mode}",
        more,
    )
    # Another user may not be able to read what a test has written.
    place = server.folder / f"pgbouncer-{port}.ini"
    place.write_text("\n".join(lines), encoding="utf-8")
    with (folder / "pgbouncer.log").open("ab") as log:
        process = subprocess.Popen([*as_another(), program, str(place)], stdout=log, stderr=log)
    try:
        wait_until(lambda: listens(port))
        yield port
    finally:
        process.terminate()
        process.wait(timeout=60)


def listens(port: int) -> bool:
    """Say whether something listens on a port of this machine."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def refusals(folder: Path) -> tuple[str, list[str]]:
    """Return what a start says that is refused, and what `pdp doctor` says of the store."""
    file = str(folder / "postgres")
    refused = ServerProcess.refused(folder, sessions_store="postgres", sessions_postgres_file=file)
    _, examined = run(folder, "doctor")
    found = [one["found"] for one in examined["findings"] if (one["check"], one["level"]) == ("store", "problem")]
    assert 2 == refused.returncode
    return refused.stderr, found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("more", [AS_IT_COMES, WITHOUT_OPTIONS], ids=["as it comes", "without options"])
def test_a_start_through_it_is_refused(server: PostgresServer, folder: Path, mode: str, more: str) -> None:
    """As the doctor finds it: it refuses what a connection asks for, or drops it, in which case that is seen."""
    with pooler(server, folder, mode, more) as port:
        (folder / "postgres").write_text(server.conninfo_at(port), encoding="utf-8")
        refused, found = refusals(folder)

    said = "a pooler is in between" if more == AS_IT_COMES else "there must be no pooler in between"
    assert said in refused
    assert any(said in one for one in found), found


@pytest.mark.parametrize("mode", MODES)
def test_settings_of_the_role_do_not_make_up_for_what_it_drops(server: PostgresServer, folder: Path, mode: str) -> None:
    """Connections differ in what they ask for, so that one of them always lacks something."""
    settings = {
        "synchronous_commit": "on",
        "idle_in_transaction_session_timeout": "2000",
        "lock_timeout": "5000",
        "search_path": "pdp_sessions",
        "client_min_messages": "warning",
    }
    with server.connect() as connection, pooler(server, folder, mode, WITHOUT_OPTIONS) as port:
        (folder / "postgres").write_text(server.conninfo_at(port), encoding="utf-8")
        for name, value in settings.items():
            connection.execute(f"ALTER ROLE pdp SET {name} = '{value}'")
        try:
            refused, found = refusals(folder)
        finally:
            connection.execute("ALTER ROLE pdp RESET ALL")

    assert "there must be no pooler in between" in refused
    assert any("there must be no pooler in between" in one for one in found), found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("more", [AS_IT_COMES, WITHOUT_OPTIONS], ids=["as it comes", "without options"])
def test_no_call_is_answered_through_it(server: PostgresServer, folder: Path, mode: str, more: str) -> None:
    """When it takes the place of PostgreSQL under a server that runs: until PostgreSQL is reached again."""
    with closing(Proxy(server.port)) as direct, pooler(server, folder, mode, more) as port:
        (folder / "postgres").write_text(server.conninfo_at(direct.port), encoding="utf-8")
        with start(folder) as running, Callers.of(running) as callers:
            opened = open_session(callers)
            before = basis(callers, opened)
            direct.to = port
            end_all(server)
            meanwhile = {basis(callers, opened) for _ in range(CALLS)}
            direct.to = server.port
            wait_until(lambda: basis(callers, opened) == "permit")

    assert "permit" == before
    assert "permit" not in meanwhile
    assert all("unavailable" in one.lower() or "does not answer" in one or "pooler" in one for one in meanwhile)


def end_all(server: PostgresServer) -> None:
    """End all connections of servers, so that they open others."""
    with server.connect() as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pdp'")
