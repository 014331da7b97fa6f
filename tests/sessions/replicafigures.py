"""Figures of a history of several replicas: how much was answered, how long fences took, and what was unavailable."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import Final

from tests.sessions.replicahistory import Kind, Operation, Result

_CLOSING: Final = (Kind.REVOKE, Kind.END)
_CHANGES: Final = frozenset({Kind.REQUEST, Kind.APPROVE, *_CLOSING, Kind.NARROW, Kind.LABEL, Kind.ACTIVATE})
_SHARES: Final = (0.5, 0.9, 0.99, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Counts, shares from 0 to 1, and seconds. `fences` has p50, p90, p99 and the longest, by what ended them."""

    answers: int
    allows: int
    # Answers about sessions that were revoked or ended before, as was acknowledged; and how many of these were allows.
    late: int
    late_allows: int
    unanswered: float
    acknowledged: Mapping[str, int]
    unknown: int
    faults: Mapping[str, int]
    # The longest time until all answered again after the last fault.
    settled: float
    fences: Mapping[str, tuple[int, Sequence[float]]]

    def __str__(self) -> str:
        lines = [
            f"{self.answers} answers, {self.allows} of them allows; {self.unanswered:.1%} of the calls had none",
            f"{self.late} answers about sessions that had ended, {self.late_allows} of them allows",
            f"acknowledged: {_counted(self.acknowledged)}; {self.unknown} changes of unknown outcome",
            f"faults: {_counted(self.faults)}; {self.settled:.3f} s after the last, all answered again",
            "| fenced by | changes | p50 s | p90 s | p99 s | longest s |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {by} | {count} | {' | '.join(f'{one:.3f}' for one in times)} |"
            for by, (count, times) in sorted(self.fences.items())
        ]
        return "\n".join(lines)


def figures(history: Iterable[Operation]) -> Figures:
    """Return the figures of a history, which is gone through twice."""
    acknowledged, faults, unknown, settled = Counter[str](), Counter[str](), 0, 0.0
    ended: dict[str, float] = {}
    fences: dict[str, list[float]] = defaultdict(list)
    for one in history:
        if one.kind is Kind.FAULT:
            faults[one.name] += 1
        elif one.kind is Kind.CALM:
            settled = max(settled, one.returned - one.invoked)
        elif one.kind in _CHANGES:
            unknown += one.result is Result.UNKNOWN
            acknowledged[one.kind.value] += one.result is Result.OK
            if one.fenced_by:
                fences[one.fenced_by].append(one.fence_seconds)
            if one.kind in _CLOSING and one.result is Result.OK:
                ended[one.session] = min(ended.get(one.session, inf), one.returned)
    calls, found = 0, Counter[str]()
    for one in history:
        if one.kind is Kind.AUTHORIZE:
            late = one.invoked > ended.get(one.session, inf)
            calls += 1
            found.update(_sorts(one, late=late) if one.result is Result.OK else ())
    return Figures(
        answers=found["answers"],
        allows=found["allows"],
        late=found["late"],
        late_allows=found["late allows"],
        unanswered=1 - found["answers"] / calls if calls else 0.0,
        acknowledged=+acknowledged,
        unknown=unknown,
        faults=faults,
        settled=settled,
        fences={by: (len(times), _quantiles(sorted(times))) for by, times in fences.items()},
    )


def _sorts(answer: Operation, *, late: bool) -> Iterable[str]:
    yield "answers"
    if answer.allowed:
        yield "allows"
    if late:
        yield "late"
    if late and answer.allowed:
        yield "late allows"


def _quantiles(times: Sequence[float]) -> Sequence[float]:
    return [times[ceil(share * len(times)) - 1] for share in _SHARES]


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"
