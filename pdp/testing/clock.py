"""A clock that moves only when a test moves it."""

from __future__ import annotations

from threading import Lock

from pdp.clock import Instant


class FakeClock:
    """A `Clock` for tests: both of its clocks move only on command. Safe for threads.

    `wall_at` is where the wall clock starts, in unix seconds; by default 2026-01-01 00:00 UTC.
    """

    def __init__(self, wall_at: float = 1_767_225_600.0) -> None:
        self._lock = Lock()
        self._wall_at = wall_at
        self._boot_at = 1000.0
        self._boots = 1

    def now(self) -> Instant:
        """Return the current reading of both clocks."""
        with self._lock:
            return Instant(wall_at=self._wall_at, boot_at=self._boot_at, boot_id=f"boot-{self._boots}")

    def advance(self, seconds: float) -> None:
        """Move both clocks forward; `ValueError` when `seconds` is negative.

        No boot clock goes back.
        """
        if seconds < 0:
            raise ValueError(f"time passes forward only: `{seconds}`; `step_wall` sets the wall clock back")
        with self._lock:
            self._wall_at += seconds
            self._boot_at += seconds

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward or, with a negative number, back.

        The boot clock does not change.
        """
        with self._lock:
            self._wall_at += seconds

    def reboot(self) -> None:
        """Begin a new boot: another boot id, and a boot clock that starts again from zero."""
        with self._lock:
            self._boots += 1
            self._boot_at = 0.0
