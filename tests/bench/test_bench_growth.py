"""How the cost of a decision grows: what is asked about, the tables, and the picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.growth import Effort, measure
from benchmarks.growthbundle import growth_files
from benchmarks.growthview import AXES, draw_growth, growth_tables
from pdp.bench.figures import Figures
from pdp.bench.results import Finding, Result, read_result, written
from pdp.limits import DEFAULT_LIMITS
from pdp.policy.loading import load_bundle
from pdp.testing.bundles import compile_once_here

BY_NAME = {axis.name: axis for axis in AXES}


def result(*names: str) -> Result:
    """Return a run along some axes, in which each round costs more by one, and each size twice the size before."""
    findings = [
        Finding(
            title=axis.title(size),
            control=axis.lines[0],
            rounds={line: [Figures(cpu=(10.0 + turn) * 2**place) for turn in range(3)] for line in axis.lines},
        )
        for axis in (BY_NAME[name] for name in names)
        for place, size in enumerate(axis.sizes)
    ]
    return Result(
        at="2026-01-01T00:00:00Z",
        yardstick="sha256:a",
        machine={},
        effort="",
        workload="",
        remarks=[],
        findings=findings,
    )


@pytest.mark.parametrize(
    ("policies", "tools", "own"), [(1, 5, 1), (10, 5, 10), (30, 5, 10), (30, 1, 30), (14, 5, 10), (60, 20, 10)]
)
def test_the_tool_that_is_called_has_the_same_policies(policies: int, tools: int, own: int) -> None:
    """A larger bundle has more policies about other tools, spread evenly."""
    bundle = load_bundle(growth_files(policies, tools), DEFAULT_LIMITS, compile_once_here)
    counts = [len(bundle.plan(tool).policies.policies) for tool in bundle.catalogue.tools.values()]
    (called,) = (len(bundle.plan(tool).policies.policies) for tool in [bundle.catalogue.tool("s0", "t0")] if tool)

    others = sorted(counts)
    others.remove(called)
    assert (own, policies, tools) == (called, sum(counts), len(counts))
    assert not others or others[-1] - others[0] <= 1


def test_a_size_is_compared_round_by_round_with_the_base() -> None:
    """What disturbed a round disturbed the base too; the base of policies is ten of them, the second size."""
    shown = list(growth_tables(result("policies")))

    assert ["| 1 | 11.0 | 0.50 | 0.50 to 0.50 |", "| 10 | 22.0 | 1.00 | 1.00 to 1.00 |"] == [
        line[: line.index(" |", line.index(" to "))] + " |" for line in shown[2:4]
    ]
    assert 2 + len(BY_NAME["policies"].sizes) == len(shown)


def test_every_axis_and_line_is_in_the_picture(tmp_path: Path) -> None:
    """A line without a name says nothing, and a field without one neither."""
    drawn = draw_growth(result(*BY_NAME), tmp_path)

    assert ["growth.svg", "growth.png"] == [path.name for path in drawn]
    texts = [f">{text}</text>" for axis in AXES for text in (axis.name, axis.what, *axis.lines)]
    shown = drawn[0].read_text(encoding="utf-8")
    assert [] == [text for text in texts if text not in shown]


def test_one_size_is_no_line(tmp_path: Path) -> None:
    """An axis of which one size was measured is left out; without another there is no picture."""
    short = result("callers")

    assert [] == draw_growth(replace(short, findings=short.findings[:1]), tmp_path)


def test_what_is_measured_can_be_read(tmp_path: Path) -> None:
    """A run in process, as short as can be, has figures for both lines at each size, also from its file."""
    axis = replace(BY_NAME["policies"], sizes=(1, 10))
    file = tmp_path / "growth.json"
    file.write_bytes(written(measure([axis], Effort(rounds=2, calls=2))))

    found = read_result(file)

    assert ["policies: 1", "policies: 10"] == [one.title for one in found.findings]
    assert {("hit", 2, True), ("miss", 2, True)} == {
        (line, len(rounds), all(one.cpu > 0 for one in rounds))
        for one in found.findings
        for line, rounds in one.rounds.items()
    }


def test_larger_sizes_can_be_left_out() -> None:
    """To see that a run works takes no hundred thousand sessions."""
    assert [10, 100] == list(BY_NAME["sessions"].up_to(100).sizes)
    assert BY_NAME["sessions"] == BY_NAME["sessions"].up_to(None)
