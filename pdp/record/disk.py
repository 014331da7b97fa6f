"""The operating system calls of the record, in one class, so that a test can make each of them fail."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pdp.foundation.diskroom import allocate, free_bytes
from pdp.foundation.files import open_new, sync_folder


def _open_new(path: Path) -> int:
    return open_new(path, flags=os.O_APPEND)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The operating system's calls. All raise `OSError`.

    `open_new` creates a file that must not exist yet, for appending. `sync` returns when a file's data is on the disk.
    `sync_folder`, `allocate` and `free` are those of `pdp.foundation`.
    """

    open_new: Callable[[Path], int] = _open_new
    write: Callable[[int, bytes], int] = os.write
    sync: Callable[[int], None] = os.fdatasync if hasattr(os, "fdatasync") else os.fsync
    truncate: Callable[[int, int], None] = os.ftruncate
    sync_folder: Callable[[Path], None] = sync_folder
    allocate: Callable[[int, int, int], bool] = allocate
    free: Callable[[int], int] = free_bytes


def in_place(file: int, path: Path) -> bool:
    """Say whether a path still leads to an open file; True when that cannot be determined."""
    try:
        return os.path.samestat(os.fstat(file), path.lstat())
    except FileNotFoundError:
        return False
    except OSError:
        return True
