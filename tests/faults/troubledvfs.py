"""SQLite's files on a disk that is given trouble: a full one, a read-only one, one that fails, one that hangs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import apsw

_NAME = "pdp-test-trouble"


class Trouble:
    """What the disk does at present: writes and syncs that fail, or everything that waits until it is let go."""

    def __init__(self) -> None:
        self.writes: type[apsw.Error] | None = None
        self.syncs: type[apsw.Error] | None = None
        self._flows = threading.Event()
        self._flows.set()

    def hang(self) -> None:
        """Let every read, write and sync wait from now on."""
        self._flows.clear()

    def heal(self) -> None:
        """Let everything go as it should."""
        self.writes = self.syncs = None
        self._flows.set()

    def meet(self, error: type[apsw.Error] | None) -> None:
        """Wait while the disk hangs, and fail if it does."""
        self._flows.wait()
        if error is not None:
            raise error("the disk was given trouble")


@contextmanager
def troubled() -> Iterator[Trouble]:
    """Have SQLite use a disk that can be given trouble for as long as the `with` block runs."""
    trouble, usual = Trouble(), apsw.vfs_names()[0]
    vfs = _VFS(trouble, usual)
    apsw.set_default_vfs(_NAME)
    try:
        yield trouble
    finally:
        trouble.heal()
        apsw.set_default_vfs(usual)
        vfs.unregister()


class _VFS(apsw.VFS):
    def __init__(self, trouble: Trouble, base: str) -> None:
        self._trouble, self._base = trouble, base
        super().__init__(_NAME, base)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        opened = _File(self._base, name, flags)
        opened.trouble = self._trouble
        return opened


class _File(apsw.VFSFile):
    trouble: Trouble

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802 - SQLite's name
        self.trouble.meet(None)
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's name
        self.trouble.meet(self.trouble.writes)
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        self.trouble.meet(self.trouble.syncs)
        super().xSync(flags)
