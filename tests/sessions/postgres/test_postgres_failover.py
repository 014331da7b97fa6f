"""When another server of PostgreSQL takes over, nothing acknowledged is lost, or all that may be is revoked."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from pdp.clock import SystemClock
from pdp.errors import OverloadedError, StoreUnavailableError
from pdp.model import Head, Session, SessionState
from pdp.sessions.acknowledged import AcknowledgedFile, Known
from pdp.sessions.postgres import PostgresSessionStore
from pdp.sessions.postgresfailover import SETTLING_SECONDS, Finding, Replication, Standing, judged, standbys_in
from pdp.sessions.postgreshistory import PostgresSessionHistory
from pdp.sessions.postgresrestoring import accept
from pdp.sessions.postgressettling import SettlingStore
from pdp.sessions.values import Charge, Debit, Report, SessionFilter, Used
from pdp.testing.stores.samples import revoked
from pdp.testing.waiting import wait_until
from tests.sessions.postgres.conftest import PATIENT
from tests.sessions.postgres.machine import HASTY, Machine, can, living
from tests.sessions.postgres.postgrescluster import QUORUM, Cluster, replicated
from tests.sessions.postgres.postgresserver import PostgresServer, cancel_commits, reload
from tests.sessions.postgres.tcpproxy import Proxy

pytestmark = pytest.mark.replicas

VERSION = int(os.environ.get("POSTGRES_VERSION", "18"))


@pytest.fixture
def machine(conninfo: str, tmp_path: Path) -> Machine:
    """Give a machine on empty tables, where a failover may lose what was acknowledged."""
    return Machine(conninfo=conninfo, folder=tmp_path, replication=Replication.ASYNC)


# What is to be thought of a server

SEEN = Standing(
    timeline="00000002", settled="00000002", swept="00000001", revision=9, tag="t", standbys="", connection=1
)
KNOWN = Known(head=Head(revision=9, tag="t"), timeline="00000001")


@pytest.mark.parametrize(
    ("seen", "known", "expected"),
    [
        pytest.param(SEEN, KNOWN, Finding.FITS, id="it has all"),
        pytest.param(replace(SEEN, settled="00000001"), KNOWN, Finding.UNSETTLED, id="M16: it has just taken over"),
        pytest.param(replace(SEEN, revision=8, tag=""), KNOWN, Finding.LACKS, id="it is behind"),
        pytest.param(replace(SEEN, tag="other"), KNOWN, Finding.LACKS, id="M5: the number is there, with another tag"),
        pytest.param(replace(SEEN, revision=12, tag=""), KNOWN, Finding.LACKS, id="M5: the number was left out"),
        pytest.param(replace(SEEN, revision=1009, tag=""), KNOWN, Finding.FITS, id="its tag is kept no more"),
        pytest.param(replace(SEEN, revision=8, swept="00000002"), KNOWN, Finding.REPLACED, id="what it lacks is over"),
        pytest.param(
            replace(SEEN, revision=8, swept="00000002"),
            replace(KNOWN, timeline="00000002"),
            Finding.LACKS,
            id="it lacks what it had itself",
        ),
        pytest.param(
            replace(SEEN, revision=8, swept="00000002"),
            replace(KNOWN, timeline=""),
            Finding.LACKS,
            id="it lacks what may be its own",
        ),
        pytest.param(
            replace(SEEN, settled="00000001", timeline="00000001", revision=8),
            replace(KNOWN, timeline="00000002"),
            Finding.EARLIER,
            id="another one has taken its place",
        ),
    ],
)
def test_a_server_is_judged_by_what_is_known(seen: Standing, known: Known, expected: Finding) -> None:
    """Where nothing can be lost that was acknowledged."""
    assert expected == judged(seen, known, Replication.QUORUM)


def test_a_machine_that_writes_again_what_it_has_closed_does_so_before_it_acknowledges() -> None:
    """Once on each timeline, also the first that it meets."""
    swept = replace(SEEN, swept=SEEN.timeline)

    assert Finding.OWED == judged(replace(swept, again="00000001"), KNOWN, Replication.ASYNC, "machine")
    assert Finding.FITS == judged(replace(swept, again=SEEN.timeline), KNOWN, Replication.ASYNC, "machine")


def test_a_server_that_has_taken_over_may_lack_what_is_not_known() -> None:
    """Where commits wait for no standby, until all is revoked that may have been revoked already."""
    assert Finding.DOUBTFUL == judged(SEEN, KNOWN, Replication.ASYNC)
    assert Finding.FITS == judged(replace(SEEN, swept=SEEN.timeline), KNOWN, Replication.ASYNC)


@pytest.mark.parametrize(
    ("names", "expected"),
    [("", 0), ("a", 1), ("ANY 1 (a)", 1), ("any 1 (a, b)", 2), ('FIRST 1 ("a", b)', 2), ("2 (a,b,c)", 3), ("*", None)],
)
def test_standbys_are_counted(names: str, expected: int | None) -> None:
    """In each form of the setting."""
    assert expected == standbys_in(names)


# One server, which takes over


def test_nothing_is_acknowledged_until_every_lease_is_over(machine: Machine, takes_over: Callable[[], None]) -> None:
    """M16: the row of a server that has a lease from before may be lost, so no fence waits for it."""
    machine.settling_seconds = 0.5
    with closing(machine.opened()) as store:
        store.touch(wall_at=1000.0)
        takes_over()
        began = time.monotonic()
        with pytest.raises(StoreUnavailableError):
            store.touch(wall_at=2000.0)
        with pytest.raises(StoreUnavailableError, match="nothing is acknowledged until every lease is over"):
            store.touch(wall_at=3000.0)
        wait_until(lambda: can(lambda: store.touch(wall_at=4000.0)))

    assert began + 0.5 <= machine.told_at <= time.monotonic()
    assert SETTLING_SECONDS > 5.0


def test_what_calls_leave_behind_is_not_acknowledged_before_either(
    machine: Machine, server: PostgresServer, takes_over: Callable[[], None]
) -> None:
    """M16: a server with a lease from before may still ask the one before, which knows no report that is kept here."""
    machine.settling_seconds = 3600.0
    with (
        closing(machine.opened()) as store,
        closing(PostgresSessionHistory(machine.conninfo, **PATIENT, beside=store)) as history,
        server.connect() as other,
    ):
        asked: list[Callable[[], object]] = [
            partial(history.keep_report, Report(decision_id="dec_1", digest=b"", reported_at=1000.0)),
            partial(history.values().count, "ses_a"),
        ]
        for ask in asked:
            ask()
        takes_over()
        for ask in asked:
            # The first time it only finds that the connection is gone.
            with pytest.raises(StoreUnavailableError):
                ask()
            with pytest.raises(StoreUnavailableError, match="nothing is acknowledged until every lease is over"):
                ask()
        other.execute("SET search_path = pdp_sessions")
        other.execute("UPDATE timelines SET (settled, swept) = (SELECT timeline, timeline FROM standing)")
        for ask in asked:
            ask()


def test_what_is_live_is_revoked_when_what_was_lost_cannot_be_known(
    machine: Machine, takes_over: Callable[[], None]
) -> None:
    """Before any call is answered; and what is opened afterwards lives on."""
    live = living("live")
    with closing(machine.opened()) as store:
        store.insert(live, wall_at=1000.0)
        known = store.acknowledged()
        takes_over()
        wait_until(lambda: can(lambda: store.view(live.handle_digest)))
        after = store.view(live.handle_digest).chain[0]
        later = living("later")
        wait_until(lambda: can(lambda: store.insert(later, wall_at=2000.0)))

        assert SessionState.REVOKED == after.state
        assert (later,) == store.view(later.handle_digest).chain
    assert [live.id] == machine.revoked
    assert [(known, known, 0)] == [(one.revision, one.known, one.lost) for one in machine.told]


def test_what_was_lost_is_named(machine: Machine, server: PostgresServer, takes_over: Callable[[], None]) -> None:
    """By a machine whose processes have all ended, from its file; its next change comes after all that it knew."""
    session = living("live")
    with closing(machine.opened()) as store:
        store.insert(session, wall_at=1000.0)
        known = store.acknowledged()
        store.touch(wall_at=1001.0)
        store.touch(wall_at=1002.0)
    with server.connect() as connection:
        connection.execute("UPDATE pdp_sessions.meta SET revision = revision - 2")
    takes_over()
    with closing(machine.opened()) as store:
        assert SessionState.REVOKED == store.view(session.handle_digest).chain[0].state
        assert known + 2 < store.acknowledged()
    assert [(known, known + 2, 2)] == [(one.revision, one.known, one.lost) for one in machine.told]


def test_a_machine_without_its_file_says_that_it_cannot_know(machine: Machine, takes_over: Callable[[], None]) -> None:
    """It revokes what is live, as it does when it knows of a loss."""
    live = living("live")
    with closing(machine.opened()) as store:
        store.insert(live, wall_at=1000.0)
    (machine.folder / "acknowledged").unlink()
    takes_over()
    with closing(machine.opened()) as store:
        assert SessionState.REVOKED == store.view(live.handle_digest).chain[0].state

    assert [(0, None)] == [(one.known, one.lost) for one in machine.told]


def test_a_new_machine_revokes_nothing_where_all_is_settled(machine: Machine, tmp_path: Path) -> None:
    """It has no file, and nothing can have been lost."""
    live = living("live")
    with closing(machine.opened()) as store:
        store.insert(live, wall_at=1000.0)
    (tmp_path / "new").mkdir()
    machine.folder = tmp_path / "new"
    with closing(machine.opened()) as store:
        assert (live,) == store.view(live.handle_digest).chain
    assert not machine.told


def test_what_was_acknowledged_is_on_the_disk_before(machine: Machine) -> None:
    """A commit is no success when the machine cannot keep that it was made."""
    with closing(machine.opened()) as store:
        store.touch(wall_at=1000.0)
        known = store.acknowledged()
        with closing(AcknowledgedFile(machine.folder / "acknowledged", deployment=_deployment(machine))) as file:
            kept = file.read()
        assert store._failover is not None
        assert store._failover._file is not None
        store._failover._file.close()
        with pytest.raises(StoreUnavailableError, match="cannot be written to the disk of this machine"):
            store.touch(wall_at=2000.0)
        store._failover._file = None

    assert known == kept.head.revision
    assert kept.head.tag


def test_what_a_machine_cannot_keep_holds_everywhere_when_it_says_so(machine: Machine, server: PostgresServer) -> None:
    """A revocation is fenced also when it is not acknowledged: it stands, and no lease allows what it has ended."""
    session = living("live")
    with closing(machine.opened()) as store, server.connect() as connection:
        store.insert(session, wall_at=1000.0)
        assert store._failover is not None
        assert store._failover._file is not None
        store._failover._file.close()
        connection.execute("INSERT INTO pdp_sessions.replicas VALUES ('silent', 0, 0.3)")
        with pytest.raises(StoreUnavailableError, match=r"disk of this machine: .*; the change is made and stands"):
            store.change_tree(session.id, revoked, wall_at=2000.0)
        # The one that waits for a silent machine removes it.
        silent = connection.execute("SELECT id FROM pdp_sessions.replicas").fetchall()

        assert [] == silent
        assert (revoked(session),) == store.view(session.handle_digest).chain
        store._failover._file = None


def test_an_earlier_server_that_is_reached_again_is_refused(machine: Machine) -> None:
    """Also where changes can be lost: the one that has taken its place goes on, with sessions that it cannot revoke."""
    with closing(machine.opened()) as store:
        store.touch(wall_at=1000.0)
    with closing(AcknowledgedFile(machine.folder / "acknowledged", deployment=_deployment(machine))) as file:
        head = file.read().head
        file.keep(Known(head=Head(revision=head.revision + 1, tag="later"), timeline="000000FF"))
    with pytest.raises(StoreUnavailableError, match="one on `000000FF` has taken its place"):
        machine.opened()
    accept(machine.conninfo, now=SystemClock().now(), file=machine.folder / "acknowledged")
    with closing(machine.opened()) as store:
        store.touch(wall_at=1000.0)

    assert not machine.told


@pytest.mark.parametrize("replication", [Replication.NONE, Replication.QUORUM])
def test_where_nothing_can_be_lost_a_server_that_lacks_something_is_refused(
    machine: Machine, server: PostgresServer, replication: Replication
) -> None:
    """M5: people decide, also when the number of the change is there, with another tag."""
    with closing(machine.opened()) as store:
        store.touch(wall_at=1000.0)
    with server.connect() as connection:
        connection.execute("UPDATE pdp_sessions.tags SET tag = 'another'")
    machine.replication = replication
    with pytest.raises(StoreUnavailableError, match="lacks latest changes that it acknowledged"):
        # Closed where it is opened all the same.
        machine.opened().close()


def test_without_a_failover_no_other_server_is_taken(machine: Machine, takes_over: Callable[[], None]) -> None:
    """A database that was restored is one as well."""
    machine.replication = Replication.NONE
    with closing(machine.opened()) as store:
        store.touch(wall_at=1000.0)
    takes_over()
    with pytest.raises(StoreUnavailableError, match=r"`sessions\.replication` is `none`"):
        machine.opened()


def test_a_quorum_needs_standbys_that_commits_wait_for(machine: Machine) -> None:
    """Or nothing would keep what was acknowledged."""
    machine.replication = Replication.QUORUM
    with pytest.raises(StoreUnavailableError, match="`synchronous_standby_names` is empty"):
        machine.opened()


def test_a_server_is_settled_when_all_leases_have_a_change_that_only_it_has(
    server: PostgresServer, conninfo: str, takes_over: Callable[[], None]
) -> None:
    """A lease vouches for labels that are read with it, and they have no number: not for those of the one before."""
    takes_over()
    with server.connect() as connection, closing(SettlingStore(conninfo, **PATIENT)) as store:
        connection.execute("SET search_path = pdp_sessions")
        seen = store.standing()
        connection.execute("INSERT INTO replicas VALUES ('silent', 0, 60)")
        with ThreadPoolExecutor(1) as pool:
            taken = pool.submit(store.take, seen)
            changed = "SELECT settled FROM meta, timelines WHERE revision > %s"
            wait_until(lambda: connection.execute(changed, (seen.revision,)).fetchone() is not None)
            while_it_waits = connection.execute(changed, (seen.revision,)).fetchone(), taken.done()
            connection.execute("DELETE FROM replicas")
            taken.result(timeout=60)

        assert (("00000000",), False) == while_it_waits
        assert seen.timeline == store.standing().settled


def test_people_can_go_on_with_what_there_is(
    machine: Machine, server: PostgresServer, takes_over: Callable[[], None]
) -> None:
    """`pdp store restore` settles it, for this machine too: nothing is revoked a second time."""
    live, later = living("live"), living("later")
    with closing(machine.opened()) as store:
        store.insert(live, wall_at=1000.0)
        store.touch(wall_at=1000.0)
    with server.connect() as connection:
        connection.execute("UPDATE pdp_sessions.meta SET revision = revision - 1")
    takes_over()
    restored = accept(machine.conninfo, now=SystemClock().now(), file=machine.folder / "acknowledged")
    with closing(machine.opened()) as store:
        store.insert(later, wall_at=1000.0)

        assert [live.id] == [one.id for one in restored.revoked]
        assert (later,) == store.view(later.handle_digest).chain
    assert not machine.told


def test_a_machine_that_knows_more_than_the_one_that_restored_is_refused_until_it_has_done_so(
    machine: Machine, server: PostgresServer, tmp_path: Path
) -> None:
    """It may not have been told, and then revokes what was opened since; the first one goes on afterwards."""
    machine.replication = Replication.NONE
    (tmp_path / "there").mkdir()
    there, later = replace(machine, folder=tmp_path / "there"), living("later")
    with closing(machine.opened()) as store:
        store.touch(wall_at=1000.0)
        restored = store.acknowledged()
    with closing(there.opened()) as store:
        for _ in range(3):
            store.touch(wall_at=1000.0)
    with server.connect() as connection:
        connection.execute("SET search_path = pdp_sessions")
        connection.execute("UPDATE meta SET revision = %s", (restored,))
        connection.execute("DELETE FROM tags WHERE revision > %s", (restored,))
    now = SystemClock().now()
    accept(machine.conninfo, now=now, file=machine.folder / "acknowledged")
    with closing(machine.opened()) as store:
        store.insert(later, wall_at=1000.0)
    with pytest.raises(StoreUnavailableError, match=r"lacks .* changes that it acknowledged"):
        there.opened()
    revoked_there = accept(machine.conninfo, now=now, file=there.folder / "acknowledged").revoked
    with closing(there.opened()), closing(machine.opened()) as store:
        state = store.view(later.handle_digest).chain[0].state

    assert ([later.id], SessionState.REVOKED) == ([one.id for one in revoked_there], state)


# A primary and its standbys


@pytest.fixture(scope="module")
def quorum() -> Iterator[Cluster]:
    """Give a primary whose commits wait for one of two standbys."""
    with replicated(VERSION, synchronous=True) as cluster:
        yield cluster


def test_the_kill_of_a_primary_loses_nothing_that_was_acknowledged(quorum: Cluster, tmp_path: Path) -> None:
    """Writers go on until it is gone, and find what they were told on the standby; none is told before leases end."""
    machine = Machine(
        conninfo=quorum.conninfo,
        folder=tmp_path,
        replication=Replication.QUORUM,
        settling_seconds=SETTLING_SECONDS,
        lease_seconds=1.0,
        options=HASTY,
    )
    sessions = [living(f"s{number}") for number in range(300)]
    with closing(machine.opened()) as store, ThreadPoolExecutor(4) as pool:
        store.insert(sessions[0], wall_at=1000.0)
        wait_until(lambda: can(lambda: store.view(sessions[0].handle_digest)), seconds=60)
        writing = [pool.submit(_insert, store, one) for one in sessions[1:]]
        wait_until(lambda: sum(one.done() and one.result() is not None for one in writing) > 20, seconds=60)
        killed_at = time.monotonic()
        quorum.fail_over()
        acknowledged = [one for one in (sent.result() for sent in writing) if one is not None]
        wait_until(lambda: can(lambda: store.change_tree(sessions[0].id, revoked, wall_at=2000.0)), seconds=60)
        settled_at = time.monotonic()
        found = {one.id for one in store.select(SessionFilter(), limit=1000)}

        assert len(acknowledged) >= 20
        assert not {one.id for one in acknowledged} - found
        assert (revoked(sessions[0]),) == store.view(sessions[0].handle_digest).chain
    assert settled_at - killed_at >= SETTLING_SECONDS
    assert not machine.told


def test_a_primary_that_was_cut_off_answers_no_call(quorum: Cluster, tmp_path: Path) -> None:
    """M2: it would say for ever that nothing has changed; it cannot renew a lease, and reading it proves nothing."""
    machine = Machine(
        conninfo=quorum.conninfo,
        folder=tmp_path,
        replication=Replication.QUORUM,
        lease_seconds=1.0,
        options=HASTY,
    )
    session = living("cut off")
    with closing(machine.opened()) as store:
        store.insert(session, wall_at=1000.0)
        wait_until(lambda: can(lambda: store.view(session.handle_digest)), seconds=60)
        quorum.cut_off()
        wait_until(lambda: not can(lambda: store.view(session.handle_digest)), seconds=60)
        with pytest.raises(StoreUnavailableError, match="this machine has no lease"):
            store.view(session.handle_digest)
        # What ends it is a write, which proves more.
        read = store.get(session.id), store.find(session.handle_digest)
        quorum.reconnect()

        assert ((session,), (session,)) == read
        wait_until(lambda: can(lambda: store.view(session.handle_digest)), seconds=60)


def test_nothing_is_taken_of_a_budget_while_commits_wait_for_no_standby(quorum: Cluster, tmp_path: Path) -> None:
    """On connections that were opened while they did: the failover could lose what was taken."""
    machine = Machine(conninfo=quorum.conninfo, folder=tmp_path, replication=Replication.QUORUM, options=HASTY)
    session = living("charged")
    charge = _charge(session)
    with (
        closing(machine.opened()) as store,
        closing(PostgresSessionHistory(machine.conninfo, **HASTY, beside=store)) as history,
        quorum.primary.connect() as connection,
    ):
        wait_until(lambda: can(lambda: history.charge(charge)), seconds=60)
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
        reload(connection)
        with pytest.raises(StoreUnavailableError, match="`synchronous_standby_names` is empty"):
            history.charge(charge)
        connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{QUORUM}'")
        reload(connection)
        wait_until(lambda: can(lambda: history.charge(charge)), seconds=60)

        assert {"max_calls": Used(2, 0)} == history.used(session.id)


def test_a_commit_that_was_cancelled_and_read_makes_no_right_server_wrong(quorum: Cluster, tmp_path: Path) -> None:
    """Nobody was told of it, so a primary that lacks it is used; what is known to be acknowledged is not taken back."""
    machine = Machine(conninfo=quorum.conninfo, folder=tmp_path, replication=Replication.QUORUM, options=HASTY)
    session = living("cancelled")
    with closing(machine.opened()) as store, ThreadPoolExecutor(1) as pool:
        wait_until(lambda: can(lambda: store.touch(wall_at=1000.0)), seconds=60)
        known = store.acknowledged()
        quorum.cut_off()
        inserting = pool.submit(_insert, store, session)
        cancel_commits(quorum.primary)
        inserted = inserting.result(timeout=60)
        read = store.get(session.id)
        known_then = store.acknowledged()
        quorum.fail_over()
        found: list[tuple[Session, ...]] = []
        wait_until(lambda: can(lambda: found.append(store.get(session.id))), seconds=60)

    assert (None, (session,)) == (inserted, read)
    assert known == known_then
    assert [()] == found


def test_a_standby_that_was_promoted_too_early_is_refused(tmp_path: Path) -> None:
    """It lacks what the other one has: by servers that go on, and by those that are started again."""
    machine = Machine(conninfo="", folder=tmp_path, replication=Replication.QUORUM, options=HASTY)
    with replicated(VERSION, synchronous=True) as cluster:
        late = cluster.standbys[1]
        machine.conninfo = cluster.conninfo
        with closing(machine.opened()) as store:
            with late.connect() as connection:
                connection.execute("ALTER SYSTEM SET primary_conninfo = ''")
                connection.execute("SELECT pg_reload_conf()")
                wait_until(
                    lambda: connection.execute("SELECT 1 FROM pg_stat_wal_receiver").fetchone() is None, seconds=60
                )
            wait_until(lambda: can(lambda: store.touch(wall_at=1000.0)), seconds=60)
            cluster.primary.kill()
            late.promote()
            wait_until(lambda: "lacks the last" in _problem(lambda: store.touch(wall_at=2000.0)), seconds=60)
        with pytest.raises(StoreUnavailableError, match="lacks the last"):
            machine.opened()


def test_a_primary_that_goes_on_is_left_when_the_lease_is_of_another_one(tmp_path: Path) -> None:
    """By connections that no error ends, also those of the history: what they show has no number by which it is old."""
    session = living("labelled")
    charge = _charge(session)
    sliced = replace(charge, debits=(replace(charge.debits[0], slice=4),))
    with ExitStack() as opened:
        cluster = opened.enter_context(replicated(VERSION, synchronous=True))
        proxy = opened.enter_context(closing(Proxy(cluster.primary.port)))
        here = Machine(
            conninfo=f"host=127.0.0.1 port={proxy.port} user=pdp dbname=postgres",
            folder=tmp_path,
            replication=Replication.QUORUM,
            lease_seconds=1.0,
            options=HASTY,
        )
        store = opened.enter_context(closing(here.opened()))
        history = opened.enter_context(closing(PostgresSessionHistory(here.conninfo, **HASTY, beside=store)))
        store.insert(session, wall_at=1000.0)
        wait_until(lambda: can(lambda: store.view(session.handle_digest)), seconds=60)
        before = history.charge(sliced).used
        cluster.cut_off()
        wait_until(lambda: store.lease() is None, seconds=60)
        proxy.to = cluster.promote().port
        (tmp_path / "there").mkdir()
        there = replace(here, folder=tmp_path / "there", lease_seconds=0.0)
        with closing(there.opened()) as other, closing(PostgresSessionHistory(there.conninfo, **HASTY)) as charged:
            charged.charge(charge)
            (labelled,) = other.settle([session], frozenset({"secret"}), by="a call", wall_at=1000.0)
        found: list[tuple[Session, ...]] = []
        wait_until(lambda: can(lambda: found.append(store.view(session.handle_digest).chain)), seconds=60)
        used = history.used(session.id)
        after = history.charge(sliced).used

    assert [(labelled,)] == found
    # It holds three of four until it takes the next slice: that one is of another server, so it is not spent from.
    assert ((1,), {"max_calls": Used(2, 0)}, (3,)) == (before, used, after)


def test_the_kill_of_a_primary_that_waits_for_none_revokes_what_is_live(tmp_path: Path) -> None:
    """A revocation that no standby had was acknowledged: the session is revoked all the same, and the loss is named."""
    with replicated(VERSION, synchronous=False) as cluster:
        machine = Machine(conninfo=cluster.conninfo, folder=tmp_path, replication=Replication.ASYNC, options=HASTY)
        lost, live = living("lost"), living("live")
        with closing(machine.opened()) as store:
            for one in (lost, live):
                store.insert(one, wall_at=1000.0)
            before = store.acknowledged()
            cluster.cut_off()
            store.change_tree(lost.id, revoked, wall_at=1000.0)
            cluster.fail_over()
            wait_until(lambda: can(lambda: store.view(live.handle_digest)), seconds=60)
            states = [store.view(one.handle_digest).chain[0].state for one in (lost, live)]

    assert [SessionState.REVOKED] * 2 == states
    assert {lost.id, live.id} == set(machine.revoked)
    assert [(before, before + 1, 1)] == [(one.revision, one.known, one.lost) for one in machine.told]


def _charge(session: Session) -> Charge:
    """Return one call of a session with a budget."""
    debit = Debit(session_id=session.id, budget="max_calls", amount=1, most=9, window=0, ends_at=5000.0)
    return Charge(debits=(debit,), retry_digest=b"", now=SystemClock().now(), tree_id=session.id)


def _insert(store: PostgresSessionStore, session: Session) -> Session | None:
    """Insert a session, and return it if that was acknowledged."""
    return session if can(lambda: store.insert(session, wall_at=1000.0)) else None


def _deployment(machine: Machine) -> str:
    with closing(SettlingStore(machine.conninfo, **PATIENT)) as store:
        return store.deployment()


def _problem(call: Callable[[], object]) -> str:
    """Return why the store cannot do something now; empty when it can."""
    try:
        call()
    except (StoreUnavailableError, OverloadedError) as error:
        return str(error)
    return ""
