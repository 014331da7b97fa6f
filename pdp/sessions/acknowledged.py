"""What is known to be acknowledged: by one process in memory, and by those of a machine in a file.

A database that lacks it has lost acknowledged writes. The number of a change does not show that alone: after another
server has taken the place of the primary, the same number can be another change. So its tag is known too.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import Final

from pdp.errors import StoreUnavailableError
from pdp.foundation.files import open_private, sync_folder
from pdp.model import Head

# How long to wait for another process, and before another try.
_SECONDS: Final = 2.0
_PAUSE_SECONDS: Final = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """An acknowledged change and the timeline of the server that had it. Tag and timeline are empty when unknown."""

    head: Head
    timeline: str = ""


NOTHING: Final = Known(head=Head(revision=0, tag=""))


class Acknowledged:
    """The latest change that this process, or its record, knows to be acknowledged. Safe for threads.

    A database that is behind it has lost acknowledged writes, and is used no longer. `seen` is the latest revision of
    which this process has heard at all. With `reads_count`, what a read shows is known to be acknowledged: not where
    commits wait for standbys, since one whose wait was cancelled can be read, and lost, and nobody was told of it.
    """

    def __init__(self, revision: int, *, reads_count: bool = True) -> None:
        self._lock = Lock()
        self._reads_count = reads_count
        self.known = Known(head=Head(revision=revision, tag=""))
        self.seen = revision

    @property
    def revision(self) -> int:
        """Return its revision."""
        return self.known.head.revision

    def require(self, revision: int, known: int) -> None:
        """See the revision of the database; raise `StoreUnavailableError` when that is behind what was `known`."""
        if revision < known:
            raise lacking(known - revision)
        self.see(revision)

    def see(self, revision: int, tag: str = "", timeline: str = "") -> None:
        """Note a revision that was read."""
        if self._reads_count:
            self.note(revision, tag, timeline)
            return
        with self._lock:
            self.seen = max(self.seen, revision)

    def note(self, revision: int, tag: str = "", timeline: str = "") -> None:
        """Note a revision that was acknowledged, with its tag and timeline where they are known."""
        with self._lock:
            self.seen = max(self.seen, revision)
            head = self.known.head
            if (revision, bool(tag)) > (head.revision, bool(head.tag)):
                self.known = Known(head=Head(revision=revision, tag=tag), timeline=timeline)


class AcknowledgedFile:
    """What the processes of a machine know to be acknowledged, in the file at `path`, which is created when missing.

    What is in it of another database than `deployment` is not read. Raise `OSError` when the file cannot be used, also
    when another process holds it for `seconds`.
    """

    def __init__(self, path: Path, *, deployment: str, seconds: float = _SECONDS) -> None:
        self._deployment = deployment
        self._seconds = seconds
        # The lock of the file is between processes, this one between threads.
        self._lock = Lock()
        self._file = open_private(path)
        size = os.fstat(self._file).st_size
        if size < _LENGTH:
            # Its name and its place are on the disk before anything is in it. What is left of one that was cut stays.
            os.pwrite(self._file, bytes(_LENGTH - size), size)
            os.fsync(self._file)
            sync_folder(path.parent)

    def read(self) -> Known:
        """Return the latest change in it, `NOTHING` without one."""
        with self._locked(fcntl.LOCK_SH):
            return max(self._slots(), key=_revision_of)

    def keep(self, known: Known) -> None:
        """Write a change, durably, unless a later one is there."""
        with self._locked(fcntl.LOCK_EX):
            slots = self._slots()
            if known.head.revision <= max(map(_revision_of, slots)):
                return
            # INVARIANT: the older one is overwritten, so that a loss of power leaves one of them whole.
            place = slots.index(min(slots, key=_revision_of)) * _SLOT
            os.pwrite(self._file, self._record(known), place)
            os.fdatasync(self._file)

    def close(self) -> None:
        """Close the file. Calling it twice is harmless."""
        with self._lock:
            file, self._file = self._file, -1
            if file >= 0:
                os.close(file)

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        with self._lock:
            if self._file < 0:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            self._take(how)
            try:
                yield
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _take(self, how: int) -> None:
        # Not by a wait of the system, which has no end: a process can be stopped while it holds the lock.
        gives_up_at = time.monotonic() + self._seconds
        while True:
            try:
                fcntl.flock(self._file, how | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= gives_up_at:
                    raise OSError(errno.ETIMEDOUT, "another process holds its file") from None
                time.sleep(_PAUSE_SECONDS)
            else:
                return

    def _slots(self) -> list[Known]:
        return [self._parsed(os.pread(self._file, _RECORD.size + _DIGEST, place)) for place in (0, _SLOT)]

    def _record(self, known: Known) -> bytes:
        texts = (text.encode() for text in (self._deployment, known.timeline, known.head.tag))
        record = _RECORD.pack(known.head.revision, *texts)
        return record + _digest(record)

    def _parsed(self, content: bytes) -> Known:
        record = content[: _RECORD.size]
        if content != record + _digest(record):
            return NOTHING
        revision, *texts = _RECORD.unpack(record)
        deployment, timeline, tag = (text.rstrip(b"\0").decode() for text in texts)
        if deployment != self._deployment:
            return NOTHING
        return Known(head=Head(revision=revision, tag=tag), timeline=timeline)


def lacking(changes: int) -> StoreUnavailableError:
    """Return the error about a database that has lost acknowledged changes; 0 for an unknown number of them."""
    return StoreUnavailableError(
        f"the session store lacks {f'the last {changes}' if changes else 'latest'} changes that it acknowledged: an "
        "older state of the database has taken its place; to go on with it, see `pdp store restore`"
    )


# The revision, the deployment, the timeline and the tag.
_RECORD: Final = struct.Struct(">Q64s16s64s")
_DIGEST: Final = 16
# Two records, in blocks of their own: no write touches both.
_SLOT: Final = 4096
_LENGTH: Final = 2 * _SLOT


def _digest(record: bytes) -> bytes:
    return blake2b(record, digest_size=_DIGEST).digest()


def _revision_of(known: Known) -> int:
    return known.head.revision
