"""Write one chain: consecutive segments, each record naming the previous one, and signed checkpoints."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from math import inf
from pathlib import Path
from typing import NamedTuple

from pdp.record.disk import Disk, in_place
from pdp.record.envelope import CHECKPOINT, OPENED, STORE_REVISION, Place, own_body, placed
from pdp.record.keys import SigningKey
from pdp.record.segments import Head, segment_of
from pdp.record.slot import take_slot

# A checkpoint follows this many records even before the interval is over.
UNSIGNED_RECORDS = 1000
# A segment that could not be ended continues for this long before the next attempt.
_POSTPONED_BYTES, _POSTPONED_SECONDS = 1024 * 1024, 60.0
# A segment's disk space is allocated before it is needed, in steps of a part of the reserve for urgent records.
_STEP_PART, _LEAST_STEP = 4, 4096


class _End(NamedTuple):
    """What a checkpoint says about its segment: whether it ends here, and whether another segment follows."""

    final: bool
    followed: bool


_GOES_ON = _End(final=False, followed=False)
_ROTATED = _End(final=True, followed=True)
_CLOSED = _End(final=True, followed=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """When a segment ends and the next one begins: at a size in bytes, or some seconds after its start."""

    bytes: int = 64 * 1024 * 1024
    seconds: float = 24 * 3600.0


class Reached(NamedTuple):
    """How far a chain has come: its latest record, the number of its segment, and the size of that in bytes.

    `ended` says that its writer no longer writes.
    """

    chain: str
    head: Head
    number: int
    size: int
    ended: bool


class Chain:
    """One worker's chain in a folder. Not for several threads at once; `now` returns unix seconds.

    `known` is the latest safe record of each chain, None when none is known. `lost` are chains that no longer hold
    their known record; the first segment lists them. `heads` returns, for each segment, the records of other chains
    that cannot be cut off unnoticed from then on. `store_revision` returns the change of the session store up to which
    each change is in the record or was never made: checkpoints carry it, unless it is 0. `origin` is where the chain
    is written: fields for the first record of each segment.

    A segment's disk space is allocated before it is written. Its last `reserve` bytes are for urgent records; when no
    more space can be allocated, or only that much is left on the disk, only urgent records are written.

    INVARIANT: `seq` and the hash advance only when the operating system has accepted a whole line, so that the next
    line always follows what is there. Methods raise `OSError`; the next call tries again what they did not do.
    """

    def __init__(
        self,
        folder: Path,
        *,
        signer: SigningKey,
        now: Callable[[], float],
        mode: str,
        rotation: Rotation,
        disk: Disk,
        known: Mapping[str, Head] | None,
        lost: Mapping[str, str],
        heads: Callable[[], Mapping[str, Head]],
        reserve: int,
        store_revision: Callable[[], int],
        origin: Mapping[str, str],
    ) -> None:
        self._reserve, self._step = reserve, max(reserve // _STEP_PART, _LEAST_STEP)
        self._room = self._limit = inf
        self._lost, self._heads, self._store_revision, self._origin = lost, heads, store_revision, origin
        self._folder, self._signer, self._now = folder, signer, now
        self._mode, self._rotation, self._disk = mode, rotation, disk
        self._slot = take_slot(folder, disk, known)
        self._held = True
        self.id = self._slot.chain
        self.seq, self._hash = self._slot.head.seq, self._slot.head.hash.encode()
        self._number, self._after, self._cut_bytes = self._slot.number, self._slot.after, self._slot.cut_bytes
        self._file, self._size, self._largest, self._ends_at = -1, 0, rotation.bytes, 0.0
        # The latest record of the previous segment.
        self._seq_before = self.seq
        self._unsigned, self.synced_seq = 0, self.seq
        self.generation, self._given_up = 0, dict[int, int]()
        # `due`: the next record must wait for a segment to open or end, or for a signature. `postponed`: an end that
        # was due has failed.
        self.due, self.postponed = True, False
        # The end of every line of this chain, after the fields.
        self._mark = b',"chain":"%b","seq":' % self.id.encode()
        try:
            self.open()
        except BaseException:
            self.close()
            raise

    @property
    def path(self) -> Path:
        """Return the file of the present segment, or of the latest one."""
        return segment_of(self._folder, self.id, self._number).path

    @property
    def head(self) -> Head:
        """Return the latest record."""
        return Head(self.seq, self._hash.decode())

    @property
    def reached(self) -> Reached:
        """Return how far it has come."""
        return Reached(self.id, self.head, self._number, self._size, ended=not self._held)

    @property
    def is_open(self) -> bool:
        """Say whether there is an open segment."""
        return self._file >= 0

    @property
    def unsigned(self) -> int:
        """Return how many records no checkpoint covers yet."""
        return self._unsigned

    @property
    def awaits_signature(self) -> bool:
        """Say whether a signature is due, and nothing else: for that nobody has to wait for the disk."""
        return self._file >= 0 and self._unsigned >= UNSIGNED_RECORDS and self._size < self._largest

    def open(self) -> None:
        """Begin a segment unless one is open."""
        if self._file < 0:
            self._begin(*self._create(self._number + 1))

    def append(self, body: bytes, *, urgent: bool = False) -> None:
        """Write one record. When this raises, the record is not written."""
        self.append_all((body,), urgent=urgent)

    def append_all(self, bodies: Sequence[bytes], *, urgent: bool = False) -> None:
        """Write records together. When this raises, none of them is written."""
        lines: list[bytes] = []
        before = self._hash
        for seq, body in enumerate(bodies, self.seq + 1):
            line = b'%b%b%d,"prev":"%b"}' % (body, self._mark, seq, before)
            before = sha256(line).hexdigest().encode()
            lines += line, b"\n"
        self._write(b"".join(lines), urgent=urgent)
        self._hash = before
        self.seq += len(bodies)
        self._unsigned += len(bodies)
        if self._unsigned >= UNSIGNED_RECORDS or self._size >= self._largest:
            self.due = True

    def keep_up(self) -> None:
        """End a segment that is large or old, and sign when a checkpoint is due."""
        if self._file < 0:
            return
        if self._unsigned >= UNSIGNED_RECORDS:
            self.checkpoint()
        if self._size >= self._largest or self._now() >= self._ends_at:
            self.rotate()

    def removed(self) -> int:
        """Abandon the present segment if its file is gone. Return how many of its records are lost."""
        if self._file < 0 or in_place(self._file, self.path):
            return 0
        self.abandon()
        return self.seq - self._seq_before

    def checkpoint(self) -> None:
        """Sign the records so far, unless all are signed."""
        if self._file >= 0 and self._unsigned:
            self._write_checkpoint(_GOES_ON)

    def require_room(self) -> None:
        """Allocate space for records that are not urgent, in an open segment. Raise `OSError` when there is none."""
        self.open()
        while self._size >= self._limit:
            self._grow(urgent=False)

    def rotate(self) -> None:
        """End the segment with a signed checkpoint and begin the next one.

        The next file is created first: while that fails, the present one continues.
        """
        # After a failure, do not try again at every record.
        self._largest, self._ends_at = self._size + _POSTPONED_BYTES, self._now() + _POSTPONED_SECONDS
        self.postponed, self.due = True, False
        following, room = self._create(self._number + 1)
        try:
            self._write_checkpoint(_ROTATED)
            self._sync()
        except OSError:
            self._remove(following)
            raise
        self._give_back()
        self._file, self._after, self.synced_seq, self.due = -1, "closed", self.seq, True
        self._begin(following, room)

    def duplicate(self) -> int:
        """Return a separate descriptor of the present segment, to sync it while others write."""
        return os.dup(self._file)

    def synced(self, seq: int) -> None:
        """Note that all records up to this one are on the disk."""
        self.synced_seq = max(self.synced_seq, seq)

    def on_disk(self, generation: int, seq: int) -> bool | None:
        """Say whether a record of a generation is safely on the disk; None while that is open.

        A generation ends with each segment that was abandoned; what was not synced by then never will be.
        """
        if generation != self.generation:
            return seq <= self._given_up[generation]
        return True if seq <= self.synced_seq else None

    def abandon(self) -> None:
        """Write no more to the present segment: after a failed sync it is unknown what is on the disk."""
        if self._file >= 0:
            os.close(self._file)
            self._file, self._after, self.due = -1, "failed", True
            self._given_up[self.generation] = self.synced_seq
            self.generation += 1

    def close(self) -> None:
        """End the segment with a signed checkpoint and release the chain. Calling it twice is harmless."""
        try:
            if self._file >= 0:
                self._write_checkpoint(_CLOSED)
                self._sync()
        finally:
            if self._file >= 0:
                self._give_back()
                self._file = -1
            if self._held:
                self._held = False
                self._slot.release()

    def _create(self, number: int) -> tuple[int, float]:
        """Create a segment. Return its descriptor and the size it can reach before it needs more space."""
        path = segment_of(self._folder, self.id, number).path
        file = self._disk.open_new(path)
        try:
            # Otherwise, after a power failure, data that was synced could lack a name.
            self._disk.sync_folder(self._folder)
            return file, self._first_room(file)
        except OSError:
            self._remove(file)
            raise

    def _first_room(self, file: int) -> float:
        if not self._reserve:
            return inf
        wanted = self._reserve + self._step
        try:
            return wanted if self._disk.allocate(file, 0, wanted) else inf
        except OSError:
            # A chain that begins on a full disk still takes urgent records, as far as there is space.
            left = min(self._reserve, self._disk.free(file) // 2)
            return left if left and self._disk.allocate(file, 0, left) else 0

    def _grow(self, *, urgent: bool) -> None:
        """Allocate more space. Raise `OSError` when the rest of the disk is for urgent records."""
        try:
            if self._disk.free(self._file) < self._reserve + self._step:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            more = self._disk.allocate(self._file, int(self._room), self._step)
            self._take_room(self._room + self._step if more else inf)
        except OSError:
            # Urgent records are written as long as there is space.
            if not urgent:
                raise

    def _take_room(self, room: float) -> None:
        """Note how far the segment can grow, and how far with records that are not urgent."""
        self._room, self._limit = room, room - self._reserve

    def _give_back(self) -> None:
        """Close the segment, and free the space it did not use."""
        with suppress(OSError):
            self._disk.truncate(self._file, self._size)
        os.close(self._file)

    def _sync(self) -> None:
        try:
            self._disk.sync(self._file)
        except OSError:
            self.abandon()
            raise

    def _remove(self, following: int) -> None:
        os.close(following)
        self._unlink()

    def _unlink(self) -> None:
        segment_of(self._folder, self.id, self._number + 1).path.unlink(missing_ok=True)

    def _begin(self, file: int, room: float) -> None:
        """Write the first record of a segment and sign it at once, so that its predecessor is certain."""
        at = self._now()
        opening = own_body(
            OPENED,
            at,
            after=self._after,
            cut_bytes=self._cut_bytes,
            heads={chain: f"{head.seq}:{head.hash}" for chain, head in self._heads().items() if chain != self.id},
            key=self._signer.id,
            lost=dict(self._lost),
            mode=self._mode,
            number=self._number + 1,
            pid=os.getpid(),
            synced_seq=self.synced_seq,
            **self._origin,
        )
        line = placed(opening, Place(self.id, self.seq + 1, self._hash.decode()))
        signed = self._checkpoint_line(self.seq + 2, sha256(line).hexdigest(), at, _GOES_ON)
        self._file, self._size = file, 0
        self._take_room(room)
        after = self._after
        try:
            self._write(line + b"\n" + signed + b"\n", urgent=True)
        except OSError:
            self.abandon()
            self._after = after
            self._unlink()
            raise
        self._seq_before = self.seq
        self.seq, self._hash, self._unsigned = self.seq + 2, sha256(signed).hexdigest().encode(), 0
        self.due = False
        self._number, self._cut_bytes, self._lost = self._number + 1, 0, {}
        self._largest, self._ends_at = self._rotation.bytes, at + self._rotation.seconds
        self.postponed = False

    def _write_checkpoint(self, end: _End) -> None:
        line = self._checkpoint_line(self.seq + 1, self._hash.decode(), self._now(), end)
        self._write(line + b"\n", urgent=True)
        self.seq, self._hash, self._unsigned = self.seq + 1, sha256(line).hexdigest().encode(), 0
        self.due = self._size >= self._largest

    def _checkpoint_line(self, seq: int, prev: str, at: float, end: _End) -> bytes:
        revision = self._store_revision()
        known = {STORE_REVISION: revision} if revision else {}
        place, fields = Place(self.id, seq, prev), {**end._asdict(), "key": self._signer.id, **known}
        signature = self._signer.sign(placed(own_body(CHECKPOINT, at, **fields), place))
        return placed(own_body(CHECKPOINT, at, **fields, signature=signature), place)

    def _write(self, data: bytes, *, urgent: bool) -> None:
        if urgent and self._size + len(data) > self._room:
            self._grow(urgent=True)
        # What is not urgent can be more than one step: the decisions of a turn, or those after many that were urgent.
        while not urgent and self._size + len(data) > self._limit:
            self._grow(urgent=False)
        done = 0
        try:
            done = self._disk.write(self._file, data)
            while done < len(data):
                # A full disk first shortens a write and then refuses the rest.
                done += self._disk.write(self._file, data[done:])
        except OSError:
            if done:
                self._cut_back()
            raise
        self._size += len(data)

    def _cut_back(self) -> None:
        try:
            self._disk.truncate(self._file, self._size)
        except OSError:
            self.abandon()
