"""Budgets that servers on a database take in slices: a call within a slice waits for no commit, and none is too many.

What can become of slices is in `tests/sessions/test_slices.py`; here are two servers, their leases and their database.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from pdp.model import Basis, Call, CallRequest, Decision
from pdp.registry.words import Selector
from pdp.sessions.postgres import PostgresSessionStore
from pdp.sessions.postgreshistory import PostgresSessionHistory
from pdp.sessions.values import Addend, Charge, Debit, Used
from pdp.testing.bundles import bundle_files, tool, with_terms
from pdp.testing.stores.samples import make_moment
from pdp.testing.waiting import wait_until
from tests.machinery.oracle.opened import APPROVER, GATEWAY, Opened, opened
from tests.sessions.postgres.conftest import PATIENT, leased_store
from tests.sessions.postgres.postgresserver import PostgresServer

pytestmark = pytest.mark.replicas

MOST, SLICE = 20, 5
FILES = bundle_files(
    policies={"mail": '@id("mail/all") permit (principal, action, resource);'},
    tools={"mail": [tool("read")]},
    directory="{users: {alice: {}}, agents: {coder: {ceiling: ['mail/*']}}}",
    schema=with_terms('@slices("4") max_calls?: Long'),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What a server on the database has: its store, under a lease that lasts longer than any test, and its history."""

    store: PostgresSessionStore
    history: PostgresSessionHistory

    def take(self, *, amount: int = 1, slice: int = SLICE, counted: bool = False) -> tuple[int, ...]:  # noqa: A002 - as in `Debit`
        """Charge a call; return what is used then, empty when too little was left."""
        debit = Debit(
            session_id="ses_a", budget="max_calls", amount=amount, most=MOST, window=0, ends_at=5000.0, slice=slice
        )
        addends = (Addend("ses_a", "mail/read", 5000.0),) if counted else ()
        now = make_moment(1000.0)
        return self.history.charge(
            Charge(debits=(debit,), retry_digest=b"", now=now, addends=addends, tree_id="ses_a")
        ).used

    def used(self) -> Used:
        """Return what is used up as this server sees it."""
        return self.history.used("ses_a")["max_calls"]


Two = tuple[Server, Server]


@pytest.fixture
def two(conninfo: str, tmp_path: Path) -> Iterator[Two]:
    """Give two servers on a database."""
    with ExitStack() as opening:

        def server(name: str) -> Server:
            store = opening.enter_context(closing(leased_store(conninfo, tmp_path / name)))
            wait_until(lambda: store.lease() is not None)
            history = PostgresSessionHistory(conninfo, **PATIENT, beside=store)
            return Server(store=store, history=opening.enter_context(closing(history)))

        yield server("here"), server("there")


def test_two_servers_and_one_of_before_spend_a_budget_together(two: Two, conninfo: str) -> None:
    """M9: all of it and no more, whoever takes how much at once."""
    with (
        closing(PostgresSessionHistory(conninfo, **PATIENT)) as before,
        ThreadPoolExecutor(max_workers=6) as threads,
    ):
        servers = [*two, Server(store=two[0].store, history=before)] * 2
        tries = [threads.submit(lambda one: [bool(one.take()) for _ in range(MOST)], server) for server in servers]
        allowed = sum(map(sum, (one.result() for one in tries)))

    # A slice that is spent is still seen as held by others, until its server looks at it.
    assert (MOST, MOST) == (allowed, two[0].used().used)


def test_a_server_that_stops_gives_back_what_it_holds(two: Two) -> None:
    """And one that crashes does not: it may have spent it."""
    here, there = two
    here.take()
    held = there.used()
    here.history.close()

    assert [Used(SLICE, 0, SLICE - 1), Used(1, 0, 0)] == [held, there.used()]


def test_slices_that_nobody_spends_from_come_back_by_themselves(two: Two, conninfo: str) -> None:
    """So that another server is refused for some seconds at the most."""
    store = two[0].store
    with closing(PostgresSessionHistory(conninfo, **PATIENT, beside=store, slice_seconds=0.0)) as history:
        Server(store=store, history=history).take()

        wait_until(lambda: two[1].used() == Used(1, 0, 0))


def test_a_call_that_is_counted_takes_exactly(two: Two) -> None:
    """It costs a commit anyway; and what its server holds is no reason to refuse it."""
    here, there = two
    here.take()
    exact = here.take(amount=SLICE, counted=True)
    there.take(amount=MOST - 2 * SLICE, slice=0)
    last = here.take(amount=SLICE - 1, counted=True)

    assert [(2 * SLICE,), (MOST,)] == [exact, last]
    assert Used(MOST, 0, 0) == there.used()


def test_without_a_lease_a_budget_is_exact(two: Two) -> None:
    """What a server took before its lease ended, it does not spend."""
    here, there = two
    here.take()
    here.store.close()
    here.history._connection.admit = None
    used = [here.take(), here.take()]

    assert [(2,), (3,)] == used
    assert Used(3, 0, 0) == there.used()


def test_under_a_lease_of_another_primary_a_budget_is_exact(two: Two) -> None:
    """M28: its connection can still be to the one before, where the debit of a slice would stay."""
    here, there = two
    here.history.used("ses_a")
    here.history._connection.timeline = "00000000"
    used = [here.take(), here.take()]

    assert [(1,), (2,)] == used
    assert Used(2, 0, 0) == there.used()


def test_slices_go_with_their_session(two: Two, server: PostgresServer) -> None:
    """When its budgets go."""
    two[0].take()
    gone = two[1].history.forget_charges(ended_before=5000.5, charged_before=0.0)
    with server.connect() as other:
        left = other.execute("SELECT count(*) FROM pdp_history.slices").fetchall()

    assert (1, [(0,)]) == (gone, left)


# Decisions


@pytest.fixture
def pdps(two: Two, tmp_path: Path) -> Iterator[tuple[Opened, Opened]]:
    """Give the PDPs of the two servers, whose author has four slices of a budget."""
    with ExitStack() as opening:
        first, second = (
            opening.enter_context(opened(tmp_path / "policies", FILES, sessions=one.store, history=one.history))
            for one in two
        )
        yield first, second


def ask(pdp: Opened, handle: str, request_id: str = "") -> Decision:
    """Decide about a call."""
    call = Call(session_handle=handle, server="mail", tool="read", arguments_json=b"")
    return pdp.embedded.authorizer.authorize(CallRequest(call=call, request_id=request_id), GATEWAY)


def test_calls_within_a_slice_wait_for_no_commit(two: Two, pdps: tuple[Opened, Opened]) -> None:
    """Once one has taken the slice, the others are answered without the database, and the one after them is not."""
    pdp = pdps[0]
    _, handle = pdp.session("mail/*", terms_json=b'{"max_calls":20}')
    first = ask(pdp, handle)
    two[0].history._connection.close()
    within = [ask(pdp, handle) for _ in range(SLICE - 1)]
    beyond = ask(pdp, handle)

    assert [(("max_calls", number),) for number in range(1, SLICE + 1)] == [one.debits for one in (first, *within)]
    assert all(one.allowed for one in (first, *within))
    assert Basis.LEDGER_UNAVAILABLE is beyond.ruling.basis


def test_a_slice_is_worth_nothing_once_its_session_is_over(pdps: tuple[Opened, Opened]) -> None:
    """Wherever it was revoked: the sessions are looked at once more after each charge."""
    here, there = pdps
    session_id, handle = here.session("mail/*", terms_json=b'{"max_calls":20}')
    before = ask(here, handle)
    there.embedded.registrar.revoke(Selector(kind="session", value=session_id), reason="r", caller=APPROVER)

    assert ["permit", "session_revoked"] == [one.ruling.basis.value for one in (before, ask(here, handle))]


def test_people_see_what_is_spent_and_what_is_held(pdps: tuple[Opened, Opened]) -> None:
    """Each server says what is left for calls that ask it."""
    here, there = pdps
    session_id, handle = here.session("mail/*", terms_json=b'{"max_calls":20}')
    for _ in range(2):
        ask(here, handle)
    ask(there, handle)
    shown = [one.embedded.registrar.get(session_id, caller=APPROVER).budgets[0] for one in pdps]

    # Of the four that `here` had left when it took its slice, one is spent, which `there` does not know yet.
    assert [("20", "13", "3", "4"), ("20", "14", "2", "4")] == [(b.most, b.left, b.spent, b.held) for b in shown]


def test_a_retry_elsewhere_is_allowed_and_counts_once_more(pdps: tuple[Opened, Opened]) -> None:
    """At the server that has charged it, it costs nothing."""
    _, handle = pdps[0].session("mail/*", terms_json=b'{"max_calls":20}')
    tries = [ask(pdp, handle, "one call") for pdp in (pdps[0], pdps[0], pdps[1])]

    assert [True] * 3 == [one.allowed for one in tries]
    assert [(("max_calls", 1),), (), (("max_calls", SLICE + 1),)] == [one.debits for one in tries]
