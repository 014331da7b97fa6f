"""How many workers there are, and on which core each of them runs."""

from __future__ import annotations

import math
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pdp.config import Settings

# Where Linux tells a process of a container how much of the cores it may use: version 2, then version 1.
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_OLD_QUOTA = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")


def usable_cores() -> tuple[int, ...]:
    """Return the numbers of the cores that this process may run on; empty where the system does not say."""
    if not hasattr(os, "sched_getaffinity"):
        return ()
    return tuple(sorted(os.sched_getaffinity(0)))


def quota() -> float:
    """Return how many cores' worth of time this container may use; infinite without a bound."""
    with suppress(OSError, ValueError, IndexError, ZeroDivisionError):
        most, period = _QUOTA.read_text(encoding="ascii").split()
        return math.inf if most == "max" else int(most) / int(period)
    with suppress(OSError, ValueError, ZeroDivisionError):
        most, period = (path.read_text(encoding="ascii") for path in _OLD_QUOTA)
        return int(most) / int(period) if int(most) > 0 else math.inf
    return math.inf


def how_many(settings: Settings, cores: int, bound: float, platform: str = sys.platform) -> int:
    """Return how many workers the settings mean, on so many cores with a bound on their use.

    Without a number: as many as there are cores to use, and one where several cannot share the store or the address.
    """
    if settings.server.workers:
        return settings.server.workers
    alone = settings.sessions.store == "memory" or settings.server.address.startswith("unix:")
    # Only Linux spreads connections over all that listen on one port.
    if alone or platform != "linux":
        return 1
    return max(1, math.ceil(min(cores, bound)))


def core_of(number: int, cores: tuple[int, ...], bound: float) -> int | None:
    """Return the core for a worker, counted from 1; None when it should run on any.

    Where a quota bounds the use, the cores are shared with others, who would all choose the first ones.
    """
    if not cores or bound < len(cores):
        return None
    return cores[(number - 1) % len(cores)]


def pin(core: int | None) -> None:
    """Run this process on one core alone, where the system lets it."""
    if core is not None:
        with suppress(OSError):
            os.sched_setaffinity(0, {core})
