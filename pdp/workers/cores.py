"""Choose the number of workers, and the core of each."""

from __future__ import annotations

import math
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pdp.config.settings import Settings

# Where Linux states a container's limits on cores and memory: version 2, then version 1.
_CGROUP = Path("/sys/fs/cgroup")
_QUOTA, _OLD_QUOTA = "cpu.max", ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")
_MEMORY = "memory.max", "memory/memory.limit_in_bytes"

# What a worker can come to need: 80 MiB for itself, and the rest for policies, sessions and remembered answers.
_WORKER_BYTES = 512 * 1024 * 1024


def usable_cores() -> tuple[int, ...]:
    """Return the numbers of the cores for this process; empty where the system does not say."""
    if not hasattr(os, "sched_getaffinity"):
        return ()
    return tuple(sorted(os.sched_getaffinity(0)))


def quota() -> float:
    """Return how many cores' worth of time this container may use; infinite without a limit."""
    with suppress(OSError, ValueError, IndexError, ZeroDivisionError):
        most, period = (_CGROUP / _QUOTA).read_text(encoding="ascii").split()
        return math.inf if most == "max" else int(most) / int(period)
    with suppress(OSError, ValueError, ZeroDivisionError):
        most, period = ((_CGROUP / name).read_text(encoding="ascii") for name in _OLD_QUOTA)
        return int(most) / int(period) if int(most) > 0 else math.inf
    return math.inf


def memory() -> float:
    """Return how many bytes of memory this container may use; infinite without a limit."""
    for name in _MEMORY:
        with suppress(OSError, ValueError):
            return float((_CGROUP / name).read_text(encoding="ascii").strip().replace("max", "inf"))
    return math.inf


def bound() -> float:
    """Return how many workers, in cores, this container has room for; infinite without a limit."""
    room = memory() / _WORKER_BYTES
    return min(quota(), room if math.isinf(room) else max(1, math.floor(room)))


def how_many(settings: Settings, cores: int, most: float, platform: str = sys.platform) -> int:
    """Return the number of workers by the settings, on `cores` cores of which `most` may be used.

    Without a setting: one for each usable core, or one where several cannot share the store or the address.
    """
    if settings.server.workers:
        return settings.server.workers
    alone = settings.sessions.store == "memory" or settings.server.address.startswith("unix:")
    # Only Linux spreads connections over all sockets that listen on one port.
    if alone or platform != "linux":
        return 1
    return max(1, math.ceil(min(cores, most)))


def core_of(number: int, cores: tuple[int, ...], most: float) -> int | None:
    """Return the core of a worker, counted from 1; None when it should run on any.

    Where the limit leaves cores free, other programs share them, and all would choose the first ones.
    """
    if not cores or most < len(cores):
        return None
    return cores[(number - 1) % len(cores)]


def pin(core: int | None) -> None:
    """Run this process on one core only, where the system allows it."""
    if core is not None:
        with suppress(OSError):
            os.sched_setaffinity(0, {core})
