"""Keep what a process knows from other processes of the same user, and from the disk."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import suppress

_SET_DUMPABLE, _GET_DUMPABLE = 4, 3
# Pages that there are, and those that come.
_CURRENT, _FUTURE = 1, 2


def keep_memory_private() -> None:
    """Have the system refuse this process's memory and environment to other processes of its user, and write no core.

    Linux alone has it (`prctl(2)`); root can still read both, and so can whoever reads the files that this process
    reads.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0, 0, 0, 0)


def keep_secrets_here() -> tuple[str, ...]:
    """Do what `keep_memory_private` does, write no core file by a limit either, and keep memory from being swapped out.

    Return a line for each of these that the system did not grant.
    """
    return tuple(_not_granted())


def _not_granted() -> Iterator[str]:
    keep_memory_private()
    if sys.platform != "linux" or ctypes.CDLL(None).prctl(_GET_DUMPABLE, 0, 0, 0, 0) != 0:
        yield "other processes of this user can read its memory: the system has no `PR_SET_DUMPABLE`"
    limited = False
    with suppress(ImportError, OSError, ValueError):
        import resource  # noqa: PLC0415 - not every system has it

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        limited = True
    if not limited:
        yield "it can write a core file: the limit `RLIMIT_CORE` cannot be set"
    if not (sys.platform == "linux" and _locked()):
        yield "its memory can be swapped out: raise `RLIMIT_MEMLOCK`, or use no swap, or an encrypted one"


def _locked() -> bool:
    """Lock all memory, where there is no limit to it: with one, later allocations would fail."""
    import resource  # noqa: PLC0415 - not every system has it

    unlimited = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY
    return unlimited and ctypes.CDLL(None).mlockall(_CURRENT | _FUTURE) == 0
