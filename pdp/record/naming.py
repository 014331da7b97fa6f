"""Find where a record names somebody: its lines stay, since each is bound to the one before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdp.record.fields import text_of
from pdp.record.reader import read_records


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """How many records name somebody, in how many segments, and when the last of them was written; empty for never."""

    records: int
    segments: int
    last: str


def naming(folder: Path, person: str, *, tenant: str) -> Named:
    """Return where the records of a tenant name a person, as a whole value. Raise `OSError`."""
    records, segments, last = 0, set[Path](), ""
    for located in read_records(folder):
        if text_of(located.record, "tenant") in ("", tenant) and person in _texts(located.record):
            records += 1
            segments.add(located.file)
            last = max(last, text_of(located.record, "time"))
    return Named(records=records, segments=len(segments), last=last)


def _texts(value: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON value
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
