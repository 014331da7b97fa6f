"""What is kept from callers and agents is bounded in bytes: all of it at once fits into a container of 512 MiB."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.census.containers import CONTAINERS, MIB
from tests.census.page import PAGE, written

CONTAINER_BYTES = 512 * MIB
# What the system keeps in memory that was freed, and what stands beside what is counted.
SLACK = 8 * MIB


@pytest.fixture
def cgroup() -> Iterator[Path | None]:
    """Yield a control group with 512 MiB of memory, or None where none can be made."""
    root = Path("/sys/fs/cgroup")
    old = root / "memory"
    group = (old if old.is_dir() else root) / f"pdp-census-{os.getpid()}"
    limit = group / ("memory.limit_in_bytes" if old.is_dir() else "memory.max")
    try:
        group.mkdir()
        limit.write_text(str(CONTAINER_BYTES), encoding="ascii")
    except OSError:
        with suppress(OSError):
            group.rmdir()
        yield None
        return
    yield group
    with suppress(OSError):
        group.rmdir()


def test_a_server_in_512_mib_survives_everything_full(tmp_path: Path, cgroup: Path | None) -> None:
    """Each container takes no more than is stated of it, and a server with all of them full goes on serving."""

    def enter() -> None:
        if cgroup is not None:
            (cgroup / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")

    filled = subprocess.run(
        [sys.executable, "-m", "tests.census.containers", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env={name: text for name, text in os.environ.items() if not name.startswith(("PDP_", "OTEL_"))},
        preexec_fn=enter,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )

    assert filled.returncode == 0, filled.stderr[-2000:]
    said = dict(line.split() for line in filled.stdout.splitlines())
    too_large = [
        f"{one.keeps}: {int(said[str(place)]) / MIB:.0f} MiB of {one.most}"
        for place, one in enumerate(CONTAINERS)
        if int(said[str(place)]) > one.most * MIB + SLACK
    ]
    assert too_large == []
    assert int(said["after"]) < CONTAINER_BYTES


def test_what_is_stated_fits_into_a_container() -> None:
    """The sum of the table, a server without anything, and the process that compiles bundles fit beside each other."""
    assert sum(one.most for one in CONTAINERS) <= 406


def test_the_page_states_what_is_kept() -> None:
    """The table of the page is the one that is measured: `python -m tests.census.page`."""
    page = PAGE.read_text(encoding="utf-8")

    assert written(page) == page
