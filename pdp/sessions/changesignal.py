"""Notify all processes that share a store of a write; checking for one costs a read of memory.

Beside the database is a file whose first eight bytes every process maps. A writer puts a new random number there after
its commit and before it acknowledges: a reader that finds the number unchanged since its last read has missed no
acknowledged write. Asking the database instead would cost a tenth of a decision's time.

The same file says whether the store is in use: each process that has it open holds a shared lock on it.

After the number comes the revision that was acknowledged last. SQLite treats a damaged log as ending where the damage
begins, without an error: a store that is behind that revision has lost acknowledged writes. The revision is on disk
before it is written here, so after a crash of the machine this file holds the same revision or an earlier one.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path

from pdp.foundation.files import open_private

_LENGTH = 8
_CHECK_BYTES = 8


class ChangeSignal:
    """The number in the file at `path`, which is created when missing.

    Raise `BlockingIOError` while `unused` holds the store, and `OSError` when the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._at_close = path, 0
        with ExitStack() as opened:
            self._file = open_private(path)
            opened.callback(os.close, self._file)
            # The lock ends with the open file, also when the process is killed.
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if os.fstat(self._file).st_size < _LENGTH:
                # Write real bytes: reading a hole on a full disk would end the process.
                self.announce()
            self._map = mmap.mmap(self._file, _LENGTH, access=mmap.ACCESS_READ)
            opened.pop_all()

    def read(self) -> bytes:
        """Return the number of the latest announcement; empty after `close`.

        A number that is read while it is being written is only one more new number, and does no harm.
        """
        return b"" if self._map.closed else self._map[:]

    def announce(self, revision: int = 0) -> None:
        """Announce a write and the revision acknowledged now; 0 leaves the revision unchanged.

        Raise `OSError` when it cannot be announced.
        """
        os.pwrite(self._file, os.urandom(_LENGTH) + (_noted(revision) if revision else b""), 0)

    def acknowledged(self) -> int:
        """Return the revision acknowledged last, 0 when unknown; after `close`, the one at that time."""
        if self._map.closed:
            return self._at_close
        return _read_noted(self._file)

    def shared(self) -> bool:
        """Say whether a process that opens the path now would share this file."""
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._file))
        except OSError:
            return False

    def close(self) -> None:
        """Close the file. Calling it twice is harmless."""
        if not self._map.closed:
            self._at_close = self.acknowledged()
            self._map.close()
            os.close(self._file)


def forget_acknowledged(path: Path) -> None:
    """Forget the acknowledged revision, because another store replaces this one. Raise `OSError`."""
    if path.exists():
        file = open_private(path)
        try:
            os.pwrite(file, os.urandom(_LENGTH) + _noted(0), 0)
        finally:
            os.close(file)


def last_acknowledged(path: Path) -> int:
    """Return the revision acknowledged last, 0 when unknown. Raise `OSError`."""
    file = open_private(path)
    try:
        return _read_noted(file)
    finally:
        os.close(file)


@contextmanager
def unused(path: Path) -> Iterator[None]:
    """Keep every process from opening a store during the `with` block.

    Raise `BlockingIOError` when a process has it open, and `OSError` when the file cannot be used.
    """
    file = open_private(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(file)


def _read_noted(file: int) -> int:
    noted = os.pread(file, _LENGTH + _CHECK_BYTES, _LENGTH)
    revision = int.from_bytes(noted[:_LENGTH])
    return revision if noted == _noted(revision) else 0


def _noted(revision: int) -> bytes:
    # Two processes can write at once, and a crash can leave half of it: then the revision is unknown.
    noted = revision.to_bytes(_LENGTH)
    return noted + sha256(noted).digest()[:_CHECK_BYTES]
