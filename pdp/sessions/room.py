"""Keep the last room on a store's disk for what ends authority: a revocation works on a full disk, an approval not."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from pdp.errors import StoreUnavailableError
from pdp.foundation.diskroom import allocate, free_bytes
from pdp.foundation.files import new_file

# What a start writes before anything else: the shared memory of the log.
_START_BYTES = 256 * 1024


class Room:
    """The room of one store, of which `reserve` bytes are kept in each of three ways; 0 keeps none.

    Other writes stop while less is left on the disk. The store's log has so much room before it is written, and a file
    beside the store takes up as much, which is given up when a write that ends authority needs it.
    """

    def __init__(self, store: Path, reserve: int) -> None:
        self._store, self._reserve = store, reserve
        self._file = store.with_name(f"{store.name}-reserve")
        self._log = store.with_name(f"{store.name}-wal")

    def require(self) -> None:
        """Raise `StoreUnavailableError` when what is left is for ending authority alone."""
        if self._reserve and self.short():
            raise StoreUnavailableError(
                "the disk of the session store is nearly full: sessions can be ended and narrowed, and not opened"
            )

    def short(self) -> bool:
        """Say whether less than the reserve is left on the disk."""
        return self._left() < self._reserve

    def keep(self) -> None:
        """Make the reserve where it is missing, when the disk has room for it."""
        if not self._reserve or self._file.exists() or self._left() < 2 * self._reserve:
            return
        # Another process may be doing the same; and a disk that has just filled up needs no word here.
        with suppress(OSError), new_file(self._file) as file:
            os.posix_fallocate(file.fileno(), 0, self._reserve)

    def prepare_log(self) -> None:
        """Give the log its room, as far as there is any. It exists once the store is open."""
        with suppress(OSError):
            # SQLite keeps its locks on other files, so this one may be opened and closed beside it.
            file = os.open(self._log, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                allocate(file, 0, self._reserve)
            finally:
                os.close(file)

    def prepare_start(self) -> None:
        """Give the reserve up when there is not even room for opening the store."""
        if self._reserve and self._left() < _START_BYTES:
            self.give_up()

    def give_up(self) -> bool:
        """Give the reserve up if the disk is nearly full; say whether there was one."""
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
            # A folder that is gone has its own error.
            return float("inf")
