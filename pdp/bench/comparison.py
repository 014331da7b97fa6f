"""The changes between two runs: in ratios to the control of the same run, so that machines and hours do not matter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from operator import attrgetter

from pdp.bench.figures import Spread
from pdp.bench.results import Finding, Result
from pdp.errors import ConfigurationError


class Judged(Enum):
    """The figures that can be compared, by their names in `Figures`."""

    CPU = "cpu"
    RATE = "rate"
    P50 = "p50"
    P99 = "p99"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One ratio to the control, before and after."""

    title: str
    server: str
    judged: Judged
    before: Spread
    after: Spread

    @property
    def worse(self) -> float:
        """Return how much worse it became, as a share; negative is better.

        0.1 is a tenth more CPU, or a tenth less throughput.
        """
        if self.judged is Judged.RATE:
            return self.before.median / self.after.median - 1
        return self.after.median / self.before.median - 1

    def regressed(self, bound: float) -> bool:
        """Say whether the median is worse by more than the bound.

        Single bad rounds, in either run, do not move a median.
        """
        return self.worse > bound


def compare(before: Result, after: Result, judged: Sequence[Judged]) -> Sequence[Change]:
    """Return the change of each ratio that both runs have.

    Raise `ConfigurationError` when they have none in common, or were measured beside different controls.
    """
    if before.yardstick != after.yardstick:
        raise ConfigurationError(
            f"the baseline was measured beside another control (`{before.yardstick[:15]}…`, now "
            f"`{after.yardstick[:15]}…`), so their ratios cannot be compared; measure the baseline again"
        )
    changes = [
        change
        for finding in after.findings
        if (then := before.finding(finding.title)) is not None
        for change in _changes(then, finding, judged)
    ]
    if not changes:
        raise ConfigurationError("the baseline and this run have no measurement in common")
    return changes


def _changes(before: Finding, after: Finding, judged: Sequence[Judged]) -> Iterator[Change]:
    for server in after.rounds:
        if server == after.control or server not in before.rounds:
            continue
        for one in judged:
            then, now = (finding.ratio(server, attrgetter(one.value)) for finding in (before, after))
            if then.known and now.known:
                yield Change(title=after.title, server=server, judged=one, before=then, after=now)
