"""A model of replicas on one database: lease, fence, joining, removal and failover, searched exhaustively.

A replica answers from memory while its lease lasts. It renews the lease by a write, from whose answer it learns what
has changed, and confirms what it has learned. A revocation is acknowledged when every registered replica has confirmed
it, or when every lease has ended that could have begun before it. Its server can end before, and another server find it
made: that one acknowledges it only in the same way. The model takes every step that can come next, in every order: what
is sent can arrive at any time later or never, and time passes in between. A state is wrong when a call that begins now
would be allowed although the revocation was acknowledged.

Time is relative, so states repeat and the search ends: a lease is what is left of it, a renewal how long ago it began.
`Rules` has a switch for each rule; `RIGHT` has all of them, and a mutant lacks one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NamedTuple, TypeVar

T = TypeVar("T")

# How long a lease lasts, in ticks.
LEASE: Final = 2
REVOCATION: Final = "revocation"
OTHER: Final = "another change"

# The changes that a node holds, by their numbers. What a change is also serves as its random tag.
Log = tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What replicas and the one that revokes hold to; each mutant of `replicamutants.md` lacks one."""

    time_before_sending: bool = True
    renews_by_writing: bool = True
    waits: bool = True
    numbers_in_order_of_commit: bool = True
    compares_tags: bool = True
    confirms_tags: bool = True
    waits_for_all: bool = True
    steady_clock: bool = True
    cancelled_is_unknown: bool = True
    row_before_lease: bool = True
    applies_after_commit: bool = True
    waits_for_silent_rows: bool = True
    removes_only_unchanged: bool = True
    waits_after_failover: bool = True
    publishes_before_confirming: bool = True
    publishes_at_once: bool = True
    waits_for_what_it_finds: bool = True
    finds_by_writing: bool = True


RIGHT: Final = Rules()


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What there is and can happen: how many replicas, other changes, removals, and the way of failing over.

    With `quorum` nothing is acknowledged that the standby lacks, and the old primary can go on after the promotion of
    the standby. With `async` the standby lags behind, and the old primary is dead when it is promoted.
    """

    replicas: int = 1
    others: bool = False
    removals: bool = False
    failover: str = ""


SETUPS: Final = {
    "two replicas": Setup(replicas=2),
    "other changes": Setup(others=True),
    "removal": Setup(removals=True),
    "quorum": Setup(others=True, failover="quorum"),
    "async": Setup(others=True, failover="async"),
}


class Replica(NamedTuple):
    """A replica: what calls are answered by, and how far its renewal has come.

    `step` is idle, sent, executed, leased (half published, a mutant), published or told (confirmed, but not published,
    a mutant). `age` is how long ago the renewal began, and `read` what it has read. `joined` is what the replica
    believes of its row.
    """

    joined: bool = False
    lease: int = 0
    known: Log = ()
    step: str = "idle"
    age: int = 0
    read: Log = ()


class Node(NamedTuple):
    """A node of the database: changes, rows of replicas, and what they confirmed last. The last is lost in a failover.

    `silent` is how long each row has not been renewed, as somebody else has watched it.
    """

    log: Log = ()
    rows: frozenset[int] = frozenset()
    confirmed: tuple[Log, ...] = ()
    silent: tuple[int, ...] = ()


class State(NamedTuple):
    """All of it. `reserved` is the number that the revocation took before its commit, 0 for none.

    `wait` is how long the revocation that was committed still waits, None before; `found` says that another server,
    which has found it, waits. `since` is how long ago the standby was promoted, None before.
    """

    replicas: tuple[Replica, ...]
    primary: Node
    standby: Node
    since: int | None = None
    reserved: int = 0
    wait: int | None = None
    found: bool = False
    acknowledged: bool = False


def search(rules: Rules, setup: Setup) -> tuple[str, ...] | None:
    """Return the shortest sequence of steps to a wrong state, or None when there is none."""
    node = Node(confirmed=((),) * setup.replicas, silent=(0,) * setup.replicas)
    first = State((Replica(),) * setup.replicas, node, node)
    before: dict[State, tuple[State, str] | None] = {first: None}
    waiting = deque([first])
    while waiting:
        state = waiting.popleft()
        if _wrong(state, rules, setup):
            return _path(before, state)
        for step, after in _steps(state, rules, setup):
            if after not in before:
                before[after] = (state, step)
                waiting.append(after)
    return None


def _wrong(state: State, rules: Rules, setup: Setup) -> bool:
    answering = [one for one in state.replicas if one.lease or not rules.waits]
    # With a standby that lags behind, an acknowledged change can be lost; here it is about those that are there.
    promised = state.acknowledged and (setup.failover != "async" or _holds(_present(state).log))
    stale = promised and any(not _holds(one.known) for one in answering)
    # What a failover could take back must not have been applied.
    lost = setup.failover == "quorum" and any(not set(one.known) <= set(state.standby.log) for one in answering)
    return stale or lost


def _path(before: dict[State, tuple[State, str] | None], state: State) -> tuple[str, ...]:
    path = []
    while (step := before[state]) is not None:
        state, name = step
        path.append(name)
    return tuple(reversed(path))


def _steps(state: State, rules: Rules, setup: Setup) -> Iterator[tuple[str, State]]:
    yield "tick", _ticked(state)
    for number in range(setup.replicas):
        for name, after in _steps_of(state, number, rules, setup):
            yield f"{name} {number}", after
    yield from _steps_of_the_revocation(state, rules, setup)
    if setup.others and not any(what == OTHER for _, what in (*state.primary.log, *state.standby.log)):
        taken = max(_top(_present(state).log), state.reserved) + 1
        yield "another change", _committed(state, setup, (taken, OTHER))
        if setup.failover == "quorum" and state.since is None:
            # Its wait for the standby is cancelled: it can be seen, and is lost with the primary.
            yield "another change, cancelled", state._replace(primary=_with(state.primary, (taken, OTHER)))
    if setup.failover == "async" and state.since is None:
        yield "replicate", state._replace(standby=state.primary)
    if setup.failover and state.since is None:
        promoted = state.standby._replace(confirmed=((),) * setup.replicas)
        yield "promote", state._replace(since=0, standby=promoted)


def _ticked(state: State) -> State:
    """Return the state a tick later."""
    return state._replace(
        replicas=tuple(map(_ticked_replica, state.replicas)),
        primary=_ticked_node(state.primary),
        standby=_ticked_node(state.standby),
        wait=None if state.wait is None else max(state.wait - 1, 0),
        since=None if state.since is None else _later(state.since),
    )


# A search meets few replicas and nodes, each in many states.
@cache
def _ticked_replica(one: Replica) -> Replica:
    return one._replace(lease=max(one.lease - 1, 0), age=0 if one.step == "idle" else _later(one.age))


@cache
def _ticked_node(node: Node) -> Node:
    return node._replace(silent=tuple(_later(one) if row in node.rows else 0 for row, one in enumerate(node.silent)))


def _steps_of(state: State, number: int, rules: Rules, setup: Setup) -> Iterator[tuple[str, State]]:
    one = state.replicas[number]

    def became(after: State = state, **changes: Any) -> State:
        return after._replace(replicas=_set(after.replicas, number, one._replace(**changes)))

    if not one.joined and rules.row_before_lease:
        yield "join", became(_at_present(state, setup, _joined(_present(state), number)), joined=True)
    if one.step == "idle" and (one.joined or not rules.row_before_lease):
        yield "send", became(step="sent", age=0)
    if one.step == "sent":
        yield from _executions(state, number, rules, setup)
    if one.step not in ("idle", "sent"):
        yield from _steps_of_an_answer(state, number, rules, setup)
    node = _present(state)
    if setup.removals and number in node.rows and node.silent[number] == LEASE:
        yield "remove", _at_present(state, setup, node._replace(rows=node.rows - {number}))
    if not rules.steady_clock and 0 < one.lease < LEASE:
        yield "set the clock back", became(lease=one.lease + 1)


def _steps_of_an_answer(state: State, number: int, rules: Rules, setup: Setup) -> Iterator[tuple[str, State]]:
    """Yield what a replica makes of the answer to a renewal: it publishes what it has learned, and confirms it."""
    one = state.replicas[number]
    lease = max(one.lease, LEASE - one.age if rules.time_before_sending else LEASE)
    known = _learned(one.known, one.read, rules)

    def became(after: State = state, **changes: Any) -> State:
        return after._replace(replicas=_set(after.replicas, number, one._replace(**changes)))

    if one.step == "executed":
        yield "publish", became(step="published", lease=lease, known=known, read=())
        if not rules.publishes_at_once:
            yield "publish the lease alone", became(step="leased", lease=lease)
        if not rules.publishes_before_confirming:
            yield "confirm early", became(_confirmed(state, number, known), step="told")
    if one.step in ("leased", "told"):
        yield "publish late", became(step="idle", age=0, lease=lease, known=known, read=())
    if one.step == "published":
        after = _confirmed(state, number, one.known)
        if not rules.row_before_lease:
            after = _at_present(after, setup, _joined(_present(after), number))
        yield "confirm", became(after, step="idle", age=0)


def _executions(state: State, number: int, rules: Rules, setup: Setup) -> Iterator[tuple[str, State]]:
    """Yield what a node makes of a renewal that was sent."""
    one, node = state.replicas[number], _present(state)

    def became(after: State, **changes: Any) -> State:
        return after._replace(replicas=_set(after.replicas, number, one._replace(**changes)))

    if not rules.renews_by_writing:
        for name, read in (("read", node.log), ("read at the old primary", state.primary.log)):
            yield name, became(state, step="executed", read=read)
        return
    if not rules.applies_after_commit:
        yield "apply early", became(state, known=_learned(one.known, state.primary.log, rules))
    if number in node.rows or not rules.row_before_lease:
        heard = node.silent if not rules.removes_only_unchanged else _set(node.silent, number, 0)
        # With a quorum, an answer shows that the standby has all that came before.
        after = _at_present(state, setup, node._replace(silent=heard))
        yield "execute", became(after, step="executed", read=node.log)
    else:
        yield "find no row", became(state, step="idle", age=0, joined=False)


def _steps_of_the_revocation(state: State, rules: Rules, setup: Setup) -> Iterator[tuple[str, State]]:
    node = _present(state)
    if state.wait is None:
        if not rules.numbers_in_order_of_commit and not state.reserved:
            yield "take a number", state._replace(reserved=_top(node.log) + 1)
        taken = state.reserved or _top(node.log) + 1
        yield "revoke", _committed(state, setup, (taken, REVOCATION))._replace(wait=LEASE)
        if setup.failover == "quorum":
            # It can be seen at this node, and is lost with it.
            alone = _with(state.primary, (taken, REVOCATION))
            yield "revoke, cancelled", state._replace(primary=alone, wait=LEASE)
    elif not state.acknowledged:
        if _may_acknowledge(state, node, rules, setup):
            yield "acknowledge", state._replace(acknowledged=True)
        if not state.found:
            yield from _findings(state, rules, setup)


def _findings(state: State, rules: Rules, setup: Setup) -> Iterator[tuple[str, State]]:
    """Yield what comes of it when the server that revokes ends, and another one finds the revocation made."""
    after = state._replace(found=True, wait=LEASE, acknowledged=not rules.waits_for_what_it_finds)
    if not rules.finds_by_writing:
        if _holds(state.primary.log):
            yield "find it made at the old primary", after
    elif _holds(_present(state).log):
        # With a quorum, the write shows that the standby has all that came before.
        yield "find it made", _at_present(after, setup, _present(state))


def _may_acknowledge(state: State, node: Node, rules: Rules, setup: Setup) -> bool:
    """Say whether the fence lets a revocation return."""
    lost = not _holds(state.standby.log if setup.failover == "quorum" else node.log)
    if lost and rules.cancelled_is_unknown and (rules.finds_by_writing or not state.found):
        return False
    if not rules.waits or state.wait == 0:
        return True
    if rules.waits_after_failover and state.since is not None and state.since < LEASE:
        return False
    if not rules.waits_for_silent_rows:
        # By the clock of the database, which can be set, every row can look old.
        return True
    number = next((number for number, what in node.log if what == REVOCATION), 0)
    confirmed = [_confirms(node, node.confirmed[row], number, rules) for row in node.rows]
    return all(confirmed) if rules.waits_for_all else any(confirmed)


def _confirms(node: Node, confirmed: Log, number: int, rules: Rules) -> bool:
    """Say whether a replica has learned the change with a number, as far as its confirmation says."""
    fits = not rules.confirms_tags or confirmed[-1:] == tuple(one for one in node.log if one[0] == _top(confirmed))
    return 0 < number <= _top(confirmed) and fits


def _learned(known: Log, read: Log, rules: Rules) -> Log:
    """Return what a replica knows after it has read the log of a node: what is new in it, or all of it."""
    if rules.compares_tags and not set(known[-1:]) <= set(read):
        return read
    return known + tuple(one for one in read if one[0] > _top(known))


def _confirmed(state: State, number: int, known: Log) -> State:
    node = _present(state)
    node = node._replace(confirmed=_set(node.confirmed, number, known))
    return state._replace(primary=node) if state.since is None else state._replace(standby=node)


def _present(state: State) -> Node:
    return state.primary if state.since is None else state.standby


def _at_present(state: State, setup: Setup, node: Node) -> State:
    """Return the state with a node in place of the primary; with a quorum, the standby has what it has."""
    if state.since is not None:
        return state._replace(standby=node)
    return state._replace(primary=node, standby=node) if setup.failover != "async" else state._replace(primary=node)


def _committed(state: State, setup: Setup, change: tuple[int, str]) -> State:
    return _at_present(state, setup, _with(_present(state), change))


def _with(node: Node, change: tuple[int, str]) -> Node:
    return node._replace(log=tuple(sorted((*node.log, change))))


def _joined(node: Node, number: int) -> Node:
    return node._replace(rows=node.rows | {number}, silent=_set(node.silent, number, 0))


def _later(ticks: int) -> int:
    # Beyond the length of a lease, how long ago it was makes no difference.
    return min(ticks + 1, LEASE)


def _holds(log: Log) -> bool:
    return any(what == REVOCATION for _, what in log)


def _top(log: Log) -> int:
    return log[-1][0] if log else 0


def _set(values: tuple[T, ...], place: int, value: T) -> tuple[T, ...]:
    return (*values[:place], value, *values[place + 1 :])
