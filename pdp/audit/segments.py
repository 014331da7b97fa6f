"""Read the log's files: list the segments, and read whole lines from a position."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from pdp.limits import RECORD_LINE_BYTES
from pdp.record.segments import open_segment, segments_by_chain

_MARK_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Whole lines of a segment from `start`, each with its newline; `end` is where the next line begins."""

    start: int
    end: int
    lines: tuple[bytes, ...]

    def placed(self) -> Iterator[tuple[int, bytes]]:
        """Yield each line with its position in bytes."""
        place = self.start
        for line in self.lines:
            yield place, line
            place += len(line)


def segments_of(folder: Path) -> list[str]:
    """Return the names of the segments in a folder, a chain's in order.

    A folder that does not exist has none.
    """
    try:
        chains = segments_by_chain(folder).values()
    except FileNotFoundError:
        return []
    return [segment.path.name for chain in chains for segment in chain]


def segments_in(*folders: Path) -> dict[str, Path]:
    """Return the segments of several folders by name, a chain's in order.

    Of a segment that several have, the first folder's counts. A further folder that cannot be read has none.
    """
    found: dict[str, Path] = {}
    for folder in reversed(folders):
        try:
            found |= {name: folder / name for name in segments_of(folder)}
        except OSError:
            if folder == folders[0]:
                raise
    return dict(sorted(found.items()))


def read_lines(path: Path, start: int, end: int, most_bytes: int) -> Lines:
    """Read whole lines between two positions: `most_bytes`, or one longer line.

    Text after the last newline is still being written, or was cut by a crash, and is left for later.
    """
    with open_segment(path) as file:
        content = _read(file.fileno(), start, min(end - start, most_bytes))
        while b"\n" not in content and start + len(content) < end and len(content) < RECORD_LINE_BYTES:
            more = _read(file.fileno(), start + len(content), min(end - start - len(content), most_bytes))
            if not more:
                break
            content += more
    if b"\n" not in content:
        content = content if len(content) >= RECORD_LINE_BYTES else b""
        return Lines(start=start, end=start + len(content), lines=(content,) if content else ())
    whole = content[: content.rfind(b"\n") + 1]
    lines = tuple(line + b"\n" for line in whole.split(b"\n")[:-1])
    return Lines(start=start, end=start + len(whole), lines=lines)


def whole_bytes(path: Path) -> int:
    """Return how many bytes of a file are whole lines."""
    with open_segment(path) as file:
        end = os.fstat(file.fileno()).st_size
        while end > 0:
            start = max(end - _MARK_BYTES, 0)
            place = _read(file.fileno(), start, end - start).rfind(b"\n")
            if place >= 0:
                return start + place + 1
            end = start
    return 0


def mark_of(path: Path, end: int) -> int:
    """Return a checksum of the first `end` bytes of a file: of how they begin and end.

    It detects a file that was replaced. `pdp audit verify` finds changes in between.
    """
    with open_segment(path) as file:
        head = os.pread(file.fileno(), min(end, _MARK_BYTES), 0)
        tail = os.pread(file.fileno(), min(end, _MARK_BYTES), max(end - _MARK_BYTES, 0))
    return crc32(tail, crc32(head))


def _read(file: int, start: int, size: int) -> bytes:
    parts = []
    while size > 0 and (part := os.pread(file, size, start)):
        parts.append(part)
        start += len(part)
        size -= len(part)
    return b"".join(parts)
