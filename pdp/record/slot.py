"""A worker's slot in the folder: the chain that only this worker continues, and the state of its last segment."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pdp.foundation.files import lock_file, new_file
from pdp.record.disk import Disk
from pdp.record.envelope import CHECKPOINT, hash_of, parse_line, place_of
from pdp.record.segments import NO_HEAD, Head, Segment, head_of, lines_backwards, segments_by_chain

_CHAIN_BYTES = 6
_FINAL = b'"final":true'


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A chain that this process holds by `lock`, an open file.

    `head` is its latest record, `number` that of its latest segment (0 without one). `after` says how that ended:
    `closed`, `killed`, or `` when there is none. `cut_bytes` is the number of bytes at its end that were cut off.
    """

    chain: str
    lock: int
    head: Head = NO_HEAD
    number: int = 0
    after: str = ""
    cut_bytes: int = 0

    def release(self) -> None:
        """Let another process continue the chain."""
        os.close(self.lock)


def take_slot(folder: Path, disk: Disk, known: Mapping[str, Head] | None = None) -> Slot:
    """Take a chain that no live process holds, or begin a new one. What it continues is on the disk.

    `known` is the latest safe record of each chain: what a power failure left behind after it is cut off. None when
    none is known. Raise `OSError`.
    """
    chains = segments_by_chain(folder)
    for chain in chains:
        lock = lock_file(_lock_path(folder, chain))
        if lock is not None:
            try:
                return _continued(folder, chain, lock, disk, known)
            except BaseException:
                os.close(lock)
                raise
    while True:
        chain = secrets.token_hex(_CHAIN_BYTES)
        lock = lock_file(_lock_path(folder, chain))
        if lock is not None and chain not in chains:
            return Slot(chain=chain, lock=lock)


def held(folder: Path, chain: str) -> bool:
    """Say whether a live process of this machine holds a chain; False when unknown. Creates nothing."""
    path = _lock_path(folder, chain)
    try:
        lock = lock_file(path) if path.exists() else -1
    except OSError:
        return False
    if lock is None:
        return True
    if lock >= 0:
        os.close(lock)
    return False


def _continued(folder: Path, chain: str, lock: int, disk: Disk, known: Mapping[str, Head] | None) -> Slot:
    # Read again: the process that held the chain can have continued it since the folder was listed.
    segments = segments_by_chain(folder)[chain]
    sure = None if known is None else known.get(chain, NO_HEAD)
    cut = _repair(segments, disk, sure)
    while segments and not segments[-1].path.stat().st_size:
        # Stopped before its first line: nothing was written, so its number is free, and the previous segment is the
        # last.
        segments[-1].path.unlink()
        segments = segments[:-1]
        cut += _repair(segments, disk, sure) if segments else 0
    if not segments:
        return Slot(chain=chain, lock=lock, cut_bytes=cut)
    return Slot(
        chain=chain,
        lock=lock,
        head=head_of(segments),
        number=segments[-1].number,
        after="closed" if _is_closed(segments[-1].path) else "killed",
        cut_bytes=cut,
    )


def _repair(segments: tuple[Segment, ...], disk: Disk, sure: Head | None) -> int:
    """Cut off what cannot be continued, and sync the rest. Return how many bytes that cost.

    That is an incomplete last line, which a kill can leave, and all from the first line that does not follow its
    predecessor, which a power failure can leave after `sure`. The latter is kept in a separate file.
    """
    path = segments[-1].path
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW), "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        whole = end = _whole_lines(file, size)
        if sure is not None:
            end = _coherent(file, whole, segments, sure)
        if end < whole:
            _keep(file, end, path.with_suffix(".cut"))
        # Even when nothing is cut off: this frees what was allocated beyond the end.
        disk.truncate(file.fileno(), end)
        disk.sync(file.fileno())
    return size - end


def _whole_lines(file: BinaryIO, size: int) -> int:
    """Return the end of the last whole line."""
    place = size
    while place:
        start = max(0, place - (1 << 16))
        file.seek(start)
        found = file.read(place - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        place = start
    return 0


def _coherent(file: BinaryIO, whole: int, segments: tuple[Segment, ...], sure: Head) -> int:
    """Return the start of the first line that provably does not follow its predecessor.

    What was safely on the disk is left as it is, for `verify` to find; so is anything after the end of a segment.
    """
    # The safe record is in this segment or in an earlier one; if earlier, this one is judged from its beginning.
    judged, before = sure.seq <= head_of(segments[:-1]).seq, NO_HEAD
    place = 0
    file.seek(0)
    while place < whole:
        line = file.readline()[:-1]
        head = _following(line, segments[-1].chain, before if judged else NO_HEAD)
        # No line names the hash of the last line, and no earlier line names that of the first.
        alone = place in (0, whole - len(line) - 1)
        if judged and (head is None or (alone and parse_line(line) is None)):
            return place
        if judged and _ends(line):
            break
        judged, before = judged or head == sure, head or NO_HEAD
        place += len(line) + 1
    return whole


def _following(line: bytes, chain: str, before: Head) -> Head | None:
    """Return the head after a line; None unless it is a record of the chain that follows `before`."""
    place = place_of(line)
    if place is None or place.chain != chain:
        return None
    follows = before == NO_HEAD or (place.seq, place.prev) == (before.seq + 1, before.hash)
    return Head(place.seq, hash_of(line)) if follows else None


def _keep(file: BinaryIO, start: int, path: Path) -> None:
    file.seek(start)
    path.unlink(missing_ok=True)
    with new_file(path) as kept:
        shutil.copyfileobj(file, kept)


def _is_closed(path: Path) -> bool:
    return _ends(next(lines_backwards(path), b""))


def _ends(line: bytes) -> bool:
    """Say whether a line ends its segment."""
    record = parse_line(line) if _FINAL in line else None
    return record is not None and record.get("kind") == CHECKPOINT and record.get("final") is True


def _lock_path(folder: Path, chain: str) -> Path:
    return folder / f"record-{chain}.lock"
