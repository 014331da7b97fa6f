"""The record breaks under a server that runs: nothing is allowed meanwhile, and sessions end as before."""

from __future__ import annotations

import errno
from pathlib import Path
from unittest.mock import patch

import pytest

from pdp.record import read_records
from pdp.record.log import Durability
from pdp.testing.waiting import wait_until
from tests.machinery.faults.breakdowns import ROWS
from tests.machinery.faults.disks import Faults
from tests.machinery.servers.served import WELL, damage, served


@pytest.mark.parametrize("why", [errno.ENOSPC, errno.EROFS], ids=["full", "read-only"])
@pytest.mark.parametrize(
    ("durability", "fault"),
    [
        ("written", "the record's disk is full or read-only, in `written`"),
        ("durable", "the record's disk is full or read-only, in `durable`"),
    ],
)
def test_while_the_record_cannot_be_written(tmp_path: Path, durability: Durability, fault: str, why: int) -> None:
    """What is seen is what the table says; then all is as before, by itself, and no record is missing."""
    faults = Faults()
    with patch("pdp.record.log.Disk", lambda: faults.disk), served(tmp_path, durability=durability) as service:
        first, second = service.open(), service.open()
        faults.write = faults.truncate = faults.open_new = why
        service.call(service.active)
        wait_until(lambda: service.health() == ROWS[fault].seen.health)
        during = service.seen(first)
        faults.heal()
        wait_until(lambda: service.health() == WELL.health)
        after = service.seen(second)
    gaps = [record for _, _, record in read_records(service.settings.record_folder) if record["kind"] == "record.gap"]

    assert (during, after) == (ROWS[fault].seen, WELL)
    assert [gap["lost"] for gap in gaps] == [0] * len(gaps)
    assert damage(service) == []
