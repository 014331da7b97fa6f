"""The fake clock moves as the clocks of a machine do."""

from __future__ import annotations

import pytest

from pdp.clock import Clock, Deadline, Instant
from pdp.testing.clock import FakeClock


def test_time_stands_still_until_it_is_moved() -> None:
    """Two readings without a command between them are equal."""
    clock: Clock = FakeClock(wall_at=500.0)

    assert clock.now() == clock.now() == Instant(wall_at=500.0, boot_at=1000.0, boot_id="boot-1")


def test_time_passes_on_both_clocks() -> None:
    """Advancing moves the wall clock and the boot clock alike."""
    clock = FakeClock(wall_at=500.0)
    clock.advance(2.5)

    assert clock.now() == Instant(wall_at=502.5, boot_at=1002.5, boot_id="boot-1")


def test_a_boot_clock_never_goes_back() -> None:
    """Advancing by a negative time is refused."""
    clock = FakeClock()
    before = clock.now()

    with pytest.raises(ValueError, match=r"time passes forward only: `-1`"):
        clock.advance(-1)
    assert clock.now() == before


def test_setting_the_wall_clock_back_does_not_lengthen_a_deadline() -> None:
    """A step moves the wall clock only, so the boot clock still ends what it has to."""
    clock = FakeClock(wall_at=500.0)
    deadline = Deadline.after(clock.now(), 60.0)
    clock.step_wall(-100.0)
    clock.advance(59.0)
    before = deadline.passed(clock.now())
    clock.advance(1.0)

    assert clock.now() == Instant(wall_at=460.0, boot_at=1060.0, boot_id="boot-1")
    assert (before, deadline.passed(clock.now())) == (False, True)


def test_a_reboot_starts_another_boot_clock() -> None:
    """After a reboot the boot id differs, and the boot clock starts from zero; the wall clock goes on."""
    clock = FakeClock(wall_at=500.0)
    clock.reboot()
    clock.advance(1.0)

    assert clock.now() == Instant(wall_at=501.0, boot_at=1.0, boot_id="boot-2")
