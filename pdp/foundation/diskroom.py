"""Room on a disk: how much is left, and room that a file has before it is written."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

# Of Linux: allocate beyond the end of a file and leave its size as it is.
_KEEP_SIZE = 1


def allocate(file: int, start: int, length: int) -> bool:
    """Make sure that an open file has room for `length` bytes from `start` on; its size stays what it is.

    Return False where the file system or the system cannot. Raise `OSError` when the disk has no such room.
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


def free_bytes(place: int | Path) -> int:
    """Return how many bytes are left for us on the disk of an open file or of a path. Raise `OSError`."""
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize
