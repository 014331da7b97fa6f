"""The benchmark of sealed secrets measures each of its ways, beside a control."""

from __future__ import annotations

from pathlib import Path

from benchmarks import sealing
from pdp.broker.opening import opened_vault


def test_each_way_is_measured(tmp_path: Path) -> None:
    """What must fail fails, what must open opens, and the table has a row for each."""
    sealing.make(tmp_path / "broker")
    with opened_vault(tmp_path / "broker", lambda _: None) as vault:
        ways = sealing.ways_of(vault)
        shown = sealing.table(sealing.measured(ways, 1, 2)).splitlines()

    assert [*ways] == [line.split(" | ")[0].removeprefix("| ") for line in shown[2 : 2 + len(ways)]]
    assert 2 == sum(" µs beside " in line for line in shown)
