"""A worker's place in the folder: the chain that it alone goes on with, and how its last segment was left."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from pdp.record.disk import lock_file
from pdp.record.envelope import CHECKPOINT, parse_line
from pdp.record.segments import NO_HEAD, Head, head_of, lines_backwards, segments_by_chain

_CHAIN_BYTES = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A chain that this process holds by `lock`, an open file.

    `head` is its latest record, `number` that of its latest segment (0 without one). `after` says how that ended:
    `closed`, `killed`, or `` when there is none. `cut_bytes` were an incomplete last line and have been cut off.
    """

    chain: str
    lock: int
    head: Head = NO_HEAD
    number: int = 0
    after: str = ""
    cut_bytes: int = 0

    def release(self) -> None:
        """Let another process go on with the chain."""
        os.close(self.lock)


def take_slot(folder: Path) -> Slot:
    """Take a chain that no live process holds, or begin a new one. Raise `OSError`."""
    chains = segments_by_chain(folder)
    for chain in chains:
        lock = lock_file(_lock_path(folder, chain))
        if lock is not None:
            try:
                return _continued(folder, chain, lock)
            except BaseException:
                os.close(lock)
                raise
    while True:
        chain = secrets.token_hex(_CHAIN_BYTES)
        lock = lock_file(_lock_path(folder, chain))
        if lock is not None and chain not in chains:
            return Slot(chain=chain, lock=lock)


def held(folder: Path, chain: str) -> bool:
    """Say whether a live process of this machine holds a chain. Nothing is made; False when that cannot be told."""
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


def other_heads(folder: Path, chain: str) -> dict[str, str]:
    """Return the latest record of every other chain, as `seq:hash`: what can no longer be cut off unnoticed."""
    heads = {other: head_of(found) for other, found in segments_by_chain(folder).items() if other != chain}
    return {other: f"{head.seq}:{head.hash}" for other, head in heads.items() if head.seq}


def _continued(folder: Path, chain: str, lock: int) -> Slot:
    # Read again: the process that held the chain may have gone on since the folder was looked at.
    segments = segments_by_chain(folder)[chain]
    cut = _repair(segments[-1].path)
    if not segments[-1].path.stat().st_size:
        # Killed before the first line: nothing was written, so the number is free.
        segments[-1].path.unlink()
        segments = segments[:-1]
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


def _repair(path: Path) -> int:
    """Cut an incomplete last line off and nothing else; return how many bytes it had."""
    whole = 0
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW), "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        place = size
        while place and not whole:
            start = max(0, place - (1 << 16))
            file.seek(start)
            found = file.read(place - start).rfind(b"\n")
            whole, place = (start + found + 1 if found >= 0 else 0), start
        if whole < size:
            file.truncate(whole)
            os.fsync(file.fileno())
    return size - whole


def _is_closed(path: Path) -> bool:
    last = parse_line(next(lines_backwards(path), b""))
    return last is not None and last.get("kind") == CHECKPOINT and last.get("final") is True


def _lock_path(folder: Path, chain: str) -> Path:
    return folder / f"record-{chain}.lock"
