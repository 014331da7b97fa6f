"""Figures of a history of several replicas: how much was answered, how long fences took, and what was unavailable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, inf

from tests.sessions.replicahistory import Kind, Operation, Result

_CLOSING = (Kind.REVOKE, Kind.END)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Counts, shares from 0 to 1, and seconds. `fences` has p50, p90 and the longest, by what ended them."""

    answers: int
    allows: int
    # Answers about sessions that were revoked or ended before, as was acknowledged; and how many of these were allows.
    late: int
    late_allows: int
    unanswered: float
    acknowledged: dict[str, int]
    unknown: int
    faults: dict[str, int]
    # The longest time until all answered again after the last fault.
    settled: float
    fences: dict[str, tuple[int, float, float, float]]

    def __str__(self) -> str:
        lines = [
            f"{self.answers} answers, {self.allows} of them allows; {self.unanswered:.1%} of the calls had none",
            f"{self.late} answers about sessions that had ended, {self.late_allows} of them allows",
            f"acknowledged: {_counted(self.acknowledged)}; {self.unknown} changes of unknown outcome",
            f"faults: {_counted(self.faults)}; {self.settled:.3f} s after the last, all answered again",
            "| fenced by | changes | p50 s | p90 s | longest s |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {by} | {count} | {' | '.join(f'{one:.3f}' for one in times)} |"
            for by, (count, *times) in sorted(self.fences.items())
        ]
        return "\n".join(lines)


def figures(history: Iterable[Operation]) -> Figures:
    """Return the figures of a history."""
    calls, changes, faults, settled = list[Operation](), list[Operation](), Counter[str](), 0.0
    ended = dict[str, float]()
    for one in history:
        if one.kind is Kind.AUTHORIZE:
            calls.append(one)
        elif one.kind is Kind.FAULT:
            faults[one.name] += 1
        elif one.kind is Kind.CALM:
            settled = max(settled, one.returned - one.invoked)
        elif one.kind in (Kind.REQUEST, Kind.APPROVE, *_CLOSING, Kind.NARROW, Kind.LABEL, Kind.ACTIVATE):
            changes.append(one)
        if one.kind in _CLOSING and one.result is Result.OK:
            ended[one.session] = min(ended.get(one.session, inf), one.returned)
    answers = sum(one.result is Result.OK for one in calls)
    done = [one for one in changes if one.result is Result.OK]
    late = [one for one in calls if one.result is Result.OK and one.invoked > ended.get(one.session, inf)]
    return Figures(
        answers=answers,
        allows=sum(one.allowed for one in calls),
        late=len(late),
        late_allows=sum(one.allowed for one in late),
        unanswered=1 - answers / len(calls) if calls else 0.0,
        acknowledged=dict(Counter(one.kind.value for one in done)),
        unknown=sum(one.result is Result.UNKNOWN for one in changes),
        faults=dict(faults),
        settled=settled,
        fences={
            by: _quantiles(sorted(one.fence_seconds for one in done if one.fenced_by == by))
            for by in {one.fenced_by for one in done if one.fenced_by}
        },
    )


def _quantiles(times: Sequence[float]) -> tuple[int, float, float, float]:
    def at(share: float) -> float:
        return times[ceil(share * len(times)) - 1]

    return len(times), at(0.5), at(0.9), times[-1]


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"
