"""What the record asks of the operating system, in one place, so that a test can make each of it fail."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pdp.foundation.diskroom import allocate, free_bytes


def _open_new(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The operating system's calls. All raise `OSError`.

    `open_new` makes a file that must not exist yet, for appending. `sync` returns when a file's data is on the disk.
    `allocate` and `free` are those of `pdp.foundation.diskroom`.
    """

    open_new: Callable[[Path], int] = _open_new
    write: Callable[[int, bytes], int] = os.write
    sync: Callable[[int], None] = os.fdatasync if hasattr(os, "fdatasync") else os.fsync
    truncate: Callable[[int, int], None] = os.ftruncate
    sync_folder: Callable[[Path], None] = _sync_folder
    allocate: Callable[[int, int, int], bool] = allocate
    free: Callable[[int], int] = free_bytes


def in_place(file: int, path: Path) -> bool:
    """Say whether an open file is still the one that a path names; True when that cannot be told."""
    try:
        return os.path.samestat(os.fstat(file), path.lstat())
    except FileNotFoundError:
        return False
    except OSError:
        return True


def lock_file(path: Path) -> int | None:
    """Open a file and lock it for as long as this process keeps it open; None when another process has the lock."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
