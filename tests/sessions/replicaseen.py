"""What the checker looks up in a history of several replicas, in order of time."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from heapq import heappop, heappush
from math import inf
from typing import Final, TypeVar

from tests.sessions.replicahistory import LOSS, Kind, Operation, Result

T = TypeVar("T")

CLOSING: Final = (Kind.REVOKE, Kind.END)
CHANGES: Final = (Kind.APPROVE, *CLOSING, Kind.NARROW, Kind.LABEL)


class Spans:
    """Spans of time, which may overlap."""

    def __init__(self, spans: Iterable[tuple[float, float]]) -> None:
        self._spans: list[tuple[float, float]] = []
        for span in sorted(spans):
            last = self._spans[-1] if self._spans else None
            if last is not None and span[0] <= last[1]:
                self._spans[-1] = last[0], max(last[1], span[1])
            else:
                self._spans.append(span)

    def __len__(self) -> int:
        return len(self._spans)

    def around(self, moment: float) -> tuple[float, float]:
        """Return the span that a moment is in; an empty one when it is in none."""
        place = bisect_left(self._spans, (moment, inf)) - 1
        return self._spans[place] if place >= 0 and moment <= self._spans[place][1] else (moment, moment)

    def touches(self, begin: float, end: float) -> bool:
        """Say whether a time has a moment in common with any span."""
        place = bisect_left(self._spans, (end, inf)) - 1
        return place >= 0 and begin <= self._spans[place][1]

    def begun(self, moment: float) -> int:
        """Return how many have begun until a moment."""
        return bisect_left(self._spans, (moment, inf))


class Steps:
    """The highest of some numbers, each of which counts from a moment on."""

    def __init__(self, steps: Iterable[tuple[float, float]]) -> None:
        self._moments: list[float] = []
        self._highest: list[float] = []
        for moment, number in sorted(steps):
            self._moments.append(moment)
            self._highest.append(max(number, self._highest[-1]) if self._highest else number)

    def before(self, moment: float) -> float:
        """Return the highest that counted before a moment."""
        place = bisect_left(self._moments, moment)
        return self._highest[place - 1] if place else -inf


class Seen:
    """What invariants look up in a history: all but answers about calls. Of what is recorded it has digests."""

    def __init__(self, history: Iterable[Operation]) -> None:
        self.of_kind: dict[Kind, list[Operation]] = defaultdict(list)
        self.recorded, self.late, latest = array("Q"), 0.0, -inf
        for one in history:
            if one.kind is Kind.RECORDED:
                self.recorded.append(_digest_of(one.decision))
                continue
            # How much later than others a line can come that was asked for before them.
            self.late, latest = max(self.late, latest - one.invoked), max(latest, one.invoked)
            if one.kind is not Kind.AUTHORIZE:
                self.of_kind[one.kind].append(one)
        for lines in self.of_kind.values():
            lines.sort(key=lambda one: one.invoked)
        self.recorded = array("Q", sorted(self.recorded))
        self.requests = {one.session: one for one in self.of_kind[Kind.REQUEST] if one.session}
        self.changes = by((one for kind in CHANGES for one in self.of_kind[kind]), lambda one: one.session)
        # When each session was labelled, or may have been: a label is one of all above it.
        self._labelled: dict[str, list[float]] = defaultdict(list)
        for one in self.of_kind[Kind.LABEL]:
            for name in self.family(one.session) if one.result is not Result.FAILED else ():
                self._labelled[name].append(one.invoked)
        # When servers took over that may lack what was acknowledged until then.
        self.losses = Spans(span_of(one) for one in self.of_kind[Kind.FAULT] if one.name == LOSS)

    def calls(self, history: Iterable[Operation]) -> Iterator[Operation]:
        """Yield the calls of the history that this is of, in order of invocation, and hold few of them back for it."""
        waiting: list[tuple[float, int, Operation]] = []
        latest = -inf
        for number, one in enumerate(history):
            if one.kind is not Kind.AUTHORIZE:
                continue
            heappush(waiting, (one.invoked, number, one))
            latest = max(latest, one.invoked)
            while waiting and waiting[0][0] <= latest - self.late:
                yield heappop(waiting)[-1]
        while waiting:
            yield heappop(waiting)[-1]

    def family(self, session: str) -> Iterator[str]:
        """Yield a session and all above it."""
        while session:
            yield session
            session = self.requests[session].parent

    def acknowledged(self, *kinds: Kind) -> Iterator[Operation]:
        """Yield the operations of these kinds that were answered as done."""
        return (one for kind in kinds for one in self.of_kind[kind] if one.result is Result.OK)

    def labels_in(self, change: Operation) -> int:
        """Return how many labels can be in the epoch that a change has answered, though it did not write them.

        Calls that nothing about them depends on are answered without them.
        """
        return bisect_left(self._labelled.get(change.session, []), change.returned)

    def may_be_lost(self, one: Operation) -> bool:
        """Say whether a change was made before a server took over that may lack it."""
        return self.losses.begun(inf) > self.losses.begun(one.invoked) or self.losses.touches(one.invoked, one.returned)

    def times_recorded(self, decision: str) -> int:
        """Return how often a decision is recorded."""
        digest = _digest_of(decision)
        return bisect_right(self.recorded, digest) - bisect_left(self.recorded, digest)


def by(lines: Iterable[Operation], key: Callable[[Operation], T]) -> Mapping[T, list[Operation]]:
    """Return lines by what they have in common."""
    groups: dict[T, list[Operation]] = defaultdict(list)
    for one in lines:
        groups[key(one)].append(one)
    return groups


def span_of(one: Operation) -> tuple[float, float]:
    """Return when an operation was under way."""
    return one.invoked, one.returned


def _digest_of(decision: str) -> int:
    return int.from_bytes(blake2b(decision.encode(), digest_size=8).digest(), "big")
