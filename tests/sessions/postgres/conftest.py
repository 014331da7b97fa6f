"""One server for all tests of this folder, whose tables are empty before each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pdp.clock import SystemClock
from pdp.model import Session
from pdp.sessions.lease import LeaseTerms
from pdp.sessions.postgres import PostgresSessionStore
from pdp.sessions.postgreshistory import PostgresSessionHistory
from pdp.sessions.postgressteps import POSTGRES_SCHEMA_VERSION
from pdp.sessions.postgrestables import FIRST_META
from pdp.sessions.rows import row_of
from tests.sessions.postgres.postgresserver import PostgresServer, running

# Whoever waits this long has a machine that does nothing else; what tests such waits sets them itself.
PATIENT: dict[str, Any] = {"busy_seconds": 30.0, "seconds": 30.0, "idle_seconds": 60.0}


def leased_store(conninfo: str, file: Path, **more: Any) -> PostgresSessionStore:
    """Return the store of a machine whose lease lasts longer than any test."""
    lease = LeaseTerms(file=file, seconds=60.0, clock=SystemClock())
    return PostgresSessionStore(conninfo, **PATIENT, lease=lease, **more)


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    """Give a server, with tables for all tests."""
    with running(int(os.environ.get("POSTGRES_VERSION", "18"))) as server:
        for namespace in ("pdp", "silent"):
            PostgresSessionStore(server.conninfo, namespace=namespace, **PATIENT).close()
        PostgresSessionHistory(server.conninfo, **PATIENT).close()
        yield server


@pytest.fixture
def conninfo(server: PostgresServer) -> str:
    """Give the connection string of a server whose tables are as new."""
    with server.connect() as connection:
        rows = connection.execute(_TABLES).fetchall()
        emptied = ["DELETE FROM " + ".".join(row) for row in rows]  # noqa: S608 - our own names
        namespaces = ("pdp_sessions", "silent_sessions")
        firsts = [FIRST_META.replace("INTO ", f"INTO {one}.") for one in namespaces]
        firsts += [f"UPDATE {one}.steps SET there = ?, begun = ?" for one in namespaces]  # noqa: S608 - the same
        connection.execute("; ".join([*emptied, *firsts, _FIRST_REVISION]).replace("?", str(POSTGRES_SCHEMA_VERSION)))
    return server.conninfo


@pytest.fixture
def takes_over(server: PostgresServer, conninfo: str) -> Iterator[Callable[[], None]]:
    """Give what makes the server one that has taken the place of another one; afterwards it is as before."""
    assert conninfo

    def taken() -> None:
        with server.connect() as connection:
            connection.execute("UPDATE pdp_sessions.timelines SET settled = '00000000', swept = '00000000'")
            ours = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pdp'"
            connection.execute(ours)

    yield taken
    with server.connect() as connection:
        connection.execute("SET search_path = pdp_sessions")
        connection.execute("UPDATE timelines SET (settled, swept) = (SELECT timeline, timeline FROM standing)")


@pytest.fixture
def loses(server: PostgresServer, takes_over: Callable[[], None]) -> Callable[[Session], None]:
    """Give what has the server be another one that lacks what came of a session afterwards."""

    def lost(session: Session) -> None:
        with server.connect() as connection:
            connection.execute("SET search_path = pdp_sessions")
            connection.execute(
                "UPDATE sessions SET state = %(state)s, epoch = %(epoch)s, session_json = %(session_json)s "
                "WHERE id = %(id)s",
                row_of(session),
            )
            connection.execute("UPDATE closers SET timeline = '00000000' WHERE id != ''")
        takes_over()

    return lost


@pytest.fixture(autouse=True)
def _removals_take_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a fence remove a silent server on a busy machine, too: one that takes longer leaves it to the next."""
    monkeypatch.setattr("pdp.sessions.postgresfence._REMOVAL_SECONDS", 30.0)


# The secret, the name of the database, its timeline and its version stay.
_TABLES = """
SELECT schemaname, tablename FROM pg_tables
WHERE schemaname IN ('pdp_sessions', 'silent_sessions', 'pdp_history', 'pdp_record')
AND tablename NOT IN ('history', 'deployment', 'timelines', 'steps')
"""
_FIRST_REVISION = "INSERT INTO pdp_history.access_revision VALUES (1, 0, 0)"
