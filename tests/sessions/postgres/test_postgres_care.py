"""What `pdp doctor` finds about machines that share a database."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pdp.config import SessionSettings
from pdp.doctor.finding import Deployment, Level
from pdp.doctor.storecheck import store
from pdp.sessions.postgrescare import silent_machines
from tests.machinery.servers.served import settings_in
from tests.sessions.postgres.movableclock import MovableClock
from tests.sessions.postgres.postgresserver import PostgresServer

pytestmark = pytest.mark.replicas

JOIN = "INSERT INTO pdp_sessions.replicas VALUES (%s, 0, 0.3)"


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
        pytest.param(2.0, [("clock", Level.PROBLEM, "seconds ahead of that of the database")], id="ahead"),
        pytest.param(-2.0, [("clock", Level.WARNING, "seconds behind that of the database")], id="behind"),
    ],
)
def test_a_clock_that_is_far_from_that_of_the_database_is_found(
    conninfo: str, tmp_path: Path, wall: float, expected: list[tuple[str, Level, str]]
) -> None:
    """In both directions, with what it costs."""
    (tmp_path / "postgres").touch(mode=0o600)
    (tmp_path / "postgres").write_text(conninfo, encoding="utf-8")
    sessions = SessionSettings(store="postgres", postgres_file=str(tmp_path / "postgres"))
    settings = replace(settings_in(tmp_path), sessions=sessions)
    findings = list(store(Deployment(settings=settings, environ={}, clock=MovableClock(wall), user_id=0)))
    apart = [one for one in findings if one.check == "clock"]

    assert [(check, level) for check, level, _ in expected] == [(one.check, one.level) for one in apart]
    assert all(text in one.found for one, (_, _, text) in zip(apart, expected, strict=True))
