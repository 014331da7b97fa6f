"""An incident for the whole folder of tests, and an index over it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pdp.audit import AuditIndex, Search
from tests.machinery.investigation.bruteforce import Record, everything
from tests.machinery.investigation.incident import write_incident

COUNT = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Investigated:
    """A record on disk, all of its lines, what answers from its index, and a moment in its story."""

    folder: Path
    records: list[Record]
    search: Search
    index: AuditIndex
    now_at: float


@pytest.fixture(scope="session")
def incident(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Investigated]:
    """Yield an incident of 20,000 records, indexed."""
    folder = tmp_path_factory.mktemp("incident")
    now_at = write_incident(folder, COUNT)
    with AuditIndex(folder) as index:
        index.refresh()
        yield Investigated(folder=folder, records=everything(folder), search=Search(index), index=index, now_at=now_at)
