"""Tell all processes that share a store that something was written, at the cost of a look into memory.

Beside the database lies a file of eight bytes that every process maps. A writer puts a fresh random number there after
its commit and before it acknowledges: who finds the number that it found before its last look has missed no
acknowledged write. A look into the database instead costs a decision a tenth of its time.

The same file says whether the store is in use: each process that has it open shares a lock on it.

Behind the number stands the revision that was acknowledged last. SQLite takes a damaged log to end where the damage
begins, without a word: a store that is behind that revision has lost what it acknowledged. The revision is on the disk
before it is written here, so that a crash of the machine leaves the same one or an earlier one.
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
    """The number in the file at `path`, which is made when it is missing.

    Raise `BlockingIOError` while the store is `unused` for somebody, and `OSError` when the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._at_close = path, 0
        with ExitStack() as opened:
            self._file = open_private(path)
            opened.callback(os.close, self._file)
            # Goes with the file, also when the process is killed.
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if os.fstat(self._file).st_size < _LENGTH:
                # Bytes that exist: reading a hole on a full disk would end the process.
                self.announce()
            self._map = mmap.mmap(self._file, _LENGTH, access=mmap.ACCESS_READ)
            opened.pop_all()

    def read(self) -> bytes:
        """Return the number of the latest announcement; nothing once it is closed.

        A number read while it is being written is one more number that nobody saw before, and does no harm.
        """
        return b"" if self._map.closed else self._map[:]

    def announce(self, revision: int = 0) -> None:
        """Say that something was written, and which revision is acknowledged now; 0 leaves that as it was.

        Raise `OSError` when others cannot be told.
        """
        os.pwrite(self._file, os.urandom(_LENGTH) + (_noted(revision) if revision else b""), 0)

    def acknowledged(self) -> int:
        """Return the revision that was acknowledged last, as far as that is known, otherwise 0; once closed, then."""
        if self._map.closed:
            return self._at_close
        noted = os.pread(self._file, _LENGTH + _CHECK_BYTES, _LENGTH)
        revision = int.from_bytes(noted[:_LENGTH])
        return revision if noted == _noted(revision) else 0

    def shared(self) -> bool:
        """Say whether a process that opens the path now would share this number."""
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._file))
        except OSError:
            return False

    def close(self) -> None:
        """Close the file. Twice is harmless."""
        if not self._map.closed:
            self._at_close = self.acknowledged()
            self._map.close()
            os.close(self._file)


def forget_acknowledged(path: Path) -> None:
    """Forget the revision that was acknowledged last: another store takes the place of this one. Raise `OSError`."""
    if path.exists():
        file = open_private(path)
        try:
            os.pwrite(file, os.urandom(_LENGTH) + _noted(0), 0)
        finally:
            os.close(file)


@contextmanager
def unused(path: Path) -> Iterator[None]:
    """Keep everybody from opening a store for as long as the `with` block runs.

    Raise `BlockingIOError` when somebody has it open, and `OSError` when the file cannot be used.
    """
    file = open_private(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(file)


def _noted(revision: int) -> bytes:
    # Two processes may write at once, and a crash may leave half of it: then nothing is known.
    noted = revision.to_bytes(_LENGTH)
    return noted + sha256(noted).digest()[:_CHECK_BYTES]
