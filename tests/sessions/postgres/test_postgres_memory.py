"""What calls leave behind holds in every server on a database: labels, reports, counts, budgets and approvals.

Two servers, each with memory of its own under a lease, which learns nothing by itself here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from pdp.errors import ConflictError, StoreUnavailableError
from pdp.model import Call, CallRequest, CallStatus, Decision, Session
from pdp.registry.outcomes import OutcomeReport
from pdp.sessions import access
from pdp.sessions.historycontract import AccessRequests
from pdp.sessions.lease import Lease
from pdp.sessions.postgres import PostgresSessionStore
from pdp.sessions.postgreshistory import PostgresSessionHistory
from pdp.sessions.values import Change, Charge, Charged, Debit, SessionFilter
from pdp.testing.bundles import bundle_files, tool, with_terms
from pdp.testing.stores.samples import insert_family, make_moment, make_session, revoked
from pdp.testing.waiting import wait_until
from tests.machinery.oracle.opened import GATEWAY, Opened, opened
from tests.sessions.postgres.conftest import PATIENT, leased_store
from tests.sessions.postgres.postgresserver import PostgresServer, set_to

pytestmark = pytest.mark.replicas

LABELS = frozenset({"untrusted"})
FILES = bundle_files(
    policies={
        "mail": """
@id("mail/all") permit (principal, action, resource);
@id("mail/clean")
forbid (principal, action == Action::"mail/send", resource) when { context.session.labels.contains("untrusted") };
@id("mail/once")
forbid (principal, action == Action::"mail/draft", resource) when { context.counts["mail/draft"] >= 1 };
@id("mail/asked") @step_up("may it be deleted?")
forbid (principal, action == Action::"mail/delete", resource);
"""
    },
    tools={"mail": [tool(name) for name in ("read", "list", "send", "draft", "delete")]},
    overlays={"mail": "tools: {read: {adds_labels: [untrusted]}}\n"},
    directory="{users: {alice: {}}, agents: {coder: {ceiling: ['mail/*']}}}",
    manifest="labels: {untrusted: {meaning: has read mail, reported: true}}",
    schema=with_terms("max_calls?: Long"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server, and the store that it has."""

    pdp: Opened
    store: PostgresSessionStore

    def ask(self, handle: str, name: str, request_id: str = "") -> Decision:
        """Decide about a call."""
        return self.pdp.embedded.authorizer.authorize(self.request(handle, name, request_id), GATEWAY)

    def request(self, handle: str, name: str, request_id: str = "") -> CallRequest:
        """Return the request about a call."""
        call = Call(session_handle=handle, server="mail", tool=name, arguments_json=b"")
        return CallRequest(call=call, request_id=request_id)

    def basis(self, handle: str, name: str, request_id: str = "") -> str:
        """Return what a decision about a call rests on."""
        return self.ask(handle, name, request_id).ruling.basis.value

    def report(self, decision: Decision) -> None:
        """Report that the result of a call was not to be trusted."""
        outcomes = self.pdp.embedded.outcomes
        token = outcomes.token(decision)
        outcomes.report(OutcomeReport(outcome_token=token, status=CallStatus.SUCCEEDED, labels=("untrusted",)), GATEWAY)


Two = tuple[Server, Server]


@pytest.fixture
def two(conninfo: str, tmp_path: Path) -> Iterator[Two]:
    """Give two servers on a database, each with a lease that lasts longer than any test."""
    with ExitStack() as opening:

        def server(name: str) -> Server:
            store = opening.enter_context(closing(leased_store(conninfo, tmp_path / name)))
            # Since before the time of the sessions.
            history = PostgresSessionHistory(conninfo, **PATIENT, wall_at=lambda: 0.0)
            opening.enter_context(closing(history))
            pdp = opening.enter_context(opened(tmp_path / "policies", FILES, sessions=store, history=history))
            return Server(pdp=pdp, store=store)

        yield server("here"), server("there")


def opened_in(two: Two, terms: bytes = b"{}") -> str:
    """Open a session that both servers remember under their leases; return its handle.

    From then on their leases have the same head, as if no renewal was due.
    """
    for server in two:
        # Their calls are counted from before the session on.
        server.pdp.clock.advance(1.0)
    _, handle = two[0].pdp.session("mail/*", terms_json=terms)
    for server in two:
        wait_until(partial(remembers, server, handle))
        watcher = server.store._remembered
        watcher._leased = partial(_same, watcher._leased())
    return handle


def remembers(server: Server, handle: str) -> bool:
    """Decide about a call, and say whether memory alone would answer the next one."""
    server.basis(handle, "list")
    watcher = server.store._remembered
    leased = watcher._leased()
    return (
        leased is not None
        and watcher._knows(leased.head)
        and watcher._moment.head.revision >= server.store.acknowledged()
    )


def _same(lease: Lease | None) -> Lease | None:
    return lease


# Labels


def by_an_allow(here: Server, handle: str) -> None:
    """Allow a call whose tool adds a label."""
    assert here.basis(handle, "read") == "permit"


def by_a_report(here: Server, handle: str) -> None:
    """Report the result of a call."""
    here.report(here.ask(handle, "list"))


def by_a_child(here: Server, handle: str) -> None:
    """Allow such a call in a session below."""
    child_id, child = here.pdp.request("mail/*", parent_session_handle=handle)
    here.pdp.approve(child_id)
    by_an_allow(here, child)


@pytest.mark.parametrize("mark", [by_an_allow, by_a_report, by_a_child])
def test_a_label_counts_everywhere_once_it_is_acknowledged(two: Two, mark: Callable[[Server, str], None]) -> None:
    """M15: also where memory has an answer from before, and a lease to give it."""
    handle = opened_in(two)
    here, there = two
    before = [there.basis(handle, "send"), there.basis(handle, "send")]
    mark(here, handle)
    after = [there.basis(handle, "send"), here.basis(handle, "send")]
    batch = there.pdp.embedded.authorizer.batch([there.request(handle, "list"), there.request(handle, "send")], GATEWAY)

    assert ["permit", "permit"] == before
    assert ["forbid", "forbid"] == after
    assert ["permit", "forbid"] == [one.ruling.basis.value for one in batch]


def test_a_label_that_another_server_has_added_is_added_once(two: Two) -> None:
    """A server that has not seen it decides again, and then waits only for those who added it."""
    handle = opened_in(two)
    here, there = two
    decisions = [here.ask(handle, "read"), there.ask(handle, "read"), there.ask(handle, "read")]

    assert [("untrusted",), (), ()] == [one.labels_added for one in decisions]
    assert here.pdp.stored(decisions[0].session_id) == there.pdp.stored(decisions[0].session_id)
    assert {"untrusted": decisions[0].id} == there.pdp.stored(decisions[0].session_id).label_origins


def test_a_label_takes_no_revision_and_waits_for_no_other(two: Two, server: PostgresServer) -> None:
    """Neither for one who writes sessions, nor for a server that has stopped and may have a lease."""
    handle = opened_in(two)
    here, there = two
    revision = there.store.head()
    with server.connect() as other:
        other.execute("INSERT INTO pdp_sessions.replicas VALUES ('stopped', 0, 5.0)")
        other.execute("BEGIN; SELECT revision FROM pdp_sessions.meta FOR UPDATE")
        by_an_allow(here, handle)
        after = there.basis(handle, "send")
        other.execute("ROLLBACK")
        left = other.execute("SELECT count(*) FROM pdp_sessions.replicas WHERE id = 'stopped'").fetchall()

    assert "forbid" == after
    assert revision == there.store.head()
    assert [(1,)] == left


def test_only_what_depends_on_labels_asks_for_them(two: Two) -> None:
    """All else is answered from memory, also when the database does not answer."""
    handle = opened_in(two)
    there = two[1]
    there.basis(handle, "send")
    there.store._remembered._connection.close()

    assert "permit" == there.basis(handle, "list")
    with pytest.raises(StoreUnavailableError):
        there.ask(handle, "send")


def test_a_label_that_was_read_is_safe_before_more_rests_on_it(two: Two, server: PostgresServer) -> None:
    """Its own writer may never learn that it is: a commit of the reader makes it so, once."""
    here, there = (one.store for one in two)
    root = make_session("root")
    here.insert(root, wall_at=1000.0)
    there.get(root.id)
    there.outwait()
    here.settle((root,), LABELS, by="dec_1", wall_at=1000.0)
    there.get(root.id)
    with set_to(server, default_transaction_read_only="on"):
        there._connection.drop()
        with pytest.raises(StoreUnavailableError):
            there.outwait()
    there.outwait()
    there._connection.close()
    there.outwait()


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda store, change: store.change_tree("ses_root", change, wall_at=1000.0), id="tree"),
        pytest.param(lambda store, change: store.change_where(SessionFilter(), change, wall_at=1000.0), id="foreseen"),
    ],
)
def test_a_label_that_comes_during_a_change_is_kept(
    two: Two, write: Callable[[PostgresSessionStore, Change], Sequence[Session]]
) -> None:
    """The change follows on it, and each is one step of the session."""
    here, there = (server.store for server in two)
    root = make_session("root")
    here.insert(root, wall_at=1000.0)

    def change(session: Session) -> Session | None:
        if not there.get(root.id)[0].labels:
            there.settle((root,), LABELS, by="dec_1", wall_at=1000.0)
        return revoked(session)

    written = write(here, change)
    (stored,) = there.get(root.id)

    assert (3, ("untrusted",), {"untrusted": "dec_1"}) == (stored.epoch, stored.labels, stored.label_origins)
    assert (stored,) == here.get(root.id) == tuple(written)


def test_a_label_waits_for_a_change_of_its_session(two: Two, server: PostgresServer) -> None:
    """And is refused after it: else it would be added to a session that is over."""
    store = two[0].store
    root = make_session("root")
    store.insert(root, wall_at=1000.0)
    with server.connect() as other, ThreadPoolExecutor(max_workers=1) as thread:
        other.execute(_NEXT_EPOCH)
        adding = thread.submit(store.settle, (root,), LABELS, by="dec_1", wall_at=1000.0)
        wait_until(lambda: waiting(server) == 1)
        other.execute("COMMIT")

        with pytest.raises(ConflictError):
            adding.result()


_NEXT_EPOCH = """
BEGIN; UPDATE pdp_sessions.sessions SET epoch = 2, session_json = replace(session_json, '"epoch":1', '"epoch":2')
"""


def test_an_earlier_schema_gets_the_rows_of_labels(conninfo: str, server: PostgresServer) -> None:
    """With a revision, by which earlier programs notice that they know too little; one that is newer is refused."""
    with server.connect() as other:
        other.execute("DROP TABLE pdp_sessions.labels; DROP TABLE pdp_sessions.steps")
        other.execute("UPDATE pdp_sessions.meta SET schema_version = 11, revision = 7")
        with closing(PostgresSessionStore(conninfo, **PATIENT)) as store:
            revision = store.head().revision
            root, *_ = insert_family(store)
            store.settle((root,), LABELS, by="dec_1", wall_at=1000.0)
            labels = store.get(root.id)[0].labels
            other.execute("UPDATE pdp_sessions.meta SET schema_version = 99")
            with pytest.raises(StoreUnavailableError, match="upgrade the program"):
                store.settle(store.get(root.id), frozenset({"other"}), by="dec_2", wall_at=1000.0)

    assert (8, ("untrusted",)) == (revision, labels)


# Budgets and counts


@pytest.fixture
def histories(conninfo: str) -> Iterator[tuple[PostgresSessionHistory, PostgresSessionHistory]]:
    """Give the histories of two servers on a database."""
    with (
        closing(PostgresSessionHistory(conninfo, **PATIENT)) as here,
        closing(PostgresSessionHistory(conninfo, **PATIENT)) as there,
    ):
        yield here, there


def charge(most: int, *, tree: str, retry: bytes = b"") -> Charge:
    """Return the charge of a call for a budget."""
    debit = Debit(session_id="ses_a", budget="max_calls", amount=1, most=most, window=0, ends_at=5000.0)
    return Charge(debits=(debit,), retry_digest=retry, now=make_moment(1000.0), tree_id=tree)


def at_once(
    server: PostgresServer, histories: tuple[PostgresSessionHistory, PostgresSessionHistory], *charges: Charge
) -> list[Charged]:
    """Make one charge at each server, each begun before any can be written."""
    with server.connect() as other, ThreadPoolExecutor(max_workers=2) as threads:
        other.execute("BEGIN; SELECT used FROM pdp_history.budgets FOR UPDATE")
        made = [threads.submit(one.charge, charge) for one, charge in zip(histories, charges, strict=True)]
        wait_until(lambda: waiting(server) == len(charges))
        other.execute("COMMIT")
        return [one.result() for one in made]


@pytest.mark.parametrize("trees", [("a", "a"), ("a", "b")], ids=["one after the other", "at the same time"])
def test_two_servers_overshoot_no_budget(
    server: PostgresServer,
    histories: tuple[PostgresSessionHistory, PostgresSessionHistory],
    trees: tuple[str, str],
) -> None:
    """M9: one call is left, and both servers take it; the lock and the condition of the update each suffice."""
    histories[0].charge(charge(2, tree="a"))
    charged = at_once(server, histories, *(charge(2, tree=tree) for tree in trees))

    assert [(), (2,)] == sorted(one.used for one in charged)
    assert 2 == histories[0].used("ses_a")["max_calls"].used


def test_two_tries_of_a_call_at_two_servers_take_once(
    server: PostgresServer, histories: tuple[PostgresSessionHistory, PostgresSessionHistory]
) -> None:
    """Whichever comes first: the other one finds its receipt."""
    histories[0].charge(charge(9, tree="a"))
    charged = at_once(server, histories, *[charge(9, tree="a", retry=b"call")] * 2)

    assert [Charged(charged_at=1000.0), Charged(used=(2,), charged_at=1000.0)] == sorted(charged)


def test_charges_of_other_trees_do_not_wait(
    server: PostgresServer, histories: tuple[PostgresSessionHistory, PostgresSessionHistory]
) -> None:
    """Each waits for the disk, and would keep all others waiting."""
    here, there = histories
    here.charge(charge(9, tree="a"))
    with server.connect() as other, ThreadPoolExecutor(max_workers=1) as thread:
        other.execute("BEGIN; SELECT used FROM pdp_history.budgets FOR UPDATE")
        held = thread.submit(here.charge, charge(9, tree="a"))
        wait_until(lambda: waiting(server) == 1)
        passed = there.charge(replace(charge(9, tree="b"), debits=()))
        done = held.done()
        other.execute("COMMIT")

    assert (Charged(charged_at=1000.0), False) == (passed, done)


def test_a_charge_that_is_not_safe_is_none(server: PostgresServer, conninfo: str) -> None:
    """It could be lost with this server, and the budget be overshot on the next one."""
    with (
        closing(PostgresSessionHistory(conninfo, **PATIENT)) as history,
        set_to(server, synchronous_standby_names="nobody"),
        history._connection.within(0.4),
        pytest.raises(StoreUnavailableError, match="may or may not have been made"),
    ):
        history.charge(charge(2, tree="a"))


@pytest.mark.parametrize(
    "rest_on",
    [
        pytest.param(lambda found: found.outwait(), id="an answer"),
        pytest.param(lambda found: found.answer_all((), lambda request: request), id="no approval of a session"),
    ],
)
def test_an_answer_that_is_found_is_not_believed_before_it_is_safe(
    server: PostgresServer, conninfo: str, rest_on: Callable[[AccessRequests], object]
) -> None:
    """M22: the one that has given it may have had no answer, because no standby has it."""
    with (
        closing(PostgresSessionHistory(conninfo, **PATIENT)) as history,
        set_to(server, synchronous_standby_names="nobody"),
        history._connection.within(0.4),
        pytest.raises(StoreUnavailableError, match="may or may not have been made"),
    ):
        rest_on(history.access())


def test_a_retry_at_another_server_costs_nothing(two: Two) -> None:
    """It is allowed, whichever server has the answer; another call is not."""
    handle = opened_in(two, b'{"max_calls":3}')
    here, there = two
    tries = [one.ask(handle, "list", "one call") for one in (here, there, here)]
    other = [one.basis(handle, "list") for one in (there, here)]

    assert ["permit"] * 3 == [one.ruling.basis.value for one in tries]
    assert [(("max_calls", 3),), (), ()] == [one.debits for one in tries]
    assert ["budget_exhausted"] * 2 == other


def test_a_count_is_that_of_all_servers(two: Two) -> None:
    """A call at one of them is counted at the next decision of the other; and a retry there does not see itself."""
    handle = opened_in(two)
    here, there = two

    assert "permit" == here.basis(handle, "draft", "one call")
    assert ["permit", "forbid"] == [there.basis(handle, "draft", "one call"), there.basis(handle, "draft")]


def test_an_approval_is_used_at_one_server(two: Two) -> None:
    """Once, whichever server is asked next; a retry of the call that has used it is allowed at each."""
    handle = opened_in(two)
    here, there = two
    asked = here.ask(handle, "delete")
    session = here.pdp.stored(asked.session_id)
    change = partial(access.approve, now=here.pdp.clock.now(), by="ann", session_end=session.deadline)
    here.pdp.embedded.history.access().answer(asked.access_request_id, change)
    bases = [one.basis(handle, "delete", request) for one, request in ((there, "a"), (here, "a"), (here, "b"))]

    assert ["approval_required", "permit", "permit", "approval_required"] == [asked.ruling.basis.value, *bases]


def waiting(server: PostgresServer) -> int:
    """Return how many connections wait for a lock."""
    with server.connect() as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return int(count)
