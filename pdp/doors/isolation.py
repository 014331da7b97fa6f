"""Keep what this process knows from other processes of the same user."""

from __future__ import annotations

import ctypes
import sys

_SET_DUMPABLE = 4


def keep_memory_private() -> None:
    """Have the system refuse this process's memory and environment to other processes of its user, and write no core.

    Linux alone has it (`prctl(2)`); root can still read both, and so can whoever reads the files that this process
    reads.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0, 0, 0, 0)
