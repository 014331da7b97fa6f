"""The clocks and disks of a campaign do to programs what they are set to, and nothing else."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sessions.postgres.campaign.machines import Disk, WallClock, can_mount

pytestmark = pytest.mark.replicas

DAY = 86400.0
# How far each of its clocks is from ours, when it is told when to look.
CLOCKS = """
import datetime, time
while True:
    wall, boot = map(float, input().split())
    shown = time.time(), datetime.datetime.now().timestamp(), time.clock_gettime(time.CLOCK_BOOTTIME)
    print(*(round((found - asked) / 86400) for found, asked in zip(shown, (wall, wall, boot))), flush=True)
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Give a disk of its own at `data`."""
    if not can_mount():
        pytest.skip("only root can make a small disk")
    disk = Disk(tmp_path / "data")
    yield disk
    disk.close()


def test_a_wall_clock_is_set_while_a_program_runs(tmp_path: Path) -> None:
    """In whatever way it is read; the clock of the boot stays."""
    clock = WallClock(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", CLOCKS],
        env={**os.environ, **clock.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        found = []
        for days in (0, 1, -1, 0):
            clock.move(days * DAY)
            print(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), file=program.stdin, flush=True)
            found.append(program.stdout.readline().strip())
        program.kill()

    assert ["0 0 0", "1 1 0", "-1 -1 0", "0 0 0"] == found


def test_a_disk_is_full_until_it_has_room_again(tmp_path: Path, disk: Disk) -> None:
    """What is on it stays."""
    kept, new = tmp_path / "data" / "kept", tmp_path / "data" / "new"
    kept.write_text("kept")
    disk.fill()
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        new.write_text("new")
    disk.free()
    new.write_text("new")

    assert ("kept", "new") == (kept.read_text(), new.read_text())
