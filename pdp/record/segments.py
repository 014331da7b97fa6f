"""The files of the record: list them, group them by chain, and read their ends.

A chain is what one worker writes, across restarts: `record-<chain>-<number>.jsonl`, numbered from 1.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pdp.limits import RECORD_LINE_BYTES
from pdp.record.envelope import NOTHING_BEFORE, hash_of, place_of

_NAME = re.compile(r"record-([0-9a-f]{12})-([0-9]{6,})\.jsonl")
_WRITTEN_HEAD = re.compile(r"([0-9]{1,19}):(.*)")
_BLOCK_BYTES = 1 << 16


class Segment(NamedTuple):
    """One file of one chain."""

    chain: str
    number: int
    path: Path


class Head(NamedTuple):
    """The latest record of a chain: its number and its hash."""

    seq: int
    hash: str


NO_HEAD = Head(0, NOTHING_BEFORE)


def head_written(text: str) -> Head | None:
    """Return the head that is written as `seq:hash`; None for another text, also for a number that no record has."""
    match = _WRITTEN_HEAD.fullmatch(text)
    return Head(int(match[1]), match[2]) if match else None


def segment_of(folder: Path, chain: str, number: int) -> Segment:
    """Return the segment of this number, with its path."""
    return Segment(chain, number, folder / f"record-{chain}-{number:06d}.jsonl")


def segment_named(folder: Path, name: str) -> Segment | None:
    """Return the segment with the name of a file; None for a name that no segment has."""
    match = _NAME.fullmatch(name)
    return Segment(match[1], int(match[2]), folder / name) if match else None


def segments_by_chain(folder: Path) -> Mapping[str, tuple[Segment, ...]]:
    """Return the segments of each chain in order. Raise `OSError` when the folder cannot be read."""
    found: dict[str, list[Segment]] = {}
    for path in folder.iterdir():
        if match := _NAME.fullmatch(path.name):
            found.setdefault(match[1], []).append(Segment(match[1], int(match[2]), path))
    return {chain: tuple(sorted(found[chain], key=lambda one: one.number)) for chain in sorted(found)}


def open_segment(path: Path) -> BinaryIO:
    """Open a segment for reading. Raise `OSError` for what is not a file.

    In a folder from others, a pipe would never answer and a device never end.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is not a file", str(path))
    return os.fdopen(descriptor, "rb")


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """Yield lines; of one that is too long for a record, only an end."""
    while line := file.readline(RECORD_LINE_BYTES):
        yield line if line.endswith(b"\n") or len(line) < RECORD_LINE_BYTES else b"\n"
        while len(line) == RECORD_LINE_BYTES and not line.endswith(b"\n"):
            line = file.readline(RECORD_LINE_BYTES)


def lines_backwards(path: Path) -> Iterator[bytes]:
    """Yield the whole lines of a file, last to first, without newlines. An incomplete last line is left out."""
    with open_segment(path) as file:
        place, rest, whole = file.seek(0, os.SEEK_END), b"", False
        while place:
            size = min(_BLOCK_BYTES, place)
            place -= size
            file.seek(place)
            lines = (file.read(size) + rest).split(b"\n")
            rest = lines[0]
            for line in reversed(lines[1:]):
                if whole:
                    yield line
                # Text after the last newline is not a line.
                whole = True
        if whole:
            yield rest


def head_of(segments: tuple[Segment, ...]) -> Head:
    """Return the latest record of a chain that has a position. Lines without one are skipped."""
    for segment in reversed(segments):
        for line in lines_backwards(segment.path):
            if place := place_of(line):
                return Head(place.seq, hash_of(line))
    return NO_HEAD


def heads_of(folder: Path) -> Mapping[str, Head]:
    """Return the latest record of each chain that has one. Raise `OSError` when the folder cannot be read."""
    heads = {chain: head_of(segments) for chain, segments in segments_by_chain(folder).items()}
    return {chain: head for chain, head in heads.items() if head.seq}
