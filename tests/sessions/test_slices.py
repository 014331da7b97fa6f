"""Servers that take budgets in slices from one database never overshoot them, whatever happens to servers or database.

The slices are those of servers on PostgreSQL, and the database is SQLite in memory: the statements are the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from threading import Lock
from typing import Any

import apsw
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pdp.sessions.sqlhistory import TAKE, taking
from pdp.sessions.sqlslices import IDLE_SLICE_SECONDS, SQLSlices
from pdp.sessions.values import Charge, Charged, Debit, Used
from pdp.testing.stores.samples import make_moment

TOTAL, RATE = "max_calls", "max_calls_per_minute"
MOST, SLICE = 20, 5
# Of the calls in a minute.
FEW, SMALL = 6, 2
# Each charge is made at another moment.
NUMBERS = count()
TABLES = """
CREATE TABLE budgets (
  session_id TEXT, budget TEXT, used INTEGER, "window" INTEGER, ends_at REAL, PRIMARY KEY (session_id, budget)
);
CREATE TABLE slices (id TEXT PRIMARY KEY, session_id TEXT, budget TEXT, "window" INTEGER, held INTEGER, ends_at REAL);
"""


@dataclass(kw_only=True)
class Database:
    """The database that all servers share, on a timeline; `broken` makes the answer of the next commit be lost."""

    connection: apsw.Connection = field(default_factory=lambda: apsw.Connection(":memory:"))
    timeline: str = "1"
    lost: bool = False

    def __post_init__(self) -> None:
        self.connection.execute(TABLES)

    @contextmanager
    def transaction(self, _: str) -> Iterator[None]:
        """Make a transaction."""
        with self.connection:
            yield
        if self.lost:
            self.lost = False
            raise LostError

    def used(self, budget: str = TOTAL) -> int:
        """Return what is used up of a budget, as an earlier server sees it."""
        return int(self.connection.execute("SELECT used FROM budgets WHERE budget = ?", (budget,)).get or 0)

    def kept(self) -> bytes:
        """Return all that it has."""
        return self.connection.serialize("main")

    def go_back(self, content: bytes) -> None:
        """Have what it had before, as a standby that takes over."""
        self.connection.deserialize("main", content)
        self.timeline += "1"


class LostError(Exception):
    """A commit was made, and its answer was lost."""


class Server:
    """A server with a lease that follows the timeline of the database, while it has one."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.leased = True
        # Of its lease, when that is of another primary than the one that it is connected to.
        self.leased_by = ""
        self.at = 0.0
        self.slices = self.started()

    def started(self) -> SQLSlices:
        """Return what a server holds that has just started: nothing."""
        return SQLSlices(
            self.database.connection,
            lambda: (self.leased_by or self.database.timeline) if self.leased else None,
            timeline=lambda: self.database.timeline,
            charging=self.database.transaction,
            returning=self.database.transaction,
            turn=Lock(),
            monotonic=lambda: self.at,
        )

    def charge(self, *amounts: int, window: int = 0, retry: bytes = b"") -> Charged:
        """Charge a call."""
        return self.slices.charge(charge(*amounts, window=window, retry=retry))

    def stop(self) -> None:
        """Give back all that it holds."""
        self.slices.give_back_idle(0.0)


def charge(*amounts: int, window: int = 0, retry: bytes = b"") -> Charge:
    """Return the charge of a call for both budgets, or the first."""
    kinds = (TOTAL, MOST, SLICE, 0), (RATE, FEW, SMALL, window)
    debits = [
        Debit(session_id="ses_a", budget=budget, amount=amount, most=most, window=of, ends_at=5000.0, slice=part)
        for (budget, most, part, of), amount in zip(kinds, amounts, strict=False)
    ]
    return Charge(
        debits=tuple(debits), retry_digest=retry, now=make_moment(1000.0 + next(NUMBERS) / 1000), tree_id="ses_a"
    )


@pytest.fixture
def database() -> Iterator[Database]:
    """Give a database."""
    with closing((made := Database()).connection):
        yield made


Two = tuple[Server, Server]


@pytest.mark.parametrize("again", [True, False], ids=["another call was charged", "none was"])
@pytest.mark.parametrize("leased", [True, False], ids=["with a lease", "without"])
def test_what_was_charged_at_a_primary_before_is_not_taken_back(
    database: Database, *, again: bool, leased: bool
) -> None:
    """The one that has taken its place may never have had the debit: what is given back there was never taken."""
    server = Server(database)
    before = database.kept()
    lost = charge(3, retry=b"lost")
    server.slices.charge(lost)
    database.go_back(before)
    server.leased = leased
    allowed = [server.charge(1).exhausted is None for _ in range(again)]
    server.slices.take_back(lost, lost.at)
    allowed += [server.charge(1).exhausted is None for _ in range(2 * MOST)]

    assert sum(allowed) == MOST


@pytest.fixture
def two(database: Database) -> Two:
    """Give two servers on it."""
    return Server(database), Server(database)


def test_calls_within_a_slice_ask_nothing(database: Database, two: Two) -> None:
    """The slice is used up in the row before the first of them, and each is told what it knows to be used."""
    here, there = two
    first = [here.charge(1).used, there.charge(1).used]
    database.connection.execute("ALTER TABLE budgets RENAME TO away")
    rest = [here.charge(1).used for _ in range(SLICE - 1)]

    assert [(1,), (SLICE + 1,)] == first
    assert [(2,), (3,), (4,), (5,)] == rest
    with pytest.raises(apsw.SQLError):
        here.charge(1)


def test_all_of_a_budget_can_be_spent(two: Two) -> None:
    """Also when no whole slice is left: then each call takes exactly what it needs, and nothing is beyond the most."""
    here, there = two
    charged = [server.charge(3) for server in (here, there) * MOST]
    small = [server.charge(1) for server in (here, there) * MOST]

    assert 3 * sum(bool(one.used) for one in charged) + sum(bool(one.used) for one in small) == MOST
    assert charge(1).debits[0] == small[-1].exhausted


def test_idle_slices_come_back(database: Database, two: Two) -> None:
    """After five seconds without a call, and once; what was spent of them does not."""
    here, there = two
    here.charge(1)
    here.charge(1)
    here.at = 4.9
    here.slices.give_back_idle(IDLE_SLICE_SECONDS)
    busy = database.used()
    here.at = 5.0
    for _ in range(2):
        here.slices.give_back_idle(IDLE_SLICE_SECONDS)
    taken = [there.charge(1).used for _ in range(MOST)]

    assert (SLICE, 2) == (busy, 2)
    assert [(number,) for number in range(3, MOST + 1)] == [one for one in taken if one]


def test_what_is_held_elsewhere_is_told_from_what_is_spent(two: Two) -> None:
    """Each server counts its own rest as left, and that of others as held, until they give it back."""
    here, there = two
    here.charge(1)
    here.charge(1)
    there.charge(1)
    seen = [one.slices.used("ses_a")[TOTAL] for one in two]
    there.slices.give_back_idle(0.0)

    assert [Used(2 + SLICE, 0, SLICE - 1), Used(1 + SLICE, 0, SLICE - 1)] == seen
    assert Used(3, 0, 0) == here.slices.used("ses_a")[TOTAL]


def test_a_retry_costs_nothing_where_the_call_was_charged(database: Database, two: Two) -> None:
    """Elsewhere it is a call like any other: more is counted than was called, and never less."""
    here, there = two
    tries = [one.charge(1, retry=b"call") for one in (here, here, there)]

    assert [((1,), None), ((), None), ((SLICE + 1,), None)] == [one[:2] for one in tries]
    assert tries[0].charged_at == tries[1].charged_at
    assert 2 * SLICE == database.used()


@pytest.mark.parametrize("lost", ["lease", "timeline"])
def test_no_slice_is_spent_without_its_lease(database: Database, two: Two, lost: str) -> None:
    """Neither without any, nor under one of another primary, which need not have its debit; the call asks there."""
    here, there = two
    before = database.kept()
    here.charge(1)
    there.leased = lost == "timeline"
    if lost == "timeline":
        database.go_back(before)
    else:
        here.leased = False
    charged = [here.charge(1).used, there.charge(1).used, there.charge(MOST).used]

    assert [(1,), (SLICE + 1,), ()] == charged if lost == "timeline" else [(2,), (3,), ()] == charged


def test_no_slice_is_taken_at_a_primary_that_another_one_has_replaced(database: Database, two: Two) -> None:
    """M28: there the call takes exactly, since the one that gives the lease does not have the debit."""
    here, there = two
    before = database.kept()
    here.leased_by = "11"
    here.charge(1)
    database.go_back(before)
    allowed = sum(bool(server.charge(1).used) for server in (there, here) * MOST)

    assert MOST == allowed


def test_a_slice_that_was_lost_gives_nothing_back(database: Database, two: Two) -> None:
    """Its debit went with it, and what others have taken since stays taken."""
    here, there = two
    before = database.kept()
    here.charge(1)
    database.go_back(before)
    there.charge(1)
    here.stop()

    assert SLICE == database.used()


def test_a_crashed_server_keeps_its_slice(database: Database, two: Two) -> None:
    """What it has spent is not known; people see it as held."""
    here, there = two
    here.charge(1)
    here.slices = here.started()
    here.stop()

    assert (SLICE, Used(SLICE, 0, SLICE - 1)) == (database.used(), there.slices.used("ses_a")[TOTAL])


def test_a_slice_of_an_unknown_commit_is_not_spent(database: Database, two: Two) -> None:
    """Nor what was given back with it: it stays used up, and the next call takes another one."""
    here, _ = two
    here.charge(3)
    database.lost = True
    with pytest.raises(LostError):
        here.charge(3)
    known = database.used()

    assert (3 + SLICE, (known + 2,)) == (known, here.charge(2).used)


def test_a_new_minute_has_slices_of_its_own(database: Database, two: Two) -> None:
    """What is left of one before is nothing any more, nor what is taken back; a late call counts in the new one."""
    here, there = two
    before = charge(1, 1, window=7)
    used = [here.slices.charge(before).used, there.charge(1, 1, window=8).used, there.charge(1, 1, window=7).used]
    used.append(here.charge(1, 1, window=8).used)
    here.slices.take_back(before, before.at)
    here.stop()

    assert [1, 1, 2, 3] == [rate for _, rate in used]
    assert 3 == database.used(RATE)


class TwoServers(RuleBasedStateMachine):
    """Two servers, one of before that knows no slices, and a database that another one can take the place of."""

    def __init__(self) -> None:
        super().__init__()
        self.database = Database()
        self.servers = Server(self.database), Server(self.database)
        self.minute = 0
        # What was allowed and not taken back, by the server and the number of the call.
        self.allowed: dict[tuple[int, bytes], Charge] = {}
        self.exactly: Counter[str] = Counter()
        self.forgotten: set[tuple[int, bytes]] = set()
        # What was allowed on a timeline that is no more.
        self.lost: list[tuple[tuple[int, bytes], Charge]] = []
        self.number = 0
        self.leaks = False
        self.standby: tuple[bytes, dict[tuple[int, bytes], Charge], Counter[str]] | None = None

    def teardown(self) -> None:
        """Give back all that is held: then exactly what was allowed is used up, unless something was lost."""
        for one in self.servers:
            one.stop()
        if not self.leaks:
            assert self.spent(TOTAL) == self.database.used()
        self.database.connection.close()

    @rule(server=st.integers(0, 1), total=st.integers(1, 7), rate=st.integers(0, 2), late=st.booleans())
    def call(self, *, server: int, total: int, rate: int, late: bool) -> None:
        """Charge a call, or what is left over from the minute before."""
        self.number += 1
        amounts = (total, rate) if rate else (total,)
        asked = charge(*amounts, window=self.minute - late, retry=b"%d" % self.number)
        charged = self.servers[server].slices.charge(asked)
        if charged.exhausted is None:
            self.allowed[server, asked.retry_digest] = asked

    @rule(data=st.data())
    @precondition(lambda self: self.known())
    def retry(self, data: Any) -> None:
        """Ask again where the call was charged."""
        key = data.draw(st.sampled_from(self.known()))
        slices, asked = self.servers[key[0]].slices, self.allowed[key]

        assert ((), None) == slices.charge(asked)[:2]
        slices.take_back(asked, asked.at)

    @rule(data=st.data())
    @precondition(lambda self: self.known())
    def take_back(self, data: Any) -> None:
        """Take back a call that was denied after all."""
        key = data.draw(st.sampled_from(self.known()))
        asked = self.allowed.pop(key)
        self.servers[key[0]].slices.take_back(asked, asked.at)
        if self.standby is not None:
            self.standby[1].pop(key, None)

    @rule(amount=st.integers(1, 7))
    def call_a_server_of_before(self, amount: int) -> None:
        """Take exactly, from the row alone."""
        debit = charge(amount).debits[0]
        with self.database.transaction(""):
            if self.database.connection.execute(TAKE, taking(debit, amount)).get is not None:
                self.exactly[TOTAL] += amount

    @rule(server=st.integers(0, 1))
    def rest(self, server: int) -> None:
        """Give back what is idle."""
        self.servers[server].slices.give_back_idle(0.0)

    @rule(server=st.integers(0, 1))
    def crash(self, server: int) -> None:
        """Lose all that a server holds; it does not know its calls any more."""
        self.leaks = True
        self.servers[server].slices = self.servers[server].started()
        self.forgotten.update(key for key in self.allowed if key[0] == server)

    @rule(server=st.integers(0, 1), leased=st.booleans())
    def lease(self, *, server: int, leased: bool) -> None:
        """Lose or get a lease."""
        self.servers[server].leased = leased

    @rule()
    def minute_passes(self) -> None:
        """Begin another minute."""
        self.minute += 1

    @rule()
    def copy(self) -> None:
        """Have a standby that has all until now, and no more."""
        self.standby = self.database.kept(), dict(self.allowed), self.exactly.copy()

    @rule()
    @precondition(lambda self: self.standby)
    def fail_over(self) -> None:
        """Go on with the standby. What calls of the sessions of before took afterwards is lost, and they are over."""
        assert self.standby is not None
        self.leaks = True
        content, allowed, self.exactly = self.standby
        self.database.go_back(content)
        self.lost += [(key, one) for key, one in self.allowed.items() if key not in self.forgotten]
        self.allowed = allowed
        self.forgotten.update(self.allowed)
        self.standby = None

    @rule()
    @precondition(lambda self: self.lost)
    def take_back_what_another_one_may_never_have_had(self) -> None:
        """Take back a call that was charged before another server took the place of the database."""
        key, asked = self.lost.pop()
        self.allowed.pop(key, None)
        self.servers[key[0]].slices.take_back(asked, asked.at)

    def known(self) -> list[tuple[int, bytes]]:
        """Return the calls that their servers know."""
        return [key for key in self.allowed if key not in self.forgotten]

    def spent(self, budget: str) -> int:
        """Return what was allowed of a budget."""
        debits = [debit for one in self.allowed.values() for debit in one.debits if debit.budget == budget]
        return self.exactly[budget] + sum(one.amount for one in debits)

    @invariant()
    def nothing_is_overshot(self) -> None:
        """I7: what was allowed is no more than what the row says, and that is no more than the most."""
        assert self.spent(TOTAL) <= self.database.used() <= MOST
        assert self.spent(RATE) <= FEW * (self.minute + 2)
        assert self.database.used(RATE) <= FEW


TwoServers.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestTwoServers = TwoServers.TestCase
