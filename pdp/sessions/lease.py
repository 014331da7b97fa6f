"""How long the servers of a machine may answer from memory, and what a write waits for because of that.

Servers that share a database answer from memory under a lease, which they renew by a write. A write is acknowledged
when every machine has confirmed that it knows it, or when every lease is over that began before it: the fence. Only
the rate of clocks matters for this, not what they show.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from pdp.clock import Clock, Instant
from pdp.model import Head

# The lengths that a lease can have. A write that can learn nothing of leases waits for the longest.
LEAST_LEASE_SECONDS: Final = 0.3
MOST_LEASE_SECONDS: Final = 5.0
# How much faster one clock may run than another.
CLOCK_RATE: Final = 1.01
# A wall clock that has moved further than the boot clock was set, or the machine was paused with its boot clock.
_MOST_DRIFT_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Permission to answer from memory that has all changes up to `head`, for `seconds`.

    `begun` was read before the renewal was sent: every change that was acknowledged until then is in it. The clock of
    the machine can be `behind` that of the database by so many seconds. It was given by the server on `timeline`.
    """

    head: Head
    begun: Instant
    seconds: float
    behind: float = 0.0
    timeline: str = ""

    def holds(self, now: Instant) -> bool:
        """Say whether memory may answer now. Any doubt about the clocks ends it."""
        passed = now.boot_at - self.begun.boot_at
        drift = now.wall_at - self.begun.wall_at - passed
        return now.boot_id == self.begun.boot_id and 0 <= passed < self.seconds and abs(drift) <= _MOST_DRIFT_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTerms:
    """How a machine holds its lease: the file that its servers share, its length in seconds, and their clock."""

    file: Path
    seconds: float
    clock: Clock


class FencedBy(StrEnum):
    """Why no server can answer from before a write."""

    CONFIRMED = "confirmed"
    WAITED = "waited"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """How a write was fenced, and after how many seconds since its commit."""

    by: FencedBy
    seconds: float
