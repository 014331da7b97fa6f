"""The lease of a machine in a file that all of its servers map, so that reading it costs a read of memory.

One server at a time renews it: the one that holds the lock of the file, which ends with the process. When it has only
stopped, nobody takes over, and the lease runs out.

A record ends with its digest. A reader that finds half of an old record and half of a new one finds no lease. Unlike
an odd and an even number, this also holds when a writer is killed half-way, and on processors that show writes in
another order.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from contextlib import ExitStack
from hashlib import blake2b
from typing import Final

from pdp.clock import Clock, Instant
from pdp.foundation.files import open_private
from pdp.model import Head
from pdp.sessions.lease import Lease, LeaseTerms

# The deployment, the boot, both clocks, the length, how far behind, the revision, the tag and the timeline.
_RECORD: Final = struct.Struct(">64s64sddddQ64s16s")
_DIGEST_BYTES: Final = 16
_LENGTH: Final = _RECORD.size + _DIGEST_BYTES
_NONE: Final = bytes(_LENGTH)


class LeasePage:
    """The file of `terms`, which is created when missing; `deployment` names the database. Any thread may read it.

    What is in it for another database, or from before the machine was started, is no lease. Raise `OSError` when the
    file cannot be used.
    """

    def __init__(self, terms: LeaseTerms, *, deployment: str) -> None:
        self._clock: Clock = terms.clock
        self._deployment = deployment
        self._holds = False
        with ExitStack() as opened:
            self._file = open_private(terms.file)
            opened.callback(os.close, self._file)
            if os.fstat(self._file).st_size < _LENGTH:
                # Real bytes: reading a hole on a full disk would end the process. None are there, so none are lost.
                os.pwrite(self._file, _NONE, 0)
            self._map = mmap.mmap(self._file, _LENGTH, access=mmap.ACCESS_READ)
            opened.pop_all()
        self._read: tuple[bytes, Lease | None] = (b"", None)

    def held(self) -> Lease | None:
        """Return the lease under which memory may answer now; None without one."""
        # INVARIANT: the page is read before the clock, so that a pause between the two ends the lease, if anything.
        lease = self.lease()
        return lease if lease is not None and lease.holds(self._clock.now()) else None

    def lease(self) -> Lease | None:
        """Return the lease that was published last, whether it still holds or not; None without one."""
        try:
            content = self._map[:]
        except ValueError:
            # It is closed.
            return None
        read = self._read
        if content != read[0]:
            read = self._read = content, self._parsed(content)
        return read[1]

    def hold(self) -> bool:
        """Become the one that renews, if there is no other; say whether this one is."""
        if not self._holds:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            self._holds = True
        return True

    def publish(self, lease: Lease | None) -> None:
        """Give all servers of the machine a lease, or take it away. Only for the one that renews.

        Raise `OSError` when it cannot be written.
        """
        record = _NONE if lease is None else self._record(lease)
        if os.pwrite(self._file, record, 0) != _LENGTH:
            raise OSError("the lease was written in part")

    def close(self) -> None:
        """Close the file, and give up its lock. Calling it twice is harmless."""
        if not self._map.closed:
            self._map.close()
            os.close(self._file)

    def _record(self, lease: Lease) -> bytes:
        begun, head = lease.begun, lease.head
        texts = self._deployment, begun.boot_id, head.tag, lease.timeline
        deployment, boot, tag, timeline = (text.encode() for text in texts)
        numbers = (begun.wall_at, begun.boot_at, lease.seconds, lease.behind, head.revision)
        record = _RECORD.pack(deployment, boot, *numbers, tag, timeline)
        return record + _digest(record)

    def _parsed(self, content: bytes) -> Lease | None:
        record = content[: _RECORD.size]
        if content != record + _digest(record):
            return None
        *texts, wall_at, boot_at, seconds, behind, revision, tag, timeline = _RECORD.unpack(record)
        deployment, boot, tag, timeline = (text.rstrip(b"\0").decode() for text in (*texts, tag, timeline))
        if deployment != self._deployment:
            return None
        return Lease(
            head=Head(revision=revision, tag=tag),
            begun=Instant(wall_at=wall_at, boot_at=boot_at, boot_id=boot),
            seconds=seconds,
            behind=behind,
            timeline=timeline,
        )


class LeaseStanding:
    """Whether the machine of a page has a lease, and since when, for those who watch it. Safe for threads."""

    def __init__(self, page: LeasePage, clock: Clock) -> None:
        self._page, self._clock = page, clock
        self._begun_at = clock.now().boot_at

    def held(self) -> bool:
        """Say whether memory may answer now."""
        return self._page.held() is not None

    def timeline(self) -> str | None:
        """Return the timeline of the server that gave the lease under which memory may answer now; None without one."""
        lease = self._page.held()
        return None if lease is None else lease.timeline

    def age(self) -> float:
        """Return how many seconds ago the last lease began; without one, how long there has been none."""
        lease, now = self._page.lease(), self._clock.now()
        if lease is not None and lease.begun.boot_id == now.boot_id:
            self._begun_at = lease.begun.boot_at
        return now.boot_at - self._begun_at


def _digest(record: bytes) -> bytes:
    return blake2b(record, digest_size=_DIGEST_BYTES).digest()
