"""How many workers there are, and where they run."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from pdp.config import ServerSettings, SessionSettings, Settings
from pdp.workers.cores import core_of, how_many


@pytest.mark.parametrize(
    ("workers", "cores", "bound", "expected"),
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
def test_how_many(workers: int, cores: int, bound: float, expected: int) -> None:
    """As many as the settings say, or else as there are cores to use, as far as a quota lets use them."""
    settings = Settings(server=ServerSettings(workers=workers))

    assert expected == how_many(settings, cores, bound, "linux")


@pytest.mark.parametrize(
    ("changes", "platform"),
    [
        ({"sessions": SessionSettings(store="memory")}, "linux"),
        ({"server": ServerSettings(address="unix:/run/pdp.sock", workers=0)}, "linux"),
        ({}, "darwin"),
    ],
)
def test_one_where_several_cannot_share(changes: dict[str, object], platform: str) -> None:
    """For 0 it is one with a store in memory, on a Unix socket, and where the system spreads no connections."""
    settings = replace(Settings(server=ServerSettings(workers=0)), **changes)  # type: ignore[arg-type] # sections by name

    assert 1 == how_many(settings, 4, math.inf, platform)


@pytest.mark.parametrize(
    ("number", "cores", "bound", "expected"),
    [
        (1, (0, 1), math.inf, 0),
        (2, (0, 1), math.inf, 1),
        (3, (0, 1), math.inf, 0),
        (2, (4, 6), 2.0, 6),
        (1, (0, 1), 1.5, None),
        (1, (), math.inf, None),
    ],
)
def test_which_core(number: int, cores: tuple[int, ...], bound: float, expected: int | None) -> None:
    """Each worker has a core of its own in turn; where a quota says that cores are shared, it runs on any."""
    assert expected == core_of(number, cores, bound)
