"""The clocks of the machine misbehave: no session lives longer for it, and none that is over comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.machinery.faults.breakdowns import ROWS
from tests.machinery.servers.served import WELL, served

# How long a session lives that asks for nothing else.
_LIFE = 3600.0


def test_the_wall_clock_steps_back(tmp_path: Path) -> None:
    """Calls go on as before, and the session ends when its time has passed on the clock that nobody sets."""
    with served(tmp_path) as service:
        first, second = service.open(), service.open()
        service.clock.step_wall(-7 * 24 * 3600.0)
        during = service.seen(first)
        service.clock.advance(_LIFE - 1.0)
        before_the_end = service.call(second)
        service.clock.advance(1.0)
        at_the_end = service.call(second)

    assert during == ROWS["the wall clock steps back"].seen
    assert (before_the_end, at_the_end) == ("permit", "session_expired")


def test_the_wall_clock_steps_forth_and_back(tmp_path: Path) -> None:
    """What has expired meanwhile stays expired: the store has seen the later time. New sessions are as before."""
    with served(tmp_path) as service:
        service.clock.step_wall(_LIFE)
        during = service.seen(service.open())
        service.clock.step_wall(-_LIFE)
        after = service.call(service.active)
        renewed = service.call(service.open())

    assert during == ROWS["the wall clock steps forward"].seen
    assert (after, renewed) == ("session_expired", "permit")


def test_the_wall_clock_was_years_ahead_before_a_reboot(tmp_path: Path) -> None:
    """It tells nothing about the boot before: until it is right again, no session of that one goes on."""
    ahead = 10 * 365 * 24 * 3600.0
    with served(tmp_path) as service:
        service.clock.step_wall(ahead)
        service.revoke(service.open())
        service.clock.step_wall(-ahead)
        session = service.open()
        before = service.call(session)
        service.clock.reboot()
        service.clock.advance(60.0)
        after, state = service.call(session), service.state(session)
        renewed = service.call(service.open())

    assert (before, after, state, renewed) == ("permit", "session_expired", "expired", "permit")


def test_a_clock_that_is_far_behind_is_told_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Users who are denied as expired ask their operator, who looks at the log."""
    with served(tmp_path) as service:
        service.clock.step_wall(660.0)
        service.revoke(service.open())
    with served(tmp_path, before=service):
        pass

    assert ["the clock is far behind"] == [
        one.getMessage()[:23] for one in caplog.records if "clock" in one.getMessage()
    ]


def test_the_machine_sleeps(tmp_path: Path) -> None:
    """Time passes while the machine sleeps, also when the wall clock does not know of it yet."""
    with served(tmp_path) as service:
        service.clock.advance(_LIFE)
        service.clock.step_wall(-_LIFE)
        during = service.seen(service.open())
        renewed = service.call(service.open())

    assert during == ROWS["the machine was asleep"].seen
    assert renewed == "permit"
    assert WELL.changes == during.changes
