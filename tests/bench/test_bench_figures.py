"""What rounds say together: percentiles, medians, and ratios to the control."""

from __future__ import annotations

import math

import pytest

from benchmarks.inturns import quartiles
from pdp.bench.figures import Figures, Spread, cpu, milliseconds, percentile, ratios, spread


@pytest.mark.parametrize(
    ("percent", "expected"),
    [(0.0, 1.0), (1.0, 1.0), (50.0, 50.0), (90.0, 90.0), (99.0, 99.0), (99.5, 100.0), (100.0, 100.0)],
)
def test_percentile_is_the_nearest_rank(percent: float, expected: float) -> None:
    """A percentile is a value that was measured: the least that so many per cent are not above."""
    assert expected == percentile([float(one) for one in range(1, 101)], percent)


def test_percentile_of_one_value_is_that_value() -> None:
    """One call has no better tail than itself."""
    assert [7.0, 7.0, 7.0] == [percentile([7.0], percent) for percent in (1.0, 50.0, 99.9)]


def test_percentile_of_nothing_is_unknown() -> None:
    """Where nothing was measured there is no figure, and no error."""
    assert math.isnan(percentile([], 50.0))


def test_milliseconds_sorts_and_scales() -> None:
    """Durations come in any order and in seconds."""
    figures = Figures(latencies=milliseconds([0.003, 0.001, 0.002]))

    assert (2.0, 3.0) == (figures.p50, figures.p99)


def test_spread_leaves_out_what_is_unknown() -> None:
    """A round without a value does not count, and the least and most are those of the others."""
    assert Spread(median=2.0, least=1.0, most=3.0) == spread([3.0, math.nan, 1.0, 2.0])


def test_ratios_are_taken_round_by_round() -> None:
    """A round in which everything is slow, control included, changes no ratio."""
    rounds = [Figures(cpu=20.0), Figures(cpu=200.0), Figures(cpu=22.0)]
    control = [Figures(cpu=10.0), Figures(cpu=100.0), Figures(cpu=10.0)]

    assert Spread(median=2.0, least=2.0, most=2.2) == ratios(rounds, control, lambda one: one.cpu)


@pytest.mark.parametrize(
    ("measured", "expected"),
    [([30.0], "3.000"), ([30.0, 10.0], "2.000 (0.500 to 3.500)"), ([10.0, 20.0, 30.0], "2.000 (1.000 to 3.000)")],
)
def test_ratios_in_turns_have_quartiles_where_there_are_several(measured: list[float], expected: str) -> None:
    """One round has a ratio and no spread."""
    control = [Figures(cpu=10.0)] * len(measured)

    assert expected == quartiles([Figures(cpu=one) for one in measured], control, cpu)
