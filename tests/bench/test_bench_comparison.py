"""Two runs beside each other: what counts is the ratio to the control of the same run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.aims import aim_rows, aims
from pdp.bench import Finding, Judged, Result, compare, read_result, written
from pdp.bench.figures import Figures
from pdp.errors import ConfigurationError

TITLE = "unary, hits, 16 at a time"
CONTROL, SERVER = "empty handler", "tracing off"


def result(
    cpu: Sequence[float],
    *,
    control: float = 100.0,
    rate: float = 50.0,
    yardstick: str = "sha256:a",
    server: str = SERVER,
    others: float = 0.0,
) -> Result:
    """Return a run of one measurement: the server's CPU in each round, beside a control that is always the same."""
    rounds = {
        CONTROL: [Figures(cpu=control, rate=100.0) for _ in cpu],
        server: [Figures(cpu=one, rate=rate, latencies=(1.0, 1.0, 1.0, 1.0, 2.0, 3.0), others=others) for one in cpu],
    }
    return Result(
        at="2026-01-01T00:00:00Z",
        yardstick=yardstick,
        machine={"processor": "abacus"},
        effort="3 rounds",
        workload="generated",
        remarks=["none"],
        findings=[Finding(title=TITLE, control=CONTROL, rounds=rounds)],
    )


def regressed(before: Result, after: Result, *, bound: float = 0.2, judged: Judged = Judged.CPU) -> list[bool]:
    """Say for each change whether it is a regression."""
    return [one.regressed(bound) for one in compare(before, after, [judged])]


def test_more_cpu_beyond_the_bound_is_a_regression() -> None:
    """Half as much again is beyond a bound of a fifth."""
    assert [True] == regressed(result([150, 151, 152]), result([225, 226, 227]))


def test_more_cpu_within_the_bound_is_none() -> None:
    """A tenth more is within a bound of a fifth."""
    assert [False] == regressed(result([150, 151, 152]), result([165, 166, 167]))


def test_less_cpu_is_no_regression() -> None:
    """Whatever became better passes, by however much."""
    assert [False] == regressed(result([150, 151, 152]), result([30, 31, 32]), bound=0.0)


def test_a_slower_machine_is_no_regression() -> None:
    """Everything three times as slow, control included, is the same ratio."""
    assert [False] == regressed(result([150, 151, 152]), result([450, 453, 456], control=300.0), bound=0.01)


def test_one_bad_round_is_no_regression() -> None:
    """A round in which something else happened does not count, in whichever run it was."""
    assert [False] == regressed(result([150, 151, 152]), result([150, 151, 900]))
    assert [True] == regressed(result([150, 151, 900]), result([225, 226, 227]))


def test_one_good_round_hides_no_regression() -> None:
    """A round that came out well by chance does not excuse the others."""
    assert [True] == regressed(result([150, 151, 152]), result([100, 226, 227]))


def test_less_throughput_is_a_regression() -> None:
    """Of throughput less is worse, by the same bound."""
    before, after = result([150, 151], rate=60.0), result([150, 151], rate=40.0)

    assert [True] == regressed(before, after, judged=Judged.RATE)
    assert [False] == regressed(after, before, judged=Judged.RATE)


def test_another_control_is_no_baseline() -> None:
    """To change the control is to change the yardstick: the comparison says so and does not happen."""
    with pytest.raises(ConfigurationError, match="another control"):
        compare(result([1]), result([1], yardstick="sha256:b"), [Judged.CPU])


def test_nothing_in_common_is_an_error() -> None:
    """Two runs of different measurements are not called equal."""
    other = result([1])
    empty = Result(**{**{name: getattr(other, name) for name in other.__slots__}, "findings": []})

    with pytest.raises(ConfigurationError, match="in common"):
        compare(other, empty, [Judged.CPU])


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    """A file holds all of a run, what is unknown included."""
    kept = result([150.5, 151.25])
    file = tmp_path / "result.json"
    file.write_bytes(written(kept))

    assert written(kept) == written(read_result(file))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"format": 1}', b'{"format": 1, "findings": 3}', b"\xff"])
def test_a_file_that_holds_no_result_is_named(tmp_path: Path, content: bytes) -> None:
    """A baseline that is something else is an error with its name, not a crash."""
    file = tmp_path / "baseline.json"
    file.write_bytes(content)

    with pytest.raises(ConfigurationError, match=r"baseline\.json"):
        read_result(file)


def test_an_aim_is_judged_by_the_ratio_to_its_control() -> None:
    """1.25 times the control's CPU keeps an aim of 1.3, and 1.35 times misses it."""
    kept, missed = (aims(result([cpu])) for cpu in (125.0, 135.0))
    what = "unary hit, CPU without tracing"

    assert [True, False] == [one.reached for judged in (kept, missed) for one in judged if one.what == what]


def test_time_on_a_busy_machine_is_told_apart() -> None:
    """Where others used the core, a verdict about throughput says so, and one about CPU does not."""
    quiet, busy = (
        {one.what: one.busy for one in aims(result([125.0], server="everything on", others=others))}
        for others in (0.01, 0.5)
    )

    assert {False} == set(quiet.values())
    assert {"unary hit, calls/s", "unary hit, p99 at 16 at a time", "stream, messages/s"} == {
        what for what, doubtful in busy.items() if doubtful
    }


def test_what_was_not_measured_is_not_reached() -> None:
    """An aim without figures is neither kept nor missed, and never shown as kept."""
    unknown = [one for one in aims(result([125.0])) if not one.known]

    assert [] != unknown
    assert [] == [one.what for one in unknown if one.reached]
    assert ("in process, hit", "not measured") in [(row[0], row[-1]) for row in aim_rows(result([125.0]))]
