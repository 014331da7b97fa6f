"""How many workers there are, and where they run."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from pdp.config.settings import ServerSettings, SessionSettings, Settings
from pdp.workers import cores as cores_of
from pdp.workers.cores import bound, core_of, how_many


@pytest.mark.parametrize(
    ("workers", "cores", "most", "expected"),
    [
        (0, 4, math.inf, 4),
        (0, 1, math.inf, 1),
        (0, 64, 2.0, 2),
        (0, 64, 2.5, 3),
        (0, 64, 0.2, 1),
        (0, 2, 8.0, 2),
        (3, 2, 1.0, 3),
        (1, 4, math.inf, 1),
    ],
)
def test_how_many(workers: int, cores: int, most: float, expected: int) -> None:
    """As many as the settings say, or else as there are cores to use, as far as a quota lets use them."""
    settings = Settings(server=ServerSettings(workers=workers))

    assert expected == how_many(settings, cores, most, "linux")


@pytest.mark.parametrize(
    ("changes", "platform"),
    [
        ({"sessions": SessionSettings(store="memory")}, "linux"),
        ({"server": ServerSettings(address="unix:/run/pdp.sock")}, "linux"),
        ({}, "darwin"),
    ],
)
def test_one_where_several_cannot_share(changes: dict[str, object], platform: str) -> None:
    """By default it is one with a store in memory, on a Unix socket, and where the system spreads no connections."""
    settings = replace(Settings(), **changes)  # type: ignore[arg-type] # sections by name

    assert 1 == how_many(settings, 4, math.inf, platform)


@pytest.mark.parametrize(
    ("number", "cores", "most", "expected"),
    [
        (1, (0, 1), math.inf, 0),
        (2, (0, 1), math.inf, 1),
        (3, (0, 1), math.inf, 0),
        (2, (4, 6), 2.0, 6),
        (1, (0, 1), 1.5, None),
        (1, (), math.inf, None),
    ],
)
def test_which_core(number: int, cores: tuple[int, ...], most: float, expected: int | None) -> None:
    """Each worker has a core of its own in turn; where a bound leaves cores over, it runs on any."""
    assert expected == core_of(number, cores, most)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, math.inf),
        ({"cpu.max": "max 100000", "memory.max": "max"}, math.inf),
        ({"cpu.max": "150000 100000", "memory.max": "max"}, 1.5),
        ({"memory.max": f"{2**30}"}, 2),
        ({"memory.max": f"{2**30 - 1}"}, 1),
        ({"memory.max": f"{100 * 2**20}"}, 1),
        ({"cpu.max": "150000 100000", "memory.max": f"{2**30}"}, 1.5),
        ({"memory/memory.limit_in_bytes": f"{3 * 2**29}"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5),
        ({"cpu.max": "what is this", "memory.max": ""}, math.inf),
    ],
)
def test_what_a_container_may_use(
    files: dict[str, str], expected: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container has as many cores' worth of workers as its bounds on time and memory leave room for, one at least."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n", encoding="ascii")
    monkeypatch.setattr(cores_of, "_CGROUP", tmp_path)

    assert expected == bound()
