"""Reserve disk space for what ends authority: on a full disk a revocation works, an approval does not."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from pdp.errors import StoreUnavailableError
from pdp.foundation.diskroom import allocate, free_bytes
from pdp.foundation.files import new_file

# The first write of a start: the shared memory of the log.
_START_BYTES = 256 * 1024


class Room:
    """The reserve of one store: `reserve` bytes, kept in each of three ways; 0 keeps none.

    Other writes stop while less is free on the disk. The store's log is allocated that much in advance. A file beside
    the store occupies as much, and is removed when a write that ends authority needs the space.
    """

    def __init__(self, store: Path, reserve: int) -> None:
        self._store, self._reserve = store, reserve
        self._file = store.with_name(f"{store.name}-reserve")
        self._log = store.with_name(f"{store.name}-wal")

    def require(self) -> None:
        """Raise `StoreUnavailableError` when the free space is reserved for ending authority."""
        if self._reserve and self.short():
            raise StoreUnavailableError(
                "the disk of the session store is nearly full: sessions can be ended and narrowed, but not opened"
            )

    def short(self) -> bool:
        """Say whether less than the reserve is free on the disk."""
        return self._left() < self._reserve

    def keep(self) -> None:
        """Create the reserve file where it is missing, when the disk has room for it."""
        if not self._reserve or self._file.exists() or self._left() < 2 * self._reserve:
            return
        # Another process can be doing the same; and a disk that has just filled up needs no message here.
        with suppress(OSError), new_file(self._file) as file:
            os.posix_fallocate(file.fileno(), 0, self._reserve)

    def prepare_log(self) -> None:
        """Allocate the log in advance, as far as there is room. The log exists once the store is open."""
        with suppress(OSError):
            # SQLite keeps its locks on other files, so this file can be opened and closed here.
            file = os.open(self._log, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                allocate(file, 0, self._reserve)
            finally:
                os.close(file)

    def prepare_start(self) -> None:
        """Remove the reserve file when there is not even room for opening the store."""
        if self._reserve and self._left() < _START_BYTES:
            self.give_up()

    def give_up(self) -> bool:
        """Remove the reserve file if the disk is nearly full; say whether there was one."""
        if not self.short():
            return False
        try:
            self._file.unlink()
        except OSError:
            return False
        return True

    def _left(self) -> float:
        try:
            return free_bytes(self._store.parent)
        except OSError:
            # A missing folder is reported elsewhere.
            return float("inf")
