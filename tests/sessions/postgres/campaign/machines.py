"""What a replica runs on that tests can spoil: a wall clock of its own, and a disk that can be full."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import struct
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

_SOURCE: Final = Path(__file__).parent / "settableclock.c"
_DISK: Final = "2g"
_REMOUNT: Final = 32
_DETACH: Final = 2
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class WallClock:
    """The wall clock that programs see when they have `environment`: that of the machine, or as far from it as is set.

    Other clocks are those of the machine.
    """

    def __init__(self, folder: Path) -> None:
        file = folder / "clock"
        file.write_bytes(struct.pack("d", 0.0))
        with file.open("r+b") as opened:
            self._page = mmap.mmap(opened.fileno(), 8)
        self.environment: Mapping[str, str] = {"LD_PRELOAD": str(_library(folder)), "SETTABLE_CLOCK": str(file)}

    def move(self, seconds: float) -> None:
        """Have it show so many seconds more than the machine's."""
        self._page[:] = struct.pack("d", seconds)


class Disk:
    """A disk of its own at a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        self._mount(_DISK)

    def fill(self) -> None:
        """Leave no room."""
        while not self.full:
            found = os.statvfs(self._folder)
            used = (found.f_blocks - found.f_bfree) * found.f_frsize
            # More can be used by now, and it cannot be smaller than that.
            with suppress(OSError):
                self._mount(str(used), _REMOUNT)

    def free(self) -> None:
        """Make room again."""
        self._mount(_DISK, _REMOUNT)

    @property
    def full(self) -> bool:
        """Say whether there is no room."""
        return os.statvfs(self._folder).f_bavail == 0

    def close(self) -> None:
        """Remove it, with what is on it."""
        _require(_LIBC.umount2(os.fsencode(self._folder), _DETACH))

    def _mount(self, size: str, flags: int = 0) -> None:
        options = f"size={size},mode=700".encode()
        _require(_LIBC.mount(b"none", os.fsencode(self._folder), b"tmpfs", ctypes.c_ulong(flags), options))


def can_mount() -> bool:
    """Say whether this process can make disks."""
    return os.geteuid() == 0


def _require(failed: int) -> None:
    """Raise the error of the call that was made before, if it has failed."""
    if failed:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _library(folder: Path) -> Path:
    """Compile the library that is preloaded, into a folder."""
    compiled = folder / "settableclock.so"
    compiler = shutil.which("cc")
    assert compiler is not None, "a C compiler is needed to set the clocks of replicas"
    command = [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", str(compiled), str(_SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return compiled
