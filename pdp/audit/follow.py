"""Follow the log while it is written: new lines of all segments, and segments that appear."""

from __future__ import annotations

from pathlib import Path

from pdp.audit.rows import time_of
from pdp.audit.segments import Lines, read_lines, segments_in, whole_bytes
from pdp.audit.values import Found, Mark

_CHUNK_BYTES = 1024 * 1024


class Follower:
    """The position of a reader in each segment of some folders; of a segment in several, the first counts.

    For one thread.
    """

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        self._places: dict[str, int] = {}

    def start(self) -> list[Found]:
        """Go to the end and return the last records before it, in order of time.

        Only the last MiB of each segment is read.
        """
        found: list[Found] = []
        for name, path in segments_in(*self._folders).items():
            try:
                end = whole_bytes(path)
                start = max(end - _CHUNK_BYTES, 0)
                read = read_lines(path, start, end, _CHUNK_BYTES)
            except FileNotFoundError:
                continue
            self._places[name] = end
            # The chunk can begin inside a line; the rest of that line is not a record.
            found += _records(name, read)
        found.sort(key=lambda one: one.mark)
        return found

    def poll(self) -> list[Found]:
        """Return the records that are new since the last call, in order of time."""
        found: list[Found] = []
        for name, path in segments_in(*self._folders).items():
            found += self._new(name, path)
        found.sort(key=lambda one: one.mark)
        return found

    def _new(self, name: str, path: Path) -> list[Found]:
        found: list[Found] = []
        try:
            size = path.stat().st_size
            # A segment that is shorter than what was read has been replaced.
            place = self._places.get(name, 0) if self._places.get(name, 0) <= size else 0
            while (read := read_lines(path, place, size, _CHUNK_BYTES)).lines:
                place = read.end
                found += _records(name, read)
        except FileNotFoundError:
            return found
        self._places[name] = place
        return found


def _records(name: str, read: Lines) -> list[Found]:
    found = []
    for place, line in read.placed():
        at = time_of(line)
        if at is not None:
            found.append(Found(mark=Mark(at=at, segment=name, place=place), line=line))
    return found
