"""Find where a record names somebody: its lines stay, since each is bound to the one before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pdp.foundation.jsontext import all_texts
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
        if text_of(located.record, "tenant") in ("", tenant) and person in all_texts(located.record):
            records += 1
            segments.add(located.file)
            last = max(last, text_of(located.record, "time"))
    return Named(records=records, segments=len(segments), last=last)
