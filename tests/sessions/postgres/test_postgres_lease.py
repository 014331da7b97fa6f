"""Servers that answer from memory never answer from before an acknowledged write: the lease, the fence and the tags."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from threading import Event as Signal
from time import monotonic
from typing import Any

import pytest

from pdp.errors import ConflictError, OverloadedError, StoreUnavailableError
from pdp.model import Head, Session
from pdp.sessions.fences import Fences
from pdp.sessions.lease import CLOCK_RATE, MOST_LEASE_SECONDS, Fence, FencedBy, Lease, LeaseTerms
from pdp.sessions.leasepage import LeasePage
from pdp.sessions.postgres import PostgresSessionStore
from pdp.sessions.postgresconnection import PostgresConnection
from pdp.sessions.postgresfence import PostgresFence
from pdp.sessions.postgreslease import LeaseRenewer
from pdp.sessions.postgreswatcher import PostgresWatcher
from pdp.sessions.values import Expected, StoreView
from pdp.sessions.writes import Write
from pdp.testing.stores.samples import insert_family, make_bundle, make_session, revoked, unchanged
from pdp.testing.waiting import wait_until
from tests.sessions.postgres.conftest import PATIENT, leased_store
from tests.sessions.postgres.movableclock import MovableClock
from tests.sessions.postgres.postgresserver import PostgresServer, set_to
from tests.sessions.postgres.tcpproxy import Proxy

pytestmark = pytest.mark.replicas

TABLES = "pdp_sessions"
# What ends by itself takes less on any machine.
PATIENCE = 20.0
ROOT = make_session("root")
WRITE = Write(key=b"key", digest=b"asked")


class WatchedPage(LeasePage):
    """A page that looks at the database at the moment of each publication."""

    look: Callable[[], Any]
    found: tuple[Any, ...] = ()

    def publish(self, lease: Lease | None) -> None:
        """Note what the database holds, and publish."""
        self.found += (self.look(),)
        super().publish(lease)


class Database:
    """What a test asks and writes beside the program."""

    def __init__(self, server: PostgresServer) -> None:
        self._connection = server.connect()
        self._connection.execute(f"SET search_path = {TABLES}")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def ask(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        return self._connection.execute(query.encode(), values).fetchall()

    def write(self, statement: str, *values: object) -> None:
        """Make a change."""
        self._connection.execute(statement.encode(), values)

    def join(self, name: str, *, seconds: float) -> None:
        """Insert the row of a server that does nothing."""
        self.write("INSERT INTO replicas VALUES (%s, 0, %s)", name, seconds)

    def confirm(self, name: str, revision: int, tag: str = "") -> None:
        """Confirm a revision for a server, with its tag or another one."""
        found = tag or self.ask("SELECT tag FROM tags WHERE revision = %s", revision)[0][0]
        self.write("INSERT INTO confirmations VALUES (%s, %s, %s)", name, revision, found)

    def names(self) -> list[str]:
        """Return the servers that have rows."""
        return [name for (name,) in self.ask("SELECT id FROM replicas ORDER BY id")]


@pytest.fixture
def database(server: PostgresServer, conninfo: str) -> Iterator[Database]:
    """Give a connection to empty tables."""
    assert conninfo
    with closing(Database(server)) as database:
        yield database


@pytest.fixture
def clock() -> MovableClock:
    """Give the clock of a machine."""
    return MovableClock()


@pytest.fixture
def page(database: Database, tmp_path: Path, clock: MovableClock) -> Iterator[WatchedPage]:
    """Give the page of a machine."""
    ((deployment,),) = database.ask("SELECT id FROM deployment")
    page = WatchedPage(LeaseTerms(file=tmp_path / "lease", seconds=60.0, clock=clock), deployment=deployment)
    page.look = lambda: None
    with closing(page):
        yield page


def connection_to(conninfo: str) -> PostgresConnection:
    """Return a connection as the store makes it."""
    return PostgresConnection(
        conninfo, namespace=TABLES, name="session store", busy_seconds=0.0, seconds=30.0, idle_seconds=60.0
    )


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """Give what ends what a test has opened."""
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def renew(conninfo: str, page: WatchedPage, clock: MovableClock, opened: ExitStack) -> Callable[[], None]:
    """Give what renews the lease once."""
    terms = LeaseTerms(file=Path("unused"), seconds=60.0, clock=clock)
    renewer = LeaseRenewer(connection_to(conninfo), page, terms, channel=TABLES)
    opened.callback(renewer.stop)
    return renewer.turn


class Time:
    """Time that passes while a fence waits; `meanwhile` is called each time."""

    def __init__(self) -> None:
        self.at = 0.0
        self.meanwhile: Callable[[], object] = lambda: None
        self.over = False

    def pause(self, seconds: float) -> bool:
        """Let time pass."""
        self.at += seconds
        self.meanwhile()
        return self.over


@pytest.fixture
def time() -> Time:
    """Give the time of a fence."""
    return Time()


@pytest.fixture
def fence(conninfo: str, time: Time, opened: ExitStack) -> PostgresFence:
    """Give a fence."""
    return opened.enter_context(closing(fence_at(conninfo, time)))


def fence_at(conninfo: str, time: Time) -> PostgresFence:
    """Return a fence of a database."""
    return PostgresFence(
        connection_to(conninfo),
        channel=TABLES,
        monotonic=lambda: time.at,
        pause=time.pause,
    )


# The renewal


def test_a_lease_begins_before_it_is_asked_for(
    renew: Callable[[], None], page: WatchedPage, clock: MovableClock, database: Database
) -> None:
    """M1: its beginning was read when the database had not yet renewed it."""
    renew()
    renewals = []
    clock.on_reading = lambda: renewals.append(database.ask("SELECT renewals FROM replicas")[0][0])
    clock.readings.clear()
    renew()
    lease = page.lease()

    assert lease is not None
    assert (clock.readings[0], 1) == (lease.begun, renewals[0])


def test_the_row_comes_first_then_the_page_then_the_confirmation(
    renew: Callable[[], None], page: WatchedPage, database: Database
) -> None:
    """M10, M17: a fence that looks at any moment misses no server, and believes none that its workers belie."""
    page.look = lambda: database.ask("SELECT (SELECT count(*) FROM replicas), (SELECT count(*) FROM confirmations)")
    renew()

    assert ([(1, 0)],) == page.found
    assert [(1, 1)] == page.look()


def test_a_lease_has_the_head_of_the_database(renew: Callable[[], None], page: WatchedPage, database: Database) -> None:
    """And it is confirmed with its tag, once."""
    renew()
    database.write("UPDATE meta SET revision = 5")
    renew()
    renew()
    ((tag,),) = database.ask("SELECT tag FROM tags WHERE revision = 5")
    lease = page.held()

    assert lease is not None
    assert Head(revision=5, tag=tag) == lease.head
    assert [(5, tag)] == database.ask("SELECT revision, tag FROM confirmations")


def test_a_removed_server_joins_before_its_next_lease(
    renew: Callable[[], None], page: WatchedPage, database: Database
) -> None:
    """M10: the turn that finds no row begins no lease."""
    renew()
    before = page.lease()
    database.write("DELETE FROM replicas")
    renew()
    between = page.lease()
    renew()

    assert before == between
    assert before != page.lease()
    assert 1 == len(database.names())


def test_a_confirmation_that_a_crash_has_removed_is_made_again(
    server: PostgresServer, renew: Callable[[], None]
) -> None:
    """Although nothing has changed."""
    renew()
    server.restart()
    with closing(Database(server)) as database:
        emptied = database.ask("SELECT count(*) FROM confirmations")
        renew()

        assert [(0,)] == emptied
        assert [(1,)] == database.ask("SELECT count(*) FROM confirmations")


@pytest.mark.parametrize(
    "setting",
    [
        pytest.param({"synchronous_standby_names": "nobody"}, id="M8, M11: no standby has it"),
        pytest.param({"default_transaction_read_only": "on"}, id="M2: a server that only reads"),
    ],
)
def test_a_renewal_that_is_not_safe_is_none(
    server: PostgresServer, conninfo: str, page: WatchedPage, clock: MovableClock, setting: dict[str, str]
) -> None:
    """What it has seen could be taken back."""
    terms = LeaseTerms(file=Path("unused"), seconds=1.0, clock=clock)
    connection = connection_to(conninfo)
    renewer = LeaseRenewer(connection, page, terms, channel=TABLES)
    renewer.turn()
    before = page.lease()
    with set_to(server, **setting), connection.within(1.0), pytest.raises(StoreUnavailableError):
        renewer.turn()
    after = page.lease()
    renewer.stop()

    assert before is not None
    assert before == after


def test_a_hint_during_a_renewal_brings_another(
    conninfo: str, page: WatchedPage, clock: MovableClock, database: Database, opened: ExitStack
) -> None:
    """What it is about can have come after the renewal was made; the next one by the clock is far away."""
    terms = LeaseTerms(file=Path("unused"), seconds=3600.0, clock=clock)
    renewer = LeaseRenewer(connection_to(conninfo), page, terms, channel=TABLES)
    opened.callback(renewer.stop)

    def meanwhile() -> None:
        database.write("UPDATE meta SET revision = 5")
        database.write("NOTIFY pdp_sessions")
        page.look = lambda: None

    page.look = meanwhile
    renewer.start()

    wait_until(lambda: (lease := page.held()) is not None and lease.head.revision == 5)


def test_a_clock_far_from_that_of_the_database_has_no_lease(
    renew: Callable[[], None], page: WatchedPage, clock: MovableClock, database: Database
) -> None:
    """Sessions would expire too late or too early: it leaves, and keeps no one waiting."""
    renew()
    clock.wall = -60.0
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match=r"more than 0\.5 seconds apart"):
            renew()

    assert page.lease() is None
    assert not database.names()


# The fence


def test_without_servers_that_remember_nothing_waits(fence: PostgresFence) -> None:
    """There is nothing to say either."""
    assert fence.wait(1) is None


def test_all_that_have_confirmed_is_enough(fence: PostgresFence, database: Database) -> None:
    """Of a later revision, too."""
    database.write("UPDATE meta SET revision = 7")
    for name in ("a", "b"):
        database.join(name, seconds=1.0)
        database.confirm(name, 7)

    assert Fence(by=FencedBy.CONFIRMED, seconds=0.0) == fence.wait(6)


@pytest.mark.parametrize(
    ("revision", "tag"),
    [
        pytest.param(None, "", id="M6: one of two has confirmed"),
        pytest.param(6, "", id="an earlier one"),
        pytest.param(7, "of another history", id="M20: the number without the tag"),
    ],
)
def test_one_that_has_not_confirmed_is_waited_for(
    fence: PostgresFence, database: Database, time: Time, revision: int | None, tag: str
) -> None:
    """M3, M13: until its lease is over, however long it has been silent before."""
    database.write("UPDATE meta SET revision = 6")
    database.write("UPDATE meta SET revision = 7")
    for name in ("a", "b"):
        database.join(name, seconds=1.0)
    database.confirm("a", 7)
    if revision is not None:
        database.confirm("b", revision, tag)
    found = fence.wait(7)

    assert found is not None
    assert FencedBy.WAITED == found.by
    assert CLOCK_RATE <= found.seconds == time.at
    # It was silent all the time: the next fence has only the other one to wait for.
    assert ["a"] == database.names()
    assert Fence(by=FencedBy.CONFIRMED, seconds=0.0) == fence.wait(7)


def test_one_that_renews_meanwhile_stays(fence: PostgresFence, database: Database, time: Time) -> None:
    """M19: it lives, and only has not confirmed."""
    database.join("a", seconds=1.0)
    time.meanwhile = lambda: database.write("UPDATE replicas SET renewals = 1")
    fence.wait(1)

    assert ["a"] == database.names()


def test_one_that_renews_at_the_last_moment_stays(
    fence: PostgresFence, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """M19: after it was looked at, and before it is removed."""
    database.join("a", seconds=1.0)
    remove = fence._remove

    def late(silent: Any) -> None:
        database.write("UPDATE replicas SET renewals = 1")
        remove(silent)

    monkeypatch.setattr(fence, "_remove", late)
    fence.wait(1)

    assert ["a"] == database.names()


def test_a_confirmation_ends_the_waiting(fence: PostgresFence, database: Database, time: Time) -> None:
    """And one that joins meanwhile is not waited for: its first lease begins after the write."""
    database.join("a", seconds=1.0)

    def meanwhile() -> None:
        if len(database.names()) == 1:
            database.join("b", seconds=1.0)
            database.confirm("a", 0)

    time.meanwhile = meanwhile
    found = fence.wait(0)

    assert found is not None
    assert FencedBy.CONFIRMED == found.by
    assert found.seconds < 1.0


def test_without_the_database_a_fence_waits_for_the_longest_lease(time: Time) -> None:
    """The waiting alone is safe."""
    with closing(fence_at("host=127.0.0.1 port=1", time)) as fence:
        found = fence.wait(1)

    assert found is not None
    assert FencedBy.WAITED == found.by
    assert MOST_LEASE_SECONDS * CLOCK_RATE <= found.seconds


def test_a_database_that_falls_silent_holds_no_fence_for_longer(
    server: PostgresServer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor others of the process, which wait for the same connection."""
    monkeypatch.setattr("pdp.sessions.postgresfence._REMOVAL_SECONDS", 0.25)
    database.join("a", seconds=0.3)
    all_wait, silent_since = Barrier(4), list[float]()
    with closing(Proxy(server.port)) as proxy, ThreadPoolExecutor(4) as threads:

        def pause(_: float) -> bool:
            if not proxy.stalled.is_set():
                all_wait.wait()
                proxy.stalled.set()
                silent_since.append(monotonic())
            return False

        def passed() -> float:
            # No lease is over before all wait for it.
            return monotonic() - silent_since[0] if silent_since else 0.0

        connection = connection_to(server.conninfo_at(proxy.port))
        with closing(PostgresFence(connection, channel=TABLES, monotonic=passed, pause=pause)) as fence:
            found = list(threads.map(fence.wait, range(4)))

    assert [FencedBy.WAITED] * 4 == [one and one.by for one in found]
    # The connection alone would wait for 30 seconds.
    assert all(one and one.seconds < 10.0 for one in found)


def test_a_fence_that_must_end_says_what_stands(fence: PostgresFence, database: Database, time: Time) -> None:
    """The caller knows neither that it failed, nor that it holds everywhere."""
    database.join("a", seconds=1.0)
    time.over = True
    with pytest.raises(StoreUnavailableError, match="the change is made and stands"):
        fence.wait(1)


# Stores that answer from memory


@pytest.fixture
def here(conninfo: str, tmp_path: Path) -> Iterator[PostgresSessionStore]:
    """Give the store of a machine that has a lease."""
    with closing(leased_store(conninfo, tmp_path / "here")) as store:
        yield store


def test_under_a_lease_memory_answers_alone(here: PostgresSessionStore, conninfo: str) -> None:
    """M12: but what is not remembered is asked for, such as an unknown handle; and so are labels, where they count."""
    known, new = make_session("a"), make_session("b")
    here.insert(known, wall_at=1000.0)
    wait_until(lambda: _remembers(here, known.handle_digest))
    before = here.view(new.handle_digest).chain
    with closing(PostgresSessionStore(conninfo, **PATIENT)) as there:
        there.insert(new, wall_at=1000.0)

    assert not before
    assert here.view(new.handle_digest).chain == (new,)
    _watcher(here)._connection.close()
    assert here.view(known.handle_digest, labels=False).chain == (known,)
    for handle_digest, labels in ((bytes(32), False), (known.handle_digest, True)):
        with pytest.raises(StoreUnavailableError):
            here.view(handle_digest, labels=labels)


@pytest.fixture
def proxy(server: PostgresServer) -> Iterator[Proxy]:
    """Give a proxy before the server, which can fall silent."""
    with closing(Proxy(server.port)) as proxy:
        yield proxy


Silent = tuple[PostgresSessionStore, Future[StoreView]]


@pytest.fixture
def silent(server: PostgresServer, conninfo: str, proxy: Proxy, tmp_path: Path) -> Iterator[Silent]:
    """Give the store of a machine that remembers a session under its lease, and a read that waits for the database."""
    assert conninfo
    # The proxy is closed before the store, which then waits for nothing.
    with (
        closing(leased_store(server.conninfo_at(proxy.port), tmp_path / "silent")) as store,
        ThreadPoolExecutor(1) as threads,
        closing(proxy),
    ):
        store.insert(ROOT, wall_at=1000.0)
        wait_until(lambda: _remembers(store, ROOT.handle_digest))
        proxy.stalled.set()
        cold = threads.submit(store.view, bytes(32))
        wait_until(_watcher(store)._asking._lock.locked)
        yield store, cold
        proxy.close()
        with pytest.raises(StoreUnavailableError):
            cold.result()


def test_memory_answers_while_another_thread_waits_for_the_database(silent: Silent) -> None:
    """The database has fallen silent, and the lease holds: only who asks for what is not remembered waits for it."""
    store, cold = silent
    with ThreadPoolExecutor(1) as threads:
        head = threads.submit(store.head).result(timeout=PATIENCE)
        view = threads.submit(store.view, ROOT.handle_digest, head, labels=False).result(timeout=PATIENCE)
        lease = threads.submit(store.lease).result(timeout=PATIENCE)

    assert not cold.done()
    assert (ROOT,) == view.chain
    assert lease is not None
    assert lease.head.revision <= head.revision


def test_memory_answers_nothing_that_its_lease_is_ahead_of(
    silent: Silent, database: Database, proxy: Proxy, conninfo: str
) -> None:
    """M3: also while another thread waits for the database, and does not know of the change either."""
    store, _ = silent
    lease = _watcher(store)._leased()
    assert lease is not None
    # No fence waits for a machine that cannot confirm.
    database.write("DELETE FROM replicas")
    with closing(PostgresSessionStore(conninfo, **PATIENT)) as other:
        other.change_tree(ROOT.id, revoked, wall_at=1000.0)
        renewed = replace(lease, head=other.head())
    # Another process of the machine, which has not fallen silent.
    _watcher(store)._leased = lambda: renewed
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(store.view, ROOT.handle_digest, labels=False)
        proxy.close()
        with pytest.raises(StoreUnavailableError):
            asked.result()


def test_a_session_that_is_labelled_while_it_is_read_is_not_remembered(
    here: PostgresSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snapshot in which it is read can be from before, and who has added the label relies on its being known."""
    here.insert(ROOT, wall_at=1000.0)
    watcher, labels = _watcher(here), frozenset({"untrusted"})
    load = watcher._load

    def meanwhile(*values: Any) -> Any:
        monkeypatch.setattr(watcher, "_load", load)
        here.settle((ROOT,), labels, by="dec_1", wall_at=1000.0)
        return load(*values)

    wait_until(lambda: watcher._leased() is not None)
    monkeypatch.setattr(watcher, "_load", meanwhile)
    before = here.view(ROOT.handle_digest, labels=False).chain[0].labels
    after = here.view(ROOT.handle_digest, labels=False).chain[0].labels

    assert ((), ("untrusted",)) == (before, after)


def test_memory_of_one_server_answers_under_no_lease_of_another(
    here: PostgresSessionStore, conninfo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can have what the other one never had, although it has all of the lease."""
    here.insert(ROOT, wall_at=1000.0)
    wait_until(lambda: _remembers(here, ROOT.handle_digest))
    watcher = _watcher(here)
    lease = watcher._leased()
    monkeypatch.setattr(watcher, "_leased", lambda: lease)
    with closing(PostgresSessionStore(conninfo, **PATIENT)) as there:
        there.change_tree(ROOT.id, revoked, wall_at=1000.0)
    remembered = here.view(ROOT.handle_digest).chain
    watcher._read_at = "the one before"

    assert (ROOT,) == remembered
    assert (revoked(ROOT),) == here.view(ROOT.handle_digest).chain


def test_what_a_process_writes_it_sees_at_once(here: PostgresSessionStore) -> None:
    """Although its lease does not know of it yet."""
    session = make_session("a")
    here.insert(session, wall_at=1000.0)
    wait_until(lambda: _remembers(here, session.handle_digest))
    here.touch(wall_at=5000.0)

    assert 5000.0 == here.high_water_at()


def test_after_a_conflict_memory_is_not_asked_again(
    here: PostgresSessionStore, conninfo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease may hold on and not know of it: each further try would have the same conflict."""
    here.insert(ROOT, wall_at=1000.0)
    wait_until(lambda: _remembers(here, ROOT.handle_digest))
    leased = _watcher(here)._leased()
    monkeypatch.setattr(_watcher(here), "_leased", lambda: leased)
    with closing(PostgresSessionStore(conninfo, **PATIENT)) as there:
        there.change_tree(ROOT.id, revoked, wall_at=1000.0)
    with pytest.raises(ConflictError):
        here.settle((ROOT,), frozenset(), by="dec_1", wall_at=1000.0)

    assert (revoked(ROOT),) == here.get(ROOT.id)


def test_after_another_activation_memory_is_not_asked_again(
    here: PostgresSessionStore, conninfo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was expected was remembered: each further try would expect the same."""
    here.activate_bundle(make_bundle("v1"), b"", unchanged)
    wait_until(lambda: here.active_bundle() is not None and _watcher(here)._leased() is not None)
    wait_until(lambda: _remembers(here, b"nobody"))
    leased = _watcher(here)._leased()
    monkeypatch.setattr(_watcher(here), "_leased", lambda: leased)
    with closing(PostgresSessionStore(conninfo, **PATIENT)) as there:
        there.activate_bundle(make_bundle("v2"), b"", unchanged)
    before = here.active_bundle()
    with pytest.raises(ConflictError):
        here.activate_bundle(make_bundle("v3"), b"", unchanged, expected=Expected(version="v1"))
    after = here.active_bundle()

    assert ("v1", "v2") == tuple(one.version for one in (before, after) if one is not None)


def test_memory_is_not_asked_for_a_change_that_it_lacks(
    here: PostgresSessionStore, conninfo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has heard of it gets an answer that knows it, although the lease still holds without it."""
    here.insert(ROOT, wall_at=1000.0)
    wait_until(lambda: _remembers(here, ROOT.handle_digest))
    leased = _watcher(here)._leased()
    monkeypatch.setattr(_watcher(here), "_leased", lambda: leased)
    with closing(PostgresSessionStore(conninfo, **PATIENT)) as there:
        there.change_tree(ROOT.id, revoked, wall_at=1000.0)
        heard_of = there.head()
    remembered = here.view(ROOT.handle_digest).chain

    assert (ROOT,) == remembered
    assert (revoked(ROOT),) == here.view(ROOT.handle_digest, heard_of).chain


def test_without_the_database_a_change_that_memory_lacks_is_no_answer(
    here: PostgresSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has is answered, and nothing else is said of what it cannot know."""
    here.insert(ROOT, wall_at=1000.0)
    wait_until(lambda: _remembers(here, ROOT.handle_digest))
    leased, known = _watcher(here)._leased(), here.head()
    monkeypatch.setattr(_watcher(here), "_leased", lambda: leased)
    _watcher(here)._connection.close()

    assert (ROOT,) == here.view(ROOT.handle_digest, known, labels=False).chain
    for least in (replace(known, revision=known.revision + 1), replace(known, tag="another")):
        with pytest.raises(StoreUnavailableError):
            here.view(ROOT.handle_digest, least, labels=False)


def test_of_a_change_that_is_too_old_the_number_counts(
    here: PostgresSessionStore, database: Database, conninfo: str
) -> None:
    """Its tag is gone: all that can be told is that it was before. Who follows lists anew."""
    here.insert(ROOT, wall_at=1000.0)
    old = here.head()
    here.touch(wall_at=1000.0)
    database.write("DELETE FROM tags WHERE revision <= %s", old.revision)
    with closing(PostgresSessionStore(conninfo, **PATIENT)) as there:
        assert (ROOT,) == there.view(ROOT.handle_digest, old).chain
        assert there.changed(after=old, limit=9) is None


def test_another_history_of_the_database_is_read_anew(here: PostgresSessionStore, database: Database) -> None:
    """M5: its revision has the number that is remembered, but another tag."""
    root, child, _ = insert_family(here)
    wait_until(lambda: _remembers(here, child.handle_digest))
    database.write("UPDATE sessions SET session_json = replace(session_json, %s, %s)", root.purpose, "another")
    database.write("UPDATE tags SET tag = 'another' WHERE revision = (SELECT revision FROM meta)")
    database.write("NOTIFY pdp_sessions")

    wait_until(lambda: here.view(child.handle_digest).chain[-1].purpose == "another")


def test_a_store_that_is_closed_leaves(here: PostgresSessionStore, database: Database) -> None:
    """No one waits for it."""
    wait_until(lambda: bool(database.names()))
    here.close()

    assert not database.names()


Repeat = Callable[[PostgresSessionStore], object]
REPEATS: list[Any] = [
    pytest.param(lambda store: store.written(WRITE, wall_at=1000.0), id="under its request id"),
    pytest.param(lambda store: store.change_tree(ROOT.id, revoked, wall_at=1000.0), id="a revocation"),
    pytest.param(lambda store: store.activate_bundle(make_bundle("v1"), b"", unchanged), id="an activation"),
]


def make_changes(store: PostgresSessionStore) -> None:
    """Make the changes that are then made again."""
    store.insert(ROOT, wall_at=1000.0)
    store.activate_bundle(make_bundle("v1"), b"", unchanged)
    store.change_tree(ROOT.id, revoked, wall_at=1000.0, write=WRITE)


@pytest.mark.parametrize("repeat", REPEATS)
def test_a_change_that_is_found_made_is_fenced_as_well(conninfo: str, database: Database, repeat: Repeat) -> None:
    """M21: the one that has made it may have ended before all knew it."""
    fences = Fences()
    with closing(PostgresSessionStore(conninfo, **PATIENT, fences=fences)) as store:
        make_changes(store)
        database.join("a", seconds=0.3)
        before = fences.take()
        repeat(store)
        fence = fences.take()

    assert before is None
    assert fence is not None
    assert FencedBy.WAITED == fence.by


@pytest.mark.parametrize("repeat", REPEATS)
def test_a_change_that_is_found_made_is_not_believed_before_it_is_safe(
    server: PostgresServer, conninfo: str, repeat: Repeat
) -> None:
    """M22: the one that has made it may have had no answer, because no standby has it."""
    with closing(PostgresSessionStore(conninfo, **PATIENT)) as store:
        make_changes(store)
        unsafe = set_to(server, synchronous_standby_names="nobody")
        with unsafe, store._connection.within(0.5), pytest.raises(StoreUnavailableError):
            repeat(store)


def test_a_bundle_that_another_activates_meanwhile_is_fenced(
    conninfo: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """M21: the other one can still be waiting."""
    with (
        closing(PostgresSessionStore(conninfo, **PATIENT)) as store,
        closing(PostgresSessionStore(conninfo, **PATIENT)) as other,
    ):
        other.activate_bundle(make_bundle("v1"), b"", unchanged)
        database.join("late", seconds=0.01)
        database.confirm("late", 0)
        # This one has looked before.
        monkeypatch.setattr(store, "active_bundle", lambda: None)
        store.activate_bundle(make_bundle("v1"), b"", unchanged)

    assert not database.names()


def test_what_a_block_writes_waits_at_its_end(conninfo: str, database: Database) -> None:
    """So a change is recorded before the wait, in which the server can be killed; all that it wrote waits once."""
    written, fences = Signal(), Fences()
    with closing(PostgresSessionStore(conninfo, **PATIENT, fences=fences)) as store, ThreadPoolExecutor(1) as threads:
        store.insert(ROOT, wall_at=1000.0)
        database.join("a", seconds=60.0)

        def change() -> Fence | None:
            with store.fencing():
                store.touch(wall_at=1001.0)
                with store.fencing():
                    store.change_tree(ROOT.id, revoked, wall_at=1002.0)
                store.change_tree(ROOT.id, unchanged, wall_at=1002.0)
                assert fences.take() is None
                written.set()
            return fences.take()

        changing = threads.submit(change)
        assert written.wait(PATIENCE)
        waits = not changing.done()
        ((revision,),) = database.ask("SELECT revision FROM meta")
        database.confirm("a", revision)
        fence = changing.result(timeout=PATIENCE)

    assert waits
    assert fence is not None
    assert FencedBy.CONFIRMED == fence.by


def test_a_block_that_fails_waits_as_well(conninfo: str, database: Database) -> None:
    """What it has written stands; and what is written afterwards waits as ever."""
    fences = Fences()
    with closing(PostgresSessionStore(conninfo, **PATIENT, fences=fences)) as store:
        database.join("a", seconds=0.01)

        def fail() -> None:
            with store.fencing():
                store.insert(ROOT, wall_at=1000.0)
                store.insert(ROOT, wall_at=1000.0)

        with pytest.raises(ConflictError):
            fail()
        failed = fences.take()
        database.join("b", seconds=0.01)
        store.change_tree(ROOT.id, revoked, wall_at=1000.0)

        assert failed is not None
        assert fences.take() is not None


def test_what_another_has_written_is_fenced_once_for_who_rests_on_it(conninfo: str, database: Database) -> None:
    """M21: its writer may still wait, and may wait for ever; afterwards nothing is asked until more is seen."""
    with (
        closing(PostgresSessionStore(conninfo, **PATIENT)) as store,
        closing(PostgresSessionStore(conninfo, **PATIENT)) as other,
    ):
        other.insert(ROOT, wall_at=1000.0)
        store.get(ROOT.id)
        database.join("first", seconds=0.01)
        store.outwait()
        left = database.names()
        database.join("second", seconds=60.0)
        store.outwait()

    assert not left


def test_changes_are_numbered_in_the_order_of_their_commits(conninfo: str) -> None:
    """M4: or a reader that has seen a later number would never ask for an earlier one."""
    hasty = {**PATIENT, "busy_seconds": 0.1}
    with (
        closing(PostgresSessionStore(conninfo, **PATIENT)) as store,
        closing(PostgresSessionStore(conninfo, **hasty)) as other,
    ):
        store.insert(ROOT, wall_at=1000.0)

        def meanwhile(session: Session) -> Session | None:
            # This change has its number by now.
            with pytest.raises(OverloadedError):
                other.touch(wall_at=1000.0)
            return revoked(session)

        assert store.change_tree(ROOT.id, meanwhile, wall_at=1000.0)


def test_a_child_waits_for_a_revocation_of_its_parent(conninfo: str) -> None:
    """M14: its insert takes the row of all changes, or a revocation under way would miss it."""
    hasty = {**PATIENT, "busy_seconds": 0.1}
    with (
        closing(PostgresSessionStore(conninfo, **PATIENT)) as store,
        closing(PostgresSessionStore(conninfo, **hasty)) as other,
    ):
        root, *_ = insert_family(store)
        with store.unfrozen("default"), pytest.raises(OverloadedError):
            other.insert(make_session("another", root), wall_at=1000.0)
        store.change_tree(root.id, revoked, wall_at=1000.0)


def _watcher(store: PostgresSessionStore) -> PostgresWatcher:
    assert isinstance(store._watcher, PostgresWatcher)
    return store._watcher


def _remembers(store: PostgresSessionStore, handle_digest: bytes) -> bool:
    """Read a session, and say whether memory answers the next time."""
    store.view(handle_digest)
    leased = _watcher(store)._leased()
    return leased is not None and _watcher(store)._knows(leased.head)
