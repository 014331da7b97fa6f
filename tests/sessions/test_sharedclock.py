"""A machine is never behind the clock of the database that it shares, and refuses to be far ahead of it."""

from __future__ import annotations

import pytest

from pdp.errors import StoreUnavailableError
from pdp.sessions.sharedclock import SharedClock
from pdp.testing.clock import FakeClock


@pytest.mark.parametrize(
    ("database", "expected"),
    [
        pytest.param(3600.0, 3600.0, id="behind"),
        pytest.param(0.25, 0.25, id="behind, or the answer took that long"),
        pytest.param(0.0, 0.0, id="the same"),
        pytest.param(-0.5, 0.0, id="a little ahead: sessions end early"),
    ],
)
def test_the_later_one_of_both_clocks_counts(database: float, expected: float) -> None:
    """By as much as the clock of the machine can be behind."""
    machine = FakeClock()
    clock = SharedClock(machine)
    clock.compare(machine.now(), machine.now().wall_at + database)

    assert machine.now().wall_at + expected == clock.now().wall_at
    assert machine.now().boot_at == clock.now().boot_at


def test_the_latest_comparison_counts() -> None:
    """A clock that was set right is not put forward any longer."""
    machine = FakeClock()
    clock = SharedClock(machine)
    for database in (3600.0, 0.0):
        clock.compare(machine.now(), machine.now().wall_at + database)

    assert machine.now() == clock.now()


def test_a_machine_far_ahead_has_no_time() -> None:
    """Time cannot be put back, and what it would end or count is that of all."""
    machine = FakeClock()
    with pytest.raises(StoreUnavailableError, match=r"more than 0\.5 seconds ahead"):
        SharedClock(machine).compare(machine.now(), machine.now().wall_at - 0.75)
