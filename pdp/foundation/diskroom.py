"""Disk space: how much is free, and allocation for a file before it is written."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

# From Linux: allocate beyond the end of a file without changing its size.
_KEEP_SIZE = 1


def allocate(file: int, start: int, length: int) -> bool:
    """Allocate `length` bytes of an open file from `start` on, without changing its size.

    Return False where the file system or the system does not support it. Raise `OSError` when the disk lacks the space.
    """
    fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    code = errno.EINTR if fallocate else errno.EOPNOTSUPP
    while fallocate and code == errno.EINTR:
        if not fallocate(file, _KEEP_SIZE, ctypes.c_longlong(start), ctypes.c_longlong(length)):
            return True
        code = ctypes.get_errno()
    if code in (errno.EOPNOTSUPP, errno.ENOSYS):
        return False
    raise OSError(code, os.strerror(code))


def free_bytes(file: int | Path) -> int:
    """Return the free bytes for this user on the disk of an open file or a path. Raise `OSError`."""
    found = os.statvfs(file)
    return found.f_bavail * found.f_frsize
