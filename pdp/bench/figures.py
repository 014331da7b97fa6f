"""The figures of one server in one round, and their spread over several rounds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

# A picture shows these; every row of a table takes its own from them.
PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One measurement. NaN means that a figure could not be measured, or has no meaning here.

    `rate` is decisions a second. `latencies` are milliseconds at `PERCENTILES`. `cpu` is µs of the server's own CPU
    for each decision. `remembered` is the share of answers, from 0 to 1, that came from the decision cache. `late` is
    the median delay of an open loop's calls, in milliseconds after their time. `load` is µs of the load's CPU for each
    decision. `others` is the share of the server's
    core that neither the server nor the kernel's network used: other work of the machine. `again` is how often raw
    frames asked a call again.
    """

    cpu: float = math.nan
    rate: float = math.nan
    latencies: tuple[float, ...] = ()
    remembered: float = math.nan
    late: float = math.nan
    load: float = math.nan
    others: float = math.nan
    again: int = 0

    @property
    def p50(self) -> float:
        """Return the median latency in milliseconds."""
        return self._at(50.0)

    @property
    def p99(self) -> float:
        """Return the latency that one in a hundred exceeds, in milliseconds."""
        return self._at(99.0)

    def _at(self, percent: float) -> float:
        return self.latencies[PERCENTILES.index(percent)] if self.latencies else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The median of several rounds, and their least and most."""

    median: float
    least: float
    most: float

    @property
    def known(self) -> bool:
        """Say whether it was measured: else it is NaN."""
        return not math.isnan(self.median)


UNKNOWN = Spread(median=math.nan, least=math.nan, most=math.nan)

What = Callable[[Figures], float]

cpu, rate, p50, p99 = map(attrgetter, ("cpu", "rate", "p50", "p99"))


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the least value that `percent` of all do not exceed (nearest rank).

    The values must be sorted; without values the result is NaN.
    """
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def milliseconds(seconds: Iterable[float]) -> tuple[float, ...]:
    """Return durations in seconds as milliseconds at `PERCENTILES`."""
    ordered = sorted(seconds)
    return tuple(percentile(ordered, percent) * 1000 for percent in PERCENTILES)


def spread(values: Iterable[float]) -> Spread:
    """Return the spread of several rounds; a round without a value does not count."""
    kept = [value for value in values if not math.isnan(value)]
    return Spread(median=statistics.median(kept), least=min(kept), most=max(kept)) if kept else UNKNOWN


def ratios(rounds: Sequence[Figures], control: Sequence[Figures], what: What) -> Spread:
    """Return the ratios to the control, round by round.

    A disturbance in a round slows both.
    """
    return spread(what(one) / what(base) for one, base in zip(rounds, control, strict=True) if what(base))
