"""Look through a history of several replicas for what must never be: the invariants I1 to I11.

Each invariant is a pass over the history in order of time, with a look-up for each line. An operation may have taken
effect at any moment between its invocation and its return, so a violation is found only where no order of these moments
explains what clients saw.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Final, TypeVar

from pdp.sessions.lease import CLOCK_RATE
from tests.sessions.replicahistory import CUT, EVERYWHERE, Kind, Operation, Result

T = TypeVar("T")

_CLOSING: Final = (Kind.REVOKE, Kind.END)
_CLOSED: Final = frozenset({"denied", "ended", "revoked", "expired"})
_CHANGES: Final = (Kind.APPROVE, *_CLOSING, Kind.NARROW, Kind.LABEL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What was promised: the length of a lease and three bounds, all in seconds.

    `clock` is how far wall clocks may be apart, `fence` how much longer than a lease a change may be held back, and
    `settling` how long after the last fault all replicas must answer again.
    """

    lease: float
    clock: float
    fence: float
    settling: float


@dataclass(frozen=True, slots=True)
class Violation:
    """A line that must not be, and the invariant that it breaks."""

    invariant: str
    line: Operation
    why: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.why}: {self.line}"


# A line that must not be, and why.
Found = Iterator[tuple[Operation, str]]


class Seen:
    """A history in order of invocation, and what several invariants look up in it."""

    def __init__(self, history: Iterable[Operation]) -> None:
        self.lines = sorted(history, key=lambda one: one.invoked)
        self.of_kind: dict[Kind, list[Operation]] = defaultdict(list)
        self.changes: dict[str, list[Operation]] = defaultdict(list)
        self.requests: dict[str, Operation] = {}
        for one in self.lines:
            self.of_kind[one.kind].append(one)
            if one.kind in _CHANGES:
                self.changes[one.session].append(one)
            if one.kind is Kind.REQUEST and one.session:
                self.requests[one.session] = one
        self.answers = [one for one in self.of_kind[Kind.AUTHORIZE] if one.result is Result.OK]
        self.allows = [one for one in self.answers if one.allowed]

    def family(self, session: str) -> Iterator[str]:
        """Yield a session and all above it."""
        while session:
            yield session
            session = self.requests[session].parent

    def acknowledged(self, *kinds: Kind) -> Iterator[Operation]:
        """Yield the operations of these kinds that were answered as done."""
        return (one for kind in kinds for one in self.of_kind[kind] if one.result is Result.OK)


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

    def around(self, moment: float) -> tuple[float, float]:
        """Return the span that a moment is in; an empty one when it is in none."""
        place = bisect_left(self._spans, (moment, inf)) - 1
        return self._spans[place] if place >= 0 and moment <= self._spans[place][1] else (moment, moment)

    def touches(self, begin: float, end: float) -> bool:
        """Say whether a time has a moment in common with any span."""
        place = bisect_left(self._spans, (end, inf)) - 1
        return place >= 0 and begin <= self._spans[place][1]


def _nothing_after_its_end(seen: Seen, _: Terms) -> Found:
    """I1: no allow that was asked for after a revocation, end or narrowing of it, or of one above, was acknowledged."""
    yield from _after_what_forbids(seen, (*_CLOSING, Kind.NARROW))


def _nothing_after_a_label(seen: Seen, _: Terms) -> Found:
    """I11: no allow that was asked for after a label that forbids it was acknowledged."""
    yield from _after_what_forbids(seen, (Kind.LABEL,))


def _after_what_forbids(seen: Seen, kinds: tuple[Kind, ...]) -> Found:
    # A change forbids one tool, or all.
    since: dict[tuple[str, str], float] = defaultdict(lambda: inf)
    for one in seen.acknowledged(*kinds):
        # What was read counts up: a label of a session is one of all above it.
        for name in seen.family(one.session) if one.kind is Kind.LABEL else (one.session,):
            since[name, one.tool] = min(since[name, one.tool], one.returned)
    for allow in seen.allows:
        known = min((min(since[name, ""], since[name, allow.tool]) for name in seen.family(allow.session)), default=inf)
        if known < allow.invoked:
            yield allow, f"allowed {allow.invoked - known:.3f} s after what forbids it"


def _each_change_is_seen(seen: Seen, _: Terms) -> Found:
    """I1: whoever asks after a change was acknowledged, at whatever replica, gets an answer that knows it."""
    answers = _by(seen.answers, lambda one: one.session)
    for session, asked in answers.items():
        changes = [one for one in seen.changes[session] if one.result is Result.OK and one.epoch >= 0]
        known = sorted((one.returned, one.epoch) for one in changes)
        yield from _behind(asked, known, "is of an epoch before an acknowledged change")


def _each_insistence_is_met(seen: Seen, _: Terms) -> Found:
    """I1: an answer knows the change on which its caller insists, acknowledged or not."""
    for one in seen.answers:
        if one.epoch < one.least:
            yield one, "is of an epoch before what the caller has heard of"


def _no_older_bundle(seen: Seen, _: Terms) -> Found:
    """I1: no answer by a bundle that was replaced before the answer was asked for. Each is activated only once."""
    replaced: dict[str, float] = defaultdict(lambda: -inf)
    for one in seen.of_kind[Kind.ACTIVATE]:
        returned = one.returned if one.result is Result.OK else inf
        replaced[one.bundle] = max(replaced[one.bundle], returned)
    activations = sorted((one.returned, one.invoked) for one in seen.acknowledged(Kind.ACTIVATE))
    place, latest = 0, -inf
    for one in seen.answers:
        while place < len(activations) and activations[place][0] < one.invoked:
            latest = max(latest, activations[place][1])
            place += 1
        if replaced[one.bundle] < latest:
            yield one, "decided by a bundle that was replaced before"


def _time_does_not_go_back(seen: Seen, _: Terms) -> Found:
    """I6: a replica that has answered by one epoch of a session answers by no earlier one afterwards."""
    for asked in _by(seen.answers, lambda one: (one.session, one.replica)).values():
        known = sorted((one.returned, one.epoch) for one in asked if one.epoch >= 0)
        yield from _behind(asked, known, "is of an epoch before one that this replica knew")


def _behind(asked: list[Operation], known: list[tuple[float, int]], why: str) -> Found:
    """Yield the answers that lack what was known before they were asked for."""
    place, latest = 0, -1
    for one in asked:
        while place < len(known) and known[place][0] < one.invoked:
            latest = max(latest, known[place][1])
            place += 1
        if one.epoch < latest:
            yield one, f"{why}, `{latest}`"


def _within_its_approval(seen: Seen, terms: Terms) -> Found:
    """I2: no allow before the approval was asked for, and none after the end that it set."""
    approved: dict[str, float] = {}
    until: dict[str, float] = defaultdict(lambda: inf)
    for one in seen.of_kind[Kind.APPROVE]:
        approved.setdefault(one.session, one.invoked)
        until[one.session] = min(until[one.session], one.until)
    for allow in seen.allows:
        for name in seen.family(allow.session):
            if allow.returned < approved.get(name, inf):
                yield allow, f"allowed before `{name}` was approved"
            if allow.invoked > until[name] + terms.clock:
                yield allow, f"allowed {allow.invoked - until[name]:.3f} s after the end of `{name}`"


def _kept(seen: Seen, _: Terms) -> Found:
    """I3: what was acknowledged is there at the end."""
    closed = {one.session for one in seen.acknowledged(*_CLOSING)}
    approved = {one.session for one in seen.acknowledged(Kind.APPROVE)}
    epochs: dict[str, int] = defaultdict(lambda: -1)
    for one in seen.acknowledged(*_CHANGES):
        epochs[one.session] = max(epochs[one.session], one.epoch)
    for read in seen.of_kind[Kind.READ]:
        if read.result is not Result.OK:
            yield read, "a session that was acknowledged is not there"
        elif read.state not in _CLOSED and not closed.isdisjoint(seen.family(read.session)):
            yield read, "a session that was closed is not"
        elif read.state in ("requested", "denied") and read.session in approved:
            yield read, "a session that was approved is not"
        elif read.epoch < epochs[read.session]:
            yield read, "a change that was acknowledged is not there"


def _one_by_one(seen: Seen, _: Terms) -> Found:
    """I4: each change is one epoch, and of those who approve the same session one wins."""
    winners: Counter[str] = Counter()
    for one in seen.acknowledged(Kind.APPROVE):
        winners[one.session] += 1
        if winners[one.session] > 1:
            yield one, "approved a second time"
    tried, closed = Counter[str](), Counter[str]()
    for one in (one for kind in _CHANGES for one in seen.of_kind[kind] if one.result is not Result.FAILED):
        # A label of a session is one of all above it, and what closes a session closes all below it.
        for name in seen.family(one.session) if one.kind is Kind.LABEL else (one.session,):
            tried[name] += 1
        closed[one.session] += one.kind in _CLOSING
    for read in seen.of_kind[Kind.READ]:
        own, *above = seen.family(read.session)
        most = seen.requests[own].epoch + tried[own] + sum(closed[name] for name in above)
        if read.epoch > most:
            yield read, f"more epochs than changes, `{most}`"


def _silent_when_cut_off(seen: Seen, terms: Terms) -> Found:
    """I5: a replica that is cut off from the database answers no longer than its lease lasts."""
    cuts = _faults(seen, lambda one: one.name == CUT)
    for one in seen.answers:
        begin, end = cuts[one.replica].around(one.invoked) if one.replica in cuts else (inf, inf)
        if one.invoked > begin + terms.lease * CLOCK_RATE and one.returned < end:
            yield one, f"answered {one.invoked - begin:.3f} s after it was cut off"


def _no_more_than_its_budget(seen: Seen, _: Terms) -> Found:
    """I7: no more calls are allowed than a session may make, and the same request is one decision."""
    allowed: dict[str, set[str]] = defaultdict(set)
    decided: dict[str, str] = {}
    for one in seen.allows:
        if one.request_id and decided.setdefault(one.request_id, one.decision) != one.decision:
            yield one, f"the same request was decided as `{decided[one.request_id]}`"
        budget = seen.requests[one.session].budget
        if budget >= 0:
            allowed[one.session].add(one.request_id or one.decision)
            if len(allowed[one.session]) > budget:
                yield one, f"{len(allowed[one.session])} calls of `{budget}`"


def _recorded_once(seen: Seen, _: Terms) -> Found:
    """I8: each answer has one record."""
    recorded = {one.decision: one.count for one in seen.of_kind[Kind.RECORDED]}
    for one in seen.answers if recorded else ():
        count = recorded.get(one.decision, 0)
        # A request that is repeated is the same decision, and is recorded each time.
        if not count or (count > 1 and not one.request_id):
            yield one, f"recorded {count} times"


def _back_again(seen: Seen, terms: Terms) -> Found:
    """I9: some time after the last fault all replicas answer, and agree."""
    since = inf
    for one in seen.of_kind[Kind.CALM]:
        since = one.returned
        if one.returned - one.invoked > terms.settling:
            yield one, f"no answers from all for {one.returned - one.invoked:.3f} s"
    for one in seen.of_kind[Kind.AUTHORIZE]:
        if one.invoked > since and one.result is not Result.OK:
            yield one, f"no answer {one.invoked - since:.3f} s after all answered again"
    for reads in _by(seen.of_kind[Kind.READ], lambda one: one.session).values():
        # A session can expire between two reads.
        if len({(one.state.replace("expired", "active"), one.epoch) for one in reads}) > 1:
            yield reads[0], "replicas do not agree"


def _fenced_in_time(seen: Seen, terms: Terms) -> Found:
    """I10: a change is held back no longer than a lease lasts, when nothing is broken where it is made."""
    faults = _faults(seen, lambda _: True)
    most = terms.lease * CLOCK_RATE + terms.fence
    for one in (one for kind in _CHANGES for one in seen.of_kind[kind]):
        broken = any(faults[at].touches(one.invoked, one.returned) for at in (one.replica, EVERYWHERE) if at in faults)
        if one.fence_seconds > most and not broken:
            yield one, f"held back for {one.fence_seconds:.3f} s"


INVARIANTS: Final[tuple[tuple[str, Callable[[Seen, Terms], Found]], ...]] = (
    ("I1", _nothing_after_its_end),
    ("I1", _each_change_is_seen),
    ("I1", _each_insistence_is_met),
    ("I1", _no_older_bundle),
    ("I2", _within_its_approval),
    ("I3", _kept),
    ("I4", _one_by_one),
    ("I5", _silent_when_cut_off),
    ("I6", _time_does_not_go_back),
    ("I7", _no_more_than_its_budget),
    ("I8", _recorded_once),
    ("I9", _back_again),
    ("I10", _fenced_in_time),
    ("I11", _nothing_after_a_label),
)


def violations(history: Iterable[Operation], terms: Terms) -> list[Violation]:
    """Return all that must not be in a history."""
    seen = Seen(history)
    return [Violation(name, line, why) for name, look in INVARIANTS for line, why in look(seen, terms)]


def _by(lines: Iterable[Operation], key: Callable[[Operation], T]) -> Mapping[T, list[Operation]]:
    groups: dict[T, list[Operation]] = defaultdict(list)
    for one in lines:
        groups[key(one)].append(one)
    return groups


def _faults(seen: Seen, counts: Callable[[Operation], bool]) -> Mapping[int, Spans]:
    """Return when each replica had faults."""
    faults = _by((one for one in seen.of_kind[Kind.FAULT] if counts(one)), lambda one: one.replica)
    return {replica: Spans((one.invoked, one.returned) for one in found) for replica, found in faults.items()}
