"""Time as a parameter: the wall clock, and the clock that continues while a machine sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import Final, NamedTuple, Protocol

# How far the wall clock may have gone back over a reboot: so much longer a session is allowed calls at most. More than
# clocks drift; less than zones differ, by which a clock is wrong that was set by another one.
MOST_BEHIND_SECONDS: Final = 600.0


class Instant(NamedTuple):
    """One reading of both clocks: a tuple, since each decision makes up to three, and a tuple is made quickly.

    `wall_at` is unix seconds; `boot_at` is seconds since boot, sleep included; `boot_id` names the boot. `astray` says
    that the wall clock is so far back that it does not tell how much time has passed since another boot.
    """

    wall_at: float
    boot_at: float
    boot_id: str
    astray: bool = False


class Clock(Protocol):
    """A source of time. `now` never raises; the boot clock never goes back within one boot id."""

    def now(self) -> Instant:
        """Return the present reading of both clocks."""
        ...


class SystemClock:
    """Reads the machine's clocks."""

    def __init__(self) -> None:
        self._boot_id = _boot_id()

    def now(self) -> Instant:
        """Return the present reading of both clocks."""
        # By position: with names, making one takes half as long again.
        return Instant(time.time(), _boot_clock(), self._boot_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """A moment on both clocks: it has passed as soon as either clock says so.

    After a reboot only the wall clock can tell; the store's high-water mark keeps the wall clock from going back.
    """

    wall_at: float
    boot_at: float
    boot_id: str

    @classmethod
    def after(cls, start: Instant, seconds: float) -> Deadline:
        """Return the deadline `seconds` after `start`."""
        return cls(wall_at=start.wall_at + seconds, boot_at=start.boot_at + seconds, boot_id=start.boot_id)

    def passed(self, now: Instant) -> bool:
        """Say whether the deadline has passed; the moment itself counts as passed."""
        if now.wall_at >= self.wall_at:
            return True
        return now.boot_id == self.boot_id and now.boot_at >= self.boot_at

    def needs_wall_clock(self, now: Instant) -> bool:
        """Say whether it can pass, and only the wall clock can tell when."""
        return now.boot_id != self.boot_id and self.wall_at < inf

    def earliest(self, other: Deadline) -> Deadline:
        """Return the deadline that passes when either of the two does.

        If one of them is of the present boot, it must be `self`. The clock of another boot has stopped: then only the
        wall clock of `other` counts, and both clocks of `self`.
        """
        boot_at = min(self.boot_at, other.boot_at) if self.boot_id == other.boot_id else self.boot_at
        # Mostly one of the two is the answer: making a third takes longer than to look.
        if self.wall_at <= other.wall_at and self.boot_at == boot_at:
            return self
        if other.wall_at <= self.wall_at and other.boot_at == boot_at and other.boot_id == self.boot_id:
            return other
        return Deadline(wall_at=min(self.wall_at, other.wall_at), boot_at=boot_at, boot_id=self.boot_id)


def no_earlier(now: Instant, high_water_at: float) -> Instant:
    """Return the reading for deadlines: its wall clock is never below the high-water mark."""
    if now.wall_at >= high_water_at:
        return now
    # Until it has come up to the mark, this wall clock stands still.
    return now._replace(wall_at=high_water_at, astray=high_water_at - now.wall_at > MOST_BEHIND_SECONDS)


def utc_text(at: float) -> str:
    """Write unix seconds by RFC 3339, in UTC with microseconds. The texts sort by time."""
    seconds, microseconds = divmod(round(at * 1_000_000), 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{microseconds:06d}Z"


def _clock_since_boot() -> Callable[[], float]:
    """Return what reads the seconds since boot, sleep included."""
    if not hasattr(time, "clock_gettime"):
        # On Windows. Elsewhere this clock may stop during sleep.
        return time.monotonic
    # Darwin has no CLOCK_BOOTTIME; there, CLOCK_MONOTONIC continues during sleep.
    return partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


_boot_clock = _clock_since_boot()


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        # Without a boot id, the wall-clock time of the boot, to the minute, distinguishes boots.
        return f"boot-{round((time.time() - _boot_clock()) / 60)}"
