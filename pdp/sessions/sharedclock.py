"""The time of servers that share a database: none of them is behind its clock, and none far ahead of it.

Deadlines are made by one machine and kept by others, and the latest time that one has written counts for all. So a
machine whose clock is behind goes by that of the database, and one whose clock is ahead of it may write nothing: time
can be put forward, but not back.
"""

from __future__ import annotations

from typing import Final

from pdp.clock import Clock, Instant
from pdp.errors import StoreUnavailableError

# How far the clock of a machine may be from that of the database.
MOST_APART_SECONDS: Final = 0.5
AHEAD: Final = f"the clock of this machine is more than {MOST_APART_SECONDS} seconds ahead of that of the database"


class SharedClock:
    """The clock of a machine, put forward by as much as it can be behind that of the database. Safe for threads."""

    def __init__(self, machine: Clock) -> None:
        self.machine = machine
        # Seconds, as last measured.
        self.behind = 0.0

    def now(self) -> Instant:
        """Return the present reading of both clocks."""
        now = self.machine.now()
        if not self.behind:
            return now
        return Instant(now.wall_at + self.behind, now.boot_at, now.boot_id)

    def compare(self, before: Instant, database_at: float) -> None:
        """Take in that the database showed a time after a reading of the machine's clock.

        Raise `StoreUnavailableError` when that is too far ahead.
        """
        behind = most_behind(before, database_at)
        if behind < -MOST_APART_SECONDS:
            raise StoreUnavailableError(AHEAD)
        self.behind = max(behind, 0.0)


def most_behind(before: Instant, database_at: float) -> float:
    """Return how many seconds a clock can be behind that of the database, which was read later; negative if ahead."""
    # Until the database has read its clock some time has passed, which counts as if it were behind.
    return database_at - before.wall_at
