"""A disk that fails on command."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from pdp.record.disk import Disk

REAL = Disk()


@dataclass(slots=True, kw_only=True)
class Faults:
    """Which calls fail at present, and how: an errno for each. `calls` holds what was called, in order.

    `room` is how many more bytes the disk takes, and `free` how many it says to have; None is no bound.
    """

    open_new: int = 0
    write: int = 0
    sync: int = 0
    truncate: int = 0
    sync_folder: int = 0
    allocate: int = 0
    free: int | None = None
    room: int | None = None
    calls: list[str] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    @property
    def disk(self) -> Disk:
        """Return the disk that has these faults."""
        return Disk(
            open_new=self._open_new,
            write=self._write,
            sync=self._sync,
            truncate=self._truncate,
            sync_folder=self._sync_folder,
            allocate=self._allocate,
            free=self._free,
        )

    def heal(self) -> None:
        """Let every call succeed from now on."""
        self.open_new = self.write = self.sync = self.truncate = self.sync_folder = 0
        self.allocate, self.room, self.free = 0, None, None

    def _open_new(self, path: Path) -> int:
        self._called("open", self.open_new)
        return REAL.open_new(path)

    def _write(self, file: int, data: bytes) -> int:
        with self._lock:
            room = len(data) if self.room is None else min(self.room, len(data))
            self._called("write", self.write or (errno.ENOSPC if not room else 0))
            if self.room is not None:
                self.room -= room
        return REAL.write(file, data[:room])

    def _sync(self, file: int) -> None:
        self._called("sync", self.sync)
        REAL.sync(file)

    def _truncate(self, file: int, size: int) -> None:
        self._called("truncate", self.truncate)
        REAL.truncate(file, size)

    def _sync_folder(self, folder: Path) -> None:
        self._called("sync folder", self.sync_folder)
        REAL.sync_folder(folder)

    def _allocate(self, file: int, start: int, length: int) -> bool:
        self._called("allocate", self.allocate)
        return REAL.allocate(file, start, length)

    def _free(self, file: int) -> int:
        return REAL.free(file) if self.free is None else self.free

    def _called(self, name: str, fault: int) -> None:
        self.calls.append(name)
        if fault:
            raise OSError(fault, os.strerror(fault))
