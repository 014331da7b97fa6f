"""What `pdp doctor` finds about machines that share a database."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pdp.app.record import open_record, record_key
from pdp.cli.operate.init import prepare
from pdp.config.settings import SessionSettings, Settings
from pdp.doctor.finding import Deployment, Finding, Level
from pdp.doctor.storecheck import store
from pdp.model import Head
from pdp.sessions.lease import Lease, LeaseTerms
from pdp.sessions.leasepage import LeasePage
from pdp.sessions.postgrescare import heard_after, inspect_postgres, silent_machines
from tests.machinery.servers.served import settings_in
from tests.sessions.postgres.movableclock import MovableClock
from tests.sessions.postgres.postgresserver import PostgresServer

pytestmark = pytest.mark.replicas

JOIN = "INSERT INTO pdp_sessions.replicas VALUES (%s, 0, 0.3)"


def on_the_database(folder: Path, conninfo: str, **sessions: Any) -> Settings:
    """Return the settings of a server in a folder."""
    file = folder / "postgres"
    file.touch(mode=0o600)
    file.write_text(conninfo, encoding="utf-8")
    chosen = SessionSettings(store="postgres", postgres_file=str(file), **sessions)
    return replace(settings_in(folder), sessions=chosen)


def examined(settings: Settings, clock: MovableClock) -> list[Finding]:
    """Return what is found about the store."""
    return list(store(Deployment(settings=settings, environ={}, clock=clock, user_id=0)))


def test_machines_that_do_not_renew_are_counted(server: PostgresServer, conninfo: str) -> None:
    """After as long as their leases last; one that renews meanwhile is none of them."""
    waited = []
    with server.connect() as connection:
        for name in ("alive", "dead"):
            connection.execute(JOIN, (name,))

        def pause(seconds: float) -> None:
            waited.append(seconds)
            connection.execute("UPDATE pdp_sessions.replicas SET renewals = 1 WHERE id = 'alive'")

        found = silent_machines(conninfo, pause=pause)

    assert (1, 0.3) == found
    assert [0.303] == waited


@pytest.mark.parametrize(
    ("wall", "expected"),
    [
        pytest.param(0.0, [], id="the same"),
        pytest.param(60.0, [("clock", Level.PROBLEM, "seconds ahead of that of the database")], id="ahead"),
        pytest.param(-60.0, [("clock", Level.WARNING, "seconds behind that of the database")], id="behind"),
    ],
)
def test_a_clock_that_is_far_from_that_of_the_database_is_found(
    conninfo: str, tmp_path: Path, wall: float, expected: list[tuple[str, Level, str]]
) -> None:
    """In both directions, with what it costs."""
    settings = on_the_database(tmp_path, conninfo)
    apart = [one for one in examined(settings, MovableClock(wall)) if one.check == "clock"]

    assert [(check, level) for check, level, _ in expected] == [(one.check, one.level) for one in apart]
    assert all(text in one.found for one, (_, _, text) in zip(apart, expected, strict=True))


@pytest.mark.parametrize(("database", "heard"), [("postgres", True), ("template1", False)], ids=["here", "elsewhere"])
def test_a_notification_that_does_not_come_back_is_found(conninfo: str, *, database: str, heard: bool) -> None:
    """As behind a pooler: here it is of another database, whose notifications stay there."""
    notifying = conninfo.replace("dbname=postgres", f"dbname={database}")

    assert heard == (heard_after(conninfo, notifying=notifying, seconds=20.0 if heard else 0.2) is not None)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        pytest.param(60.0, (Level.OK, "seconds ago, and lasts 60"), id="holds"),
        pytest.param(0.0, (Level.PROBLEM, "this machine has no lease"), id="over"),
    ],
)
def test_the_lease_of_a_server_that_runs_is_shown(
    conninfo: str, tmp_path: Path, seconds: float, expected: tuple[Level, str]
) -> None:
    """Without one it is not ready."""
    settings = on_the_database(tmp_path, conninfo, lease_seconds=1.0)
    clock = MovableClock(0.0)
    terms = LeaseTerms(file=settings.lease_file, seconds=1.0, clock=clock)
    prepare(settings)
    with (
        closing(open_record(settings, key=record_key(settings), clock=clock)) as log,
        closing(LeasePage(terms, deployment=inspect_postgres(conninfo).deployment)) as page,
    ):
        log.start()
        assert page.hold()
        page.publish(Lease(head=Head(revision=0, tag=""), begun=clock.now(), seconds=seconds))
        found = examined(settings, clock)

    level, text = expected
    assert [level] == [one.level for one in found if text in one.found]
