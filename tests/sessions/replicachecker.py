"""Look through a history of several replicas for what must never be: the invariants I1 to I12.

A history is gone through twice: first for what was changed, what broke and what was recorded, and then for answers
about calls, each of which is looked at by itself in order of time. So the time that it takes grows with the history,
and the memory with sessions and changes alone, but for eight bytes of each record. An operation may have taken effect
at any moment between its invocation and its return, so a violation is found only where no order of these moments
explains what clients saw.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from typing import Final

from pdp.sessions.lease import CLOCK_RATE
from tests.sessions.replicahistory import CUT, EVERYWHERE, Kind, Operation, Result
from tests.sessions.replicaseen import CHANGES, CLOSING, Seen, Spans, Steps, by, span_of

# What records say of a session that was closed, and of one that was approved.
_TOLD: Final = (("ended", "revoked"), ("approved",))
_CLOSED: Final = frozenset({"denied", "ended", "revoked", "expired"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What was promised: the length of a lease and three bounds, all in seconds, and whether records `tell` of changes.

    `clock` is how far wall clocks may be apart, `fence` how much longer than a lease a change may be held back, and
    `settling` how long after the last fault all replicas must answer again.
    """

    lease: float
    clock: float
    fence: float
    settling: float
    tell: bool = True


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
# Says of an answer why it must not be; nothing of one that may. They come in order of invocation.
Judge = Callable[[Operation], str]


def _nothing_after_its_end(seen: Seen, _: Terms) -> Judge:
    """I1: no allow that was asked for after a revocation, end or narrowing of it, or of one above, was acknowledged."""
    return _after_what_forbids(seen, (*CLOSING, Kind.NARROW))


def _nothing_after_a_label(seen: Seen, _: Terms) -> Judge:
    """I11: no allow that was asked for after a label that forbids it was acknowledged."""
    return _after_what_forbids(seen, (Kind.LABEL,))


def _after_what_forbids(seen: Seen, kinds: tuple[Kind, ...]) -> Judge:
    # A change forbids one tool, or all.
    since: dict[tuple[str, str], float] = {}
    for one in seen.acknowledged(*kinds):
        # What was read counts up: a label of a session is one of all above it.
        for name in seen.family(one.session) if one.kind is Kind.LABEL else (one.session,):
            since[name, one.tool] = min(since.get((name, one.tool), inf), one.returned)

    def judge(one: Operation) -> str:
        if not one.allowed:
            return ""
        moments = (since.get((name, tool), inf) for name in seen.family(one.session) for tool in ("", one.tool))
        known = min(moments, default=inf)
        return f"allowed {one.invoked - known:.3f} s after what forbids it" if known < one.invoked else ""

    return judge


def _each_change_is_seen(seen: Seen, _: Terms) -> Judge:
    """I1: whoever asks after a change was acknowledged, at whatever replica, gets an answer that knows it.

    After a server has taken over that may lack it, nothing is said of that. Labels have an invariant of their own.
    """
    known = {
        key: Steps((one.returned, one.epoch - seen.labels_in(one)) for one in changes)
        for key, changes in by(
            (
                one
                for changes in seen.changes.values()
                for one in changes
                if one.result is Result.OK and one.epoch >= 0 and not seen.losses.touches(one.invoked, one.returned)
            ),
            lambda one: (one.session, seen.losses.begun(one.invoked)),
        ).items()
    }

    def judge(one: Operation) -> str:
        steps = known.get((one.session, seen.losses.begun(one.returned)))
        latest = steps.before(one.invoked) if steps is not None else -inf
        return f"is of an epoch before an acknowledged change, `{latest}`" if one.epoch < latest else ""

    return judge


def _each_insistence_is_met(seen: Seen, _: Terms) -> Judge:
    """I1: an answer knows the change on which its caller insists, acknowledged or not.

    After a server has taken over that may lack it, no allow does otherwise. A label of a call takes no revision, on
    which its caller could insist: who hears of an earlier change afterwards is told the epoch that counts the label.
    """
    labels = Counter(name for one in seen.of_kind[Kind.LABEL] for name in seen.family(one.session))

    def judge(one: Operation) -> str:
        bound = one.allowed or not seen.losses.begun(one.returned)
        least = one.least - labels[one.session]
        return "is of an epoch before what the caller has heard of" if bound and one.epoch < least else ""

    return judge


def _no_older_bundle(seen: Seen, _: Terms) -> Judge:
    """I1: no answer by a bundle that was replaced before the answer was asked for. Each is activated only once."""
    replaced: dict[str, float] = defaultdict(lambda: -inf)
    for one in seen.of_kind[Kind.ACTIVATE]:
        returned = one.returned if one.result is Result.OK else inf
        replaced[one.bundle] = max(replaced[one.bundle], returned)
    activations = Steps((one.returned, one.invoked) for one in seen.acknowledged(Kind.ACTIVATE))

    def judge(one: Operation) -> str:
        older = replaced.get(one.bundle, -inf) < activations.before(one.invoked)
        return "decided by a bundle that was replaced before" if older else ""

    return judge


def _time_does_not_go_back(seen: Seen, _: Terms) -> Judge:
    """I6: a replica that has answered by one epoch of a session answers by no earlier one afterwards.

    After a server has taken over that may lack changes, it begins anew.
    """
    # The epoch that it knew, and later ones in answers that were still under way.
    latest: dict[tuple[str, int, int], int] = defaultdict(lambda: -1)
    later: dict[tuple[str, int, int], list[tuple[float, int]]] = defaultdict(list)

    def judge(one: Operation) -> str:
        key = one.session, one.replica, seen.losses.begun(one.returned)
        answered = later[key]
        while answered and answered[0][0] < one.invoked:
            latest[key] = max(latest[key], heappop(answered)[1])
        if one.epoch > latest[key] and not seen.losses.touches(one.invoked, one.returned):
            heappush(answered, (one.returned, one.epoch))
        return f"is of an epoch before one that this replica knew, `{latest[key]}`" if one.epoch < latest[key] else ""

    return judge


def _within_its_approval(seen: Seen, terms: Terms) -> Judge:
    """I2: no allow before the approval was asked for, and none after the end that it set."""
    approved: dict[str, float] = {}
    until: dict[str, float] = defaultdict(lambda: inf)
    for one in seen.of_kind[Kind.APPROVE]:
        approved.setdefault(one.session, one.invoked)
        until[one.session] = min(until[one.session], one.until)

    def judge(one: Operation) -> str:
        for name in seen.family(one.session) if one.allowed else ():
            if one.returned < approved.get(name, inf):
                return f"allowed before `{name}` was approved"
            if one.invoked > until.get(name, inf) + terms.clock:
                return f"allowed {one.invoked - until[name]:.3f} s after the end of `{name}`"
        return ""

    return judge


def _silent_when_cut_off(seen: Seen, terms: Terms) -> Judge:
    """I5: a replica that is cut off from the database answers no longer than its lease lasts."""
    cuts = _faults(seen, lambda one: one.name.startswith(CUT))

    def judge(one: Operation) -> str:
        for at in (one.replica, EVERYWHERE):
            begin, end = cuts[at].around(one.invoked) if at in cuts else (inf, inf)
            if one.invoked > begin + terms.lease * CLOCK_RATE and one.returned < end:
                return f"answered {one.invoked - begin:.3f} s after it was cut off"
        return ""

    return judge


def _no_more_than_its_budget(seen: Seen, _: Terms) -> Judge:
    """I7: no more calls are allowed than a session may make, and the same request is one decision."""
    allowed: dict[str, set[str]] = defaultdict(set)
    decided: dict[str, str] = {}

    def judge(one: Operation) -> str:
        budget = seen.requests[one.session].budget if one.allowed else -1
        if budget < 0:
            return ""
        if one.request_id and decided.setdefault(one.request_id, one.decision) != one.decision:
            return f"the same request was decided as `{decided[one.request_id]}`"
        allowed[one.session].add(one.request_id or one.decision)
        count = len(allowed[one.session])
        return f"{count} calls of `{budget}`" if count > budget else ""

    return judge


def _recorded_once(seen: Seen, _: Terms) -> Judge:
    """I8: each answer has one record."""

    def judge(one: Operation) -> str:
        count = seen.times_recorded(one.decision)
        # A request that is repeated is the same decision, and is recorded each time.
        return f"recorded {count} times" if not count or (count > 1 and not one.request_id) else ""

    return judge if seen.recorded else lambda _: ""


def _kept(seen: Seen, _: Terms) -> Found:
    """I3: what was acknowledged is there at the end, unless a server has taken over that may lack it."""
    closed = {one.session for one in seen.acknowledged(*CLOSING)}
    approved = {one.session for one in seen.acknowledged(Kind.APPROVE)}
    epochs: dict[str, int] = defaultdict(lambda: -1)
    for one in seen.acknowledged(*CHANGES):
        if not seen.may_be_lost(one):
            epochs[one.session] = max(epochs[one.session], one.epoch)
    for read in seen.of_kind[Kind.READ]:
        family = [*seen.family(read.session)]
        if read.result is not Result.OK:
            if not any(seen.may_be_lost(seen.requests[name]) for name in family):
                yield read, "a session that was acknowledged is not there"
        elif read.state not in _CLOSED and not closed.isdisjoint(family):
            yield read, "a session that was closed is not"
        elif read.state in ("requested", "denied") and read.session in approved:
            yield read, "a session that was approved is not"
        elif read.epoch < epochs[read.session]:
            yield read, "a change that was acknowledged is not there"


def _losses_are_named(seen: Seen, _: Terms) -> Found:
    """I3: where a server has taken over that may lack changes, records name it, and no session goes on from before."""
    if len({one.name for one in seen.of_kind[Kind.WENT_BACK]}) < len(seen.losses):
        yield seen.of_kind[Kind.FAULT][-1], "no record says that the database has gone back"
    latest = seen.losses.begun(inf)
    for read in seen.of_kind[Kind.READ]:
        before = seen.losses.begun(seen.requests[read.session].returned) < latest
        if before and read.result is Result.OK and read.state not in _CLOSED:
            yield read, "a session goes on although its latest changes may be lost"


def _one_by_one(seen: Seen, _: Terms) -> Found:
    """I4: each change is one epoch, and of those who approve the same session one wins."""
    winners: Counter[str] = Counter()
    for one in seen.acknowledged(Kind.APPROVE):
        winners[one.session] += 1
        if winners[one.session] > 1:
            yield one, "approved a second time"
    tried, closed = Counter[str](), Counter[str]()
    for one in (one for kind in CHANGES for one in seen.of_kind[kind] if one.result is not Result.FAILED):
        # A label of a session is one of all above it, and what closes a session closes all below it.
        for name in seen.family(one.session) if one.kind is Kind.LABEL else (one.session,):
            tried[name] += 1
        closed[one.session] += one.kind in CLOSING
    for read in seen.of_kind[Kind.READ]:
        own, *above = seen.family(read.session)
        # A server that takes over may close what is live.
        most = seen.requests[own].epoch + tried[own] + sum(closed[name] for name in above) + bool(len(seen.losses))
        if read.epoch > most:
            yield read, f"more epochs than changes, `{most}`"


def _each_change_is_told(seen: Seen, terms: Terms) -> Found:
    """I12: a record says of each session that was closed that it was, and of each that was approved."""
    told = by(seen.of_kind[Kind.TOLD], lambda one: one.name)
    closed, approved = ({one.session for name in names for one in told.get(name, ())} for names in _TOLD)
    given = {one.session for one in seen.acknowledged(Kind.APPROVE)}
    for read in seen.of_kind[Kind.READ] if told and terms.tell else ():
        if seen.may_be_lost(seen.requests[read.session]):
            continue
        if read.state in ("ended", "revoked") and read.session not in closed:
            yield read, "no record says that the session was closed"
        if read.session in given - approved:
            yield read, "no record says that the session was approved"


def _back_again(seen: Seen, terms: Terms) -> Found:
    """I9: some time after the last fault all replicas answer, and agree."""
    for one in seen.of_kind[Kind.CALM]:
        if one.returned - one.invoked > terms.settling:
            yield one, f"no answers from all for {one.returned - one.invoked:.3f} s"
    for reads in by(seen.of_kind[Kind.READ], lambda one: one.session).values():
        # A session can expire between two reads.
        if len({(one.result, one.state.replace("expired", "active"), one.epoch) for one in reads}) > 1:
            yield reads[0], "replicas do not agree"


def _answers_when_calm(seen: Seen, _: Terms) -> Judge:
    """I9: from then on, and until the next fault, each call has an answer."""
    calms = Steps((one.returned, one.returned) for one in seen.of_kind[Kind.CALM])
    faults = Spans(span_of(one) for one in seen.of_kind[Kind.FAULT])

    def judge(one: Operation) -> str:
        since = calms.before(one.invoked) if one.result is not Result.OK else -inf
        if since == -inf or faults.touches(since, one.returned):
            return ""
        return f"no answer {one.invoked - since:.3f} s after all answered again"

    return judge


def _fenced_in_time(seen: Seen, terms: Terms) -> Found:
    """I10: a change is held back no longer than a lease lasts, when nothing is broken where it is made."""
    faults = _faults(seen, lambda _: True)
    most = terms.lease * CLOCK_RATE + terms.fence
    for one in (one for kind in CHANGES for one in seen.of_kind[kind]):
        broken = any(faults[at].touches(one.invoked, one.returned) for at in (one.replica, EVERYWHERE) if at in faults)
        if one.fence_seconds > most and not broken:
            yield one, f"held back for {one.fence_seconds:.3f} s"


# Of answers, and of calls with or without an answer.
_ANSWERS: Final[tuple[tuple[str, Callable[[Seen, Terms], Judge]], ...]] = (
    ("I1", _nothing_after_its_end),
    ("I1", _each_change_is_seen),
    ("I1", _each_insistence_is_met),
    ("I1", _no_older_bundle),
    ("I2", _within_its_approval),
    ("I5", _silent_when_cut_off),
    ("I6", _time_does_not_go_back),
    ("I7", _no_more_than_its_budget),
    ("I8", _recorded_once),
    ("I11", _nothing_after_a_label),
)
_CALLS: Final[tuple[tuple[str, Callable[[Seen, Terms], Judge]], ...]] = (("I9", _answers_when_calm),)
# Of all else.
_OTHERS: Final[tuple[tuple[str, Callable[[Seen, Terms], Found]], ...]] = (
    ("I3", _kept),
    ("I3", _losses_are_named),
    ("I4", _one_by_one),
    ("I9", _back_again),
    ("I10", _fenced_in_time),
    ("I12", _each_change_is_told),
)
INVARIANTS: Final = frozenset(name for name, _ in (*_ANSWERS, *_CALLS, *_OTHERS))


def violations(history: Iterable[Operation], terms: Terms) -> Iterator[Violation]:
    """Yield all that must not be in a history, which is gone through twice."""
    seen = Seen(history)
    for name, look in _OTHERS:
        for line, why in look(seen, terms):
            yield Violation(name, line, why)
    calls = [(name, look(seen, terms)) for name, look in _CALLS]
    answers = [(name, look(seen, terms)) for name, look in (*_CALLS, *_ANSWERS)]
    for one in seen.calls(history):
        for name, judge in answers if one.result is Result.OK else calls:
            if why := judge(one):
                yield Violation(name, one, why)


def _faults(seen: Seen, counts: Callable[[Operation], bool]) -> Mapping[int, Spans]:
    """Return when each replica had faults."""
    faults = by((one for one in seen.of_kind[Kind.FAULT] if counts(one)), lambda one: one.replica)
    return {replica: Spans(map(span_of, found)) for replica, found in faults.items()}
