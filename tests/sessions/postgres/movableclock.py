"""A clock for tests whose wall clock can be set."""

from __future__ import annotations

from collections.abc import Callable

from pdp.clock import Instant, SystemClock


class MovableClock:
    """The clock of the system, whose wall clock can be moved; `on_reading` is called before each reading."""

    def __init__(self, wall: float = 0.0) -> None:
        self._clock = SystemClock()
        self.wall = wall
        self.on_reading: Callable[[], object] = lambda: None
        self.readings: list[Instant] = []

    def now(self) -> Instant:
        """Return the present reading of both clocks."""
        self.on_reading()
        now = self._clock.now()
        self.readings.append(now._replace(wall_at=now.wall_at + self.wall))
        return self.readings[-1]
