"""After a failover that can have lost changes, what was closed is written again, or what is live is revoked."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from pdp.clock import Instant, SystemClock
from pdp.model import Session, SessionState
from pdp.sessions.access import AccessRequest, AccessState, approve, deny
from pdp.sessions.closings import AGAIN
from pdp.sessions.postgres import PostgresSessionStore
from pdp.sessions.postgresfailover import Replication
from pdp.sessions.postgreshistory import PostgresSessionHistory
from pdp.sessions.values import Addend, Charge, Count, Cut, Debit, PublishedKey, Used
from pdp.sessions.writes import Write
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.stores.access import at, bound, request
from pdp.testing.stores.keykeeping import make_key
from pdp.testing.stores.samples import make_freeze, make_moment, make_scope, revoked, unchanged
from pdp.testing.waiting import wait_until
from tests.machinery.oracle.opened import APPROVER, opened
from tests.sessions.postgres.conftest import PATIENT
from tests.sessions.postgres.machine import HASTY, Machine, can, living
from tests.sessions.postgres.postgrescluster import replicated
from tests.sessions.postgres.postgresserver import PostgresServer

pytestmark = pytest.mark.replicas

VERSION = int(os.environ.get("POSTGRES_VERSION", "18"))
TOOLS = make_scope("git/log", "git/show")
FILES = bundle_files(
    policies={"git": '@id("git/all") permit (principal, action, resource);'},
    tools={"git": [tool("log"), tool("show")]},
    directory="{users: {alice: {}}, agents: {coder: {ceiling: ['git/*']}}}",
)


@pytest.fixture
def machine(conninfo: str, tmp_path: Path) -> Machine:
    """Give a machine that writes again what it has closed."""
    return Machine(conninfo=conninfo, folder=tmp_path, replication=Replication.ASYNC, reasserts=True)


def test_what_was_closed_is_closed_again_and_the_rest_lives_on(
    machine: Machine, loses: Callable[[Session], None]
) -> None:
    """Before any call is answered; a second time changes nothing."""
    with closing(machine.opened()) as store:
        ended, live = _ended_and_live(store)
        loses(ended)
        after = [_seen(store, one) for one in (ended, live)]
        loses(live)
        again = [_seen(store, one) for one in (ended, live)]

    assert (SessionState.REVOKED, live) == (after[0].state, after[1])
    assert after[0].reason.startswith(AGAIN)
    assert after == again
    assert [[ended.id]] == [[one.id for one in closed.sessions] for closed in machine.again if closed.sessions]
    assert not machine.revoked


def test_what_is_found_closed_is_closed_again_as_well(machine: Machine, loses: Callable[[Session], None]) -> None:
    """By a machine that has told its caller so: the one that closed it was killed before it noted that."""
    asked, revoked_twice = living("asked"), living("revoked twice")
    write = Write(key=b"key", digest=b"asked")
    with closing(PostgresSessionStore(machine.conninfo, **PATIENT)) as killed:
        for one in (asked, revoked_twice):
            killed.insert(one, wall_at=1000.0)
        killed.change_tree(asked.id, revoked, wall_at=1000.0, write=write)
        killed.change_tree(revoked_twice.id, revoked, wall_at=1000.0)
    with closing(machine.opened()) as store:
        found = store.written(write, wall_at=1000.0), store.change_tree(revoked_twice.id, unchanged, wall_at=1000.0)
        loses(asked)
        loses(revoked_twice)
        after = [_seen(store, one).state for one in (asked, revoked_twice)]

    assert ((asked.id,), ()) == found
    assert [SessionState.REVOKED] * 2 == after
    assert not machine.revoked


def test_what_was_revoked_at_once_is_revoked_again(machine: Machine, loses: Callable[[Session], None]) -> None:
    """Also what a server that was killed has changed first, and has not noted; and nothing that came later."""
    early, late = living("early"), replace(living("late"), requested_at=3000.0)
    cut = Cut(tenant=early.tenant, user=early.user, at=2000.0, by="lead", reason="enough")
    with closing(machine.opened()) as store:
        for one in (early, late):
            store.insert(one, wall_at=1000.0)
        store.cut(cut)
        store.lift(cut)
        loses(early)
        after = [_seen(store, one) for one in (early, late)]

    assert (SessionState.REVOKED, "lead", 2000.0) == (after[0].state, after[0].ended_by, after[0].ended_at)
    assert late == after[1]


def test_what_is_found_narrowed_is_narrowed_again_as_well(
    machine: Machine, tmp_path: Path, loses: Callable[[Session], None]
) -> None:
    """The one that narrowed it was killed before it noted that, and this one has told its caller that it is done."""
    with (
        closing(machine.opened()) as store,
        opened(tmp_path / "policies", FILES, sessions=store, clock=SystemClock()) as pdp,
    ):
        session_id, _ = pdp.session("git/*")
        whole = pdp.stored(session_id)
        late = whole.deadline
        early = replace(late, wall_at=late.wall_at - 600, boot_at=late.boot_at - 600)
        less = replace(whole, epoch=whole.epoch + 1, deadline=early)
        with closing(PostgresSessionStore(machine.conninfo, **PATIENT)) as killed:
            killed.update([less], wall_at=whole.requested_at)
        narrowed = pdp.embedded.registrar.narrow(
            session_id, tool_patterns=(), expires_at=early.wall_at + 60, labels=(), caller=APPROVER
        )
        loses(whole)
        after = _seen(store, whole)

    assert early == narrowed.session.deadline
    assert (SessionState.ACTIVE, early.wall_at) == (after.state, after.deadline.wall_at)
    assert not machine.revoked


def test_a_no_to_a_call_is_said_again(
    machine: Machine, server: PostgresServer, loses: Callable[[Session], None]
) -> None:
    """The person who was asked is not asked a second time."""
    live, asked, now = living("live"), request(), Instant(wall_at=1000.0, boot_at=0.0, boot_id="boot")
    with (
        closing(machine.opened()) as store,
        closing(PostgresSessionHistory(machine.conninfo, **PATIENT, beside=store)) as history,
        server.connect() as connection,
    ):
        store.insert(live, wall_at=1000.0)
        requests = history.access()
        requests.ask(asked, b"{}", now)
        connection.execute("SET search_path = pdp_history")
        before = connection.execute("SELECT state, content FROM access").fetchone()
        requests.answer(asked.id, lambda one: deny(one, now, by="lead", reason="no"))
        connection.execute("UPDATE access SET (state, content) = (%s, %s)", before)
        loses(live)
        _seen(store, live)
        found: list[AccessRequest | None] = []
        wait_until(lambda: can(lambda: found.append(requests.get(asked.id))))

    assert found[0] is not None
    assert (AccessState.DENIED, "lead") == (found[0].state, found[0].answered_by)
    assert [asked.id] == [one.id for closed in machine.again for one in closed.requests]


def test_a_no_that_is_found_is_said_again_as_well(
    machine: Machine, server: PostgresServer, loses: Callable[[Session], None]
) -> None:
    """The one that said it was killed before it noted that, and this one has told its caller that it is said."""
    live, asked, now = living("live"), request(), Instant(wall_at=1000.0, boot_at=0.0, boot_id="boot")
    no = partial(deny, now=now, by="lead", reason="no")
    with (
        closing(machine.opened()) as store,
        closing(PostgresSessionHistory(machine.conninfo, **PATIENT, beside=store)) as history,
        closing(PostgresSessionHistory(machine.conninfo, **PATIENT)) as killed,
        server.connect() as connection,
    ):
        store.insert(live, wall_at=1000.0)
        requests = history.access()
        requests.ask(asked, b"{}", now)
        connection.execute("SET search_path = pdp_history")
        before = connection.execute("SELECT state, content FROM access").fetchone()
        killed.access().answer(asked.id, no)
        assert () == requests.answer_all([asked.id], no)
        connection.execute("UPDATE access SET (state, content) = (%s, %s)", before)
        loses(live)
        _seen(store, live)
        found: list[AccessRequest | None] = []
        wait_until(lambda: can(lambda: found.append(requests.get(asked.id))))

    assert found[0] is not None
    assert AccessState.DENIED is found[0].state


def test_a_key_is_withdrawn_again(machine: Machine, server: PostgresServer, loses: Callable[[Session], None]) -> None:
    """No call token that it has signed counts any more."""
    live, key = living("live"), make_key("a")
    with (
        closing(machine.opened()) as store,
        closing(PostgresSessionHistory(machine.conninfo, **PATIENT, beside=store)) as history,
        server.connect() as connection,
    ):
        store.insert(live, wall_at=1000.0)
        keys = history.call_token_keys()
        keys.publish(key)
        keys.withdraw(key.id, wall_at=1000.0)
        connection.execute("UPDATE pdp_history.call_token_keys SET withdrawn = 0")
        loses(live)
        _seen(store, live)
        found: list[PublishedKey | None] = []
        wait_until(lambda: can(lambda: found.append(keys.get(key.id))))

    assert [replace(key, withdrawn=True)] == found
    assert [key.id] == [one for closed in machine.again for one in closed.keys]


def test_a_machine_that_is_absent_costs_what_is_live(
    machine: Machine, tmp_path: Path, loses: Callable[[Session], None]
) -> None:
    """What it has closed last is not known. What the others have closed is written again all the same."""
    live = living("live")
    (tmp_path / "absent").mkdir()
    with closing(replace(machine, folder=tmp_path / "absent").opened()) as absent:
        absent.touch(wall_at=1000.0)
    with closing(machine.opened()) as store:
        store.insert(live, wall_at=1000.0)
        loses(live)

        assert SessionState.REVOKED == _seen(store, live).state
        later = living("later")
        wait_until(lambda: can(lambda: store.insert(later, wall_at=1000.0)))
        assert later == _seen(store, later)
    assert [live.id] == machine.revoked


@pytest.mark.parametrize("without", ["lost", "never"])
def test_a_machine_without_notes_costs_what_is_live(
    machine: Machine, loses: Callable[[Session], None], without: str
) -> None:
    """Because they were lost, or because it is set to write nothing again."""
    live = living("live")
    with closing(replace(machine, reasserts=without != "never").opened()) as store:
        store.insert(live, wall_at=1000.0)
    loses(live)
    if without == "lost":
        (machine.folder / "closings").unlink()
    with closing(machine.opened()) as store:
        assert SessionState.REVOKED == _seen(store, live).state


def test_machines_that_were_all_started_again_write_again_what_they_had_closed(
    machine: Machine, loses: Callable[[Session], None]
) -> None:
    """From their disks."""
    with closing(machine.opened()) as store:
        ended, live = _ended_and_live(store)
    loses(ended)
    with closing(machine.opened()) as store:
        assert [SessionState.REVOKED, SessionState.ACTIVE] == [_seen(store, one).state for one in (ended, live)]


def test_a_change_that_the_server_before_had_is_not_acknowledged_once_notes_were_taken(machine: Machine) -> None:
    """A process that was stopped between its commit and its note: what it has closed is not written again."""
    session = living("live")
    with closing(machine.opened()) as store:
        store.insert(session, wall_at=1000.0)
        assert store._failover is not None
        assert store._failover.closings is not None
        store._failover.closings.take("000000FF")

        assert not can(lambda: store.change_tree(session.id, revoked, wall_at=2000.0))


def test_the_kill_of_a_primary_loses_nothing_that_was_closed(tmp_path: Path) -> None:
    """No standby had it: both machines write it again, and what is lost besides is counted."""
    with replicated(VERSION, synchronous=False) as cluster:
        folders = [tmp_path / "here", tmp_path / "there"]
        for folder in folders:
            folder.mkdir()
        one, other = (
            Machine(
                conninfo=cluster.conninfo,
                folder=folder,
                replication=Replication.ASYNC,
                reasserts=True,
                # Twice as long the other one has for what it writes again.
                settling_seconds=3.0,
                lease_seconds=1.0,
                options=HASTY,
            )
            for folder in folders
        )
        ended, less, live, lost = (replace(living(name), scope=TOOLS) for name in ("ended", "less", "live", "lost"))
        narrower = replace(less, epoch=less.epoch + 1, scope=make_scope("git/log"))
        freeze = make_freeze("another")
        with closing(one.opened()) as here, closing(other.opened()) as there:
            for session in (ended, less, live):
                here.insert(session, wall_at=1000.0)
            wait_until(lambda: there.acknowledged() >= here.acknowledged())
            before = here.acknowledged()
            cluster.cut_off()
            here.change_tree(ended.id, revoked, wall_at=1000.0)
            there.update([narrower], wall_at=1000.0)
            there.freeze(replace(freeze, id="frz_before"))
            there.freeze(freeze)
            here.insert(lost, wall_at=1000.0)
            cluster.fail_over()
            wait_until(lambda: can(lambda: here.view(live.handle_digest)), seconds=60)
            wait_until(lambda: can(lambda: there.view(live.handle_digest)), seconds=60)
            found = [there.view(session.handle_digest).chain for session in (ended, less, live, lost)]
            freezes = here.freezes()

    assert SessionState.REVOKED == found[0][0].state
    assert [(narrower,), (live,), ()] == found[1:]
    assert (freeze,) == freezes
    assert not one.revoked + other.revoked
    assert {(before, before + 5, 5)} == {(each.revision, each.known, each.lost) for each in one.told}


def test_what_was_taken_and_lost_is_not_given_back(tmp_path: Path) -> None:
    """Of a budget, a count and an approval: what has taken its place never had it, so others could take more."""
    session = living("live")
    with replicated(VERSION, synchronous=False) as cluster:
        machine = Machine(
            conninfo=cluster.conninfo,
            folder=tmp_path,
            replication=Replication.ASYNC,
            reasserts=True,
            settling_seconds=1.0,
            options=HASTY,
        )
        with (
            closing(machine.opened()) as store,
            closing(PostgresSessionHistory(machine.conninfo, **HASTY, beside=store)) as history,
        ):
            store.insert(session, wall_at=1000.0)
            asked = history.access()
            asked.ask(request(), b"{}", at(1000.0))
            asked.answer("acc_1", partial(approve, now=at(1000.0), by="ann", session_end=session.deadline))
            kept = history.charge(_charge(session, 1000.0))
            cluster.cut_off()
            lost = history.charge(_charge(session, 1001.0))
            use = asked.use(bound(), b"", at(1001.0), "dec_1")
            cluster.fail_over()
            wait_until(lambda: can(lambda: history.take_back(_charge(session, 1001.0), lost.charged_at)), seconds=60)
            assert use is not None
            asked.give_back(use)
            history.take_back(_charge(session, 1000.0), kept.charged_at)
            left = history.used(session.id), history.counts([session.id], ["git/log"]).of
            uses = [asked.use(bound(), b"", at(1002.0), "dec_2") is not None for _ in range(2)]
            history.take_back(_charge(session, 1003.0), history.charge(_charge(session, 1003.0)).charged_at)
            later = history.used(session.id)

    used = {"max_calls": Used(1, 0)}
    assert (used, {(session.id, "git/log"): Count(1)}) == left
    assert [True, False] == uses
    assert used == later
    assert not machine.revoked


def _charge(session: Session, at: float) -> Charge:
    """Return a call of a session, at a moment, that takes of a budget and is counted."""
    debit = Debit(session_id=session.id, budget="max_calls", amount=1, most=9, window=0, ends_at=5000.0)
    addend = Addend(session.id, "git/log", 5000.0)
    return Charge(debits=(debit,), retry_digest=b"", now=make_moment(at), addends=(addend,), tree_id=session.id)


def _ended_and_live(store: PostgresSessionStore) -> tuple[Session, Session]:
    """Open two sessions, and end the first of them."""
    ended, live = living("ended"), living("live")
    for one in (ended, live):
        store.insert(one, wall_at=1000.0)
    store.change_tree(ended.id, revoked, wall_at=1000.0)
    return ended, live


def _seen(store: PostgresSessionStore, session: Session) -> Session:
    """Return a session as calls see it, once they are answered."""
    found: list[Session] = []
    wait_until(lambda: can(lambda: found.append(store.view(session.handle_digest).chain[0])))
    return found[0]
