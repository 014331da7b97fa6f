"""Read the record: all segments of all chains as one log, even while it is being written."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from pdp.record.envelope import parse_line
from pdp.record.segments import lines_of, open_segment, segments_by_chain


class Located(NamedTuple):
    """A record with its file and line number (from 1)."""

    file: Path
    line: int
    record: dict[str, Any]


def read_records(
    folder: Path,
    *,
    naming: str = "",
    wanted: Callable[[bytes], object] | None = None,
    on_broken: Callable[[Path, int], None] | None = None,
) -> Iterator[Located]:
    """Yield the records of all segments in a folder, chains merged by time.

    Within a chain the order is that of writing. Nothing is verified: a line that is not a record is skipped and
    reported to `on_broken`; text after the last newline is still being written and is left out. Raise `OSError` when
    the folder cannot be read. With `naming`, lines that do not hold this text are passed over unread, and so are those
    of the others that are not `wanted`.
    """
    chains = [
        chain.from_iterable(
            read_segment(segment.path, naming=naming, wanted=wanted, on_broken=on_broken) for segment in segments
        )
        for segments in segments_by_chain(folder).values()
    ]
    if len(chains) == 1:
        return chains[0]
    return heapq.merge(*chains, key=lambda located: str(located.record.get("time", "")))


def read_segment(
    path: Path,
    *,
    naming: str = "",
    wanted: Callable[[bytes], object] | None = None,
    on_broken: Callable[[Path, int], None] | None = None,
) -> Iterator[Located]:
    """Yield the records of one file in order, as `read_records` does."""
    # What JSON could write in several ways is looked for in no line.
    named = naming.encode() if naming.isascii() and json.dumps(naming) == f'"{naming}"' else b""
    with open_segment(path) as file:
        for number, line in enumerate(lines_of(file), start=1):
            if named not in line or (wanted is not None and not wanted(line)):
                continue
            record = parse_line(line) if line.endswith(b"\n") else None
            if record is not None:
                yield Located(path, number, record)
            elif on_broken is not None and line.endswith(b"\n"):
                on_broken(path, number)
