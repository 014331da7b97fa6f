"""What goes wrong between a server and PostgreSQL is an error in time, and nothing is called done that may not be."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from pdp.errors import ConfigurationError, OverloadedError, StoreUnavailableError
from pdp.model import Session
from pdp.sessions.postgres import PostgresSessionStore
from pdp.sessions.postgresconnection import PostgresConnection
from pdp.sessions.postgreshistory import PostgresSessionHistory
from pdp.sessions.postgrestables import REPLICA_TABLES
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.sessions.sqlitehistory import SQLiteSessionHistory
from pdp.sessions.store import SessionStore
from pdp.sessions.values import PublishedKey, SessionFilter
from pdp.sessions.writes import Write
from pdp.testing.stores.samples import (
    insert_family,
    insert_over,
    make_bundle,
    make_freeze,
    make_session,
    revoked,
    unchanged,
)
from pdp.testing.waiting import wait_until
from tests.sessions.postgres.conftest import PATIENT, leased_store
from tests.sessions.postgres.postgresserver import PostgresServer, cancel_commits, set_to
from tests.sessions.postgres.tcpproxy import Proxy, without_options

pytestmark = pytest.mark.replicas

# Too short for what never comes, and for nothing else: on a busy machine an answer can take longer.
SHORT = 0.4
NOBODY = b"\0" * 32
Two = tuple[PostgresSessionStore, PostgresSessionStore]


@pytest.fixture
def store(conninfo: str) -> Iterator[PostgresSessionStore]:
    """Give an empty store."""
    with closing(PostgresSessionStore(conninfo, **PATIENT)) as store:
        yield store


@pytest.fixture(params=["each read asks", "leases"])
def two(request: pytest.FixtureRequest, conninfo: str, tmp_path: Path) -> Iterator[Two]:
    """Give two stores on the same tables, as servers on two machines have them."""

    def opened(name: str) -> PostgresSessionStore:
        if request.param == "leases":
            return leased_store(conninfo, tmp_path / name)
        return PostgresSessionStore(conninfo, **PATIENT)

    with closing(opened("here")) as here, closing(opened("there")) as there:
        yield here, there


@pytest.fixture
def proxied(server: PostgresServer, conninfo: str) -> Iterator[Proxy]:
    """Give a proxy before the server, whose tables are empty."""
    assert conninfo
    with closing(Proxy(server.port)) as proxy:
        yield proxy


# With others on the same tables


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda store, root: store.update([revoked(root)], wall_at=1000.0), id="update"),
        pytest.param(lambda store, root: store.change_tree(root.id, revoked, wall_at=1000.0), id="tree"),
        pytest.param(
            lambda store, root: store.change_where(SessionFilter(user=root.user), revoked, wall_at=1.0), id="where"
        ),
        pytest.param(lambda store, _: store.activate_bundle(make_bundle("v1"), b"", revoked), id="bundle"),
    ],
)
def test_a_revocation_elsewhere_is_seen_at_the_next_view(
    two: Two, write: Callable[[SessionStore, Session], object]
) -> None:
    """A session that is remembered here is read again, also as an ancestor, whichever method wrote it."""
    here, there = two
    root, _, grandchild = insert_family(here)
    here.view(root.handle_digest)
    here.view(grandchild.handle_digest)
    write(there, root)

    assert here.view(grandchild.handle_digest).chain[-1] == revoked(root)
    assert here.view(root.handle_digest).chain == (revoked(root),)


def test_what_else_is_written_elsewhere_is_seen_at_the_next_view(two: Two) -> None:
    """An insert, a freeze, an activation, the mark, and that a session was removed."""
    here, there = two
    session, over = make_session("a"), insert_over(here, "over")
    here.view(session.handle_digest)
    here.view(over.handle_digest)
    bundle, freeze = make_bundle("v1"), make_freeze("default")
    there.insert(session, wall_at=1000.0)
    there.activate_bundle(bundle, b"", unchanged)
    there.purge(over_before=3000.0, limit=9, wall_at=3000.0)
    there.freeze(freeze)
    view = here.view(session.handle_digest)

    assert (view.chain, view.bundle, view.freeze, view.high_water_at) == ((session,), bundle, freeze, 3000.0)
    assert here.view(over.handle_digest).chain == ()


def test_a_change_elsewhere_leaves_other_sessions_in_memory(two: Two) -> None:
    """Only what changed is read again."""
    here, there = two
    kept, changed = make_session("a"), make_session("b")
    here.insert(kept, wall_at=1000.0)
    here.insert(changed, wall_at=1000.0)
    before = here.view(kept.handle_digest).chain[0]
    there.change_tree(changed.id, revoked, wall_at=1000.0)

    assert here.view(changed.handle_digest).chain == (revoked(changed),)
    assert here.view(kept.handle_digest).chain[0] is before


def test_stores_that_start_together_share_their_tables(server: PostgresServer) -> None:
    """Of several that create them at once, all use those of the first."""
    with ThreadPoolExecutor(4) as pool:

        def opened(_: int) -> PostgresSessionStore:
            return PostgresSessionStore(server.conninfo, namespace="together", **PATIENT)

        stores = list(pool.map(opened, range(4)))
    stores[0].insert(make_session("a"), wall_at=1000.0)

    assert [len(one.select(SessionFilter(), limit=9)) for one in stores] == [1] * 4
    for one in stores:
        one.close()


# Commits


def test_a_commit_that_waits_for_ever_ends_by_our_timer(
    server: PostgresServer, conninfo: str, store: PostgresSessionStore
) -> None:
    """The standby that it waits for does not come; what came of it is not known."""
    with closing(PostgresSessionStore(conninfo, **PATIENT)) as hasty:
        unsafe, short = set_to(server, synchronous_standby_names="nobody"), hasty._connection.within(SHORT)
        with unsafe, short, pytest.raises(StoreUnavailableError, match="may or"):
            hasty.touch(wall_at=2000.0)

        wait_until(lambda: store.high_water_at() == 2000.0)
        wait_until(lambda: _can(lambda: hasty.touch(wall_at=3000.0)))


def test_a_cancelled_commit_is_no_success(server: PostgresServer, store: PostgresSessionStore) -> None:
    """The server calls it committed, with a warning: no standby may have it."""
    with ThreadPoolExecutor(1) as pool, set_to(server, synchronous_standby_names="nobody"):
        written = pool.submit(store.touch, wall_at=2000.0)
        cancel_commits(server)

        with pytest.raises(StoreUnavailableError, match="not made a commit safe"):
            written.result(timeout=60)


def test_what_a_cancelled_commit_has_made_visible_is_not_found_done(
    server: PostgresServer, conninfo: str, store: PostgresSessionStore
) -> None:
    """M8: its request is repeated, and answered only when a commit of its own is safe."""
    session, write = make_session("a"), Write(key=b"key", digest=b"asked")
    patient = closing(PostgresSessionStore(conninfo, **PATIENT))
    with patient as hasty, set_to(server, synchronous_standby_names="nobody"):
        with ThreadPoolExecutor(1) as pool:
            written = pool.submit(lambda: store.insert(session, wall_at=1000.0, write=write))
            cancel_commits(server)
            with pytest.raises(StoreUnavailableError):
                written.result(timeout=60)
        visible = hasty.get(session.id)
        short = hasty._connection.within(SHORT)
        with short, pytest.raises(StoreUnavailableError, match="may or may not have been made"):
            hasty.written(write, wall_at=1000.0)

    assert (session,) == visible
    assert (session.id,) == store.written(write, wall_at=1000.0)


def test_what_a_cancelled_commit_of_a_history_has_made_visible_is_not_found_done(
    server: PostgresServer, conninfo: str
) -> None:
    """M8: as in the store, also of keys that are withdrawn and approvals that are taken back."""
    key = PublishedKey(id="key", content=b"public", published_at=1000.0, ends_at=5000.0)
    write = Write(key=b"key", digest=b"asked")
    with (
        closing(PostgresSessionHistory(conninfo, **PATIENT)) as history,
        closing(PostgresSessionHistory(conninfo, **PATIENT)) as hasty,
    ):
        history.call_token_keys().publish(key)
        with set_to(server, synchronous_standby_names="nobody"):
            with ThreadPoolExecutor(1) as pool:
                keys = history.call_token_keys()
                withdrawn = pool.submit(lambda: keys.withdraw(key.id, wall_at=1000.0, write=write))
                cancel_commits(server)
                with pytest.raises(StoreUnavailableError):
                    withdrawn.result(timeout=60)
            with hasty._connection.within(SHORT), pytest.raises(StoreUnavailableError):
                hasty.access().written(write, wall_at=1000.0)
        found = history.access().written(write, wall_at=1000.0)

    assert (key.id,) == found


def test_a_lost_answer_to_a_commit_is_no_failure_that_is_known(
    proxied: Proxy, server: PostgresServer, store: PostgresSessionStore
) -> None:
    """The write was made, and the error says that it may have been."""
    session = make_session("a")
    with closing(PostgresSessionStore(server.conninfo_at(proxied.port), **PATIENT)) as cut:
        proxied.cut_after = b"COMMIT"
        with pytest.raises(StoreUnavailableError, match="may or may not have been made"):
            cut.insert(session, wall_at=1000.0)
        proxied.cut_after = b""

        wait_until(lambda: store.get(session.id) == (session,))
        assert cut.get(session.id) == (session,)


# What does not answer


def test_a_silent_connection_ends_by_our_timer(proxied: Proxy, server: PostgresServer) -> None:
    """A proxy that takes everything and passes nothing on looks well to the system."""
    with closing(PostgresSessionStore(server.conninfo_at(proxied.port), **PATIENT)) as store:
        store.view(NOBODY)
        reading = store._watcher._connection
        assert isinstance(reading, PostgresConnection)
        proxied.stalled.set()
        began = time.monotonic()
        with reading.within(SHORT), pytest.raises(StoreUnavailableError):
            store.view(NOBODY)
        took = time.monotonic() - began
        proxied.stalled.clear()

        assert took < 20
        wait_until(lambda: _can(lambda: store.view(NOBODY)))


def test_a_server_that_starts_again_is_used_again(server: PostgresServer, store: PostgresSessionStore) -> None:
    """What was acknowledged is there, and nothing is answered from before."""
    session = make_session("a")
    store.insert(session, wall_at=1000.0)
    store.view(session.handle_digest)
    server.restart()
    with pytest.raises(StoreUnavailableError):
        store.view(session.handle_digest)

    assert store.view(session.handle_digest).chain == (session,)


def test_a_server_that_only_reads_is_left(server: PostgresServer, conninfo: str, store: PostgresSessionStore) -> None:
    """It is a standby, or was the primary: its writes fail, and nothing connects to it."""
    with set_to(server, default_transaction_read_only="on"):
        for _ in range(2):
            with pytest.raises(StoreUnavailableError):
                store.touch(wall_at=2000.0)
        with pytest.raises(StoreUnavailableError):
            PostgresSessionStore(conninfo, **PATIENT)

    wait_until(lambda: _can(lambda: store.touch(wall_at=2000.0)))


def test_one_connection_that_has_lost_the_primary_has_all_opened_again(
    server: PostgresServer, store: PostgresSessionStore
) -> None:
    """57P01: the others may still be open, to a server that is no primary any more."""
    store.touch(wall_at=1000.0)
    store.view(NOBODY)
    writing, reading = store._connection.opened, store._watcher._connection
    assert isinstance(reading, PostgresConnection)
    with server.connect() as connection:
        connection.execute("SELECT pg_terminate_backend(%s)", (_backend(reading),))
    with pytest.raises(StoreUnavailableError, match="57P01"):
        store.view(NOBODY)
    store.touch(wall_at=2000.0)

    assert writing + 1 == store._connection.opened


def test_a_stopped_starter_holds_others_up_for_a_moment(
    server: PostgresServer, conninfo: str, store: PostgresSessionStore
) -> None:
    """It has the lock for making tables; those that run already need it for nothing."""
    with server.connect() as stopped:
        stopped.execute("SELECT pg_advisory_lock(7091386)")
        with pytest.raises(OverloadedError):
            PostgresSessionStore(conninfo, **{**PATIENT, "busy_seconds": 0.1})
        store.touch(wall_at=2000.0)

    assert 2000.0 == store.high_water_at()


def test_a_pooler_that_drops_settings_is_refused(server: PostgresServer) -> None:
    """Without them, nothing of this holds."""
    with closing(Proxy(server.port, change=without_options)) as pooler:
        conninfo = f"{server.conninfo_at(pooler.port)} sslmode=disable gssencmode=disable"
        with pytest.raises(StoreUnavailableError, match="no pooler in between"):
            PostgresSessionStore(conninfo, **PATIENT)


# Others that write


def test_a_stopped_writer_holds_others_up_for_a_moment(conninfo: str, store: PostgresSessionStore) -> None:
    """Its transaction ends, and it learns that what it relied on is over."""
    with closing(PostgresSessionStore(conninfo, **{**PATIENT, "idle_seconds": 2.0})) as stopped:
        with pytest.raises(StoreUnavailableError), stopped.unfrozen("default"):
            store.touch(wall_at=2000.0)

        assert stopped.high_water_at() == 2000.0


def test_others_that_write_for_too_long_are_an_overload(conninfo: str, store: PostgresSessionStore) -> None:
    """Nothing is written, and the store goes on."""
    with closing(PostgresSessionStore(conninfo, **{**PATIENT, "busy_seconds": 0.1})) as hasty:
        with store.unfrozen("default"), pytest.raises(OverloadedError, match="nothing was written"):
            hasty.touch(wall_at=2000.0)
        hasty.touch(wall_at=1500.0)

        assert store.high_water_at() == 1500.0


# Older states


def test_a_database_that_lacks_known_changes_is_refused(conninfo: str, store: PostgresSessionStore) -> None:
    """At the start by what the record knows, and later by what the process has seen."""
    store.touch(wall_at=1000.0)
    known = store.acknowledged()
    with pytest.raises(StoreUnavailableError, match="lacks the last 5 changes"):
        PostgresSessionStore(conninfo, known_revision=known + 5, **PATIENT)
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("UPDATE pdp_sessions.meta SET revision = revision - 1")

    with pytest.raises(StoreUnavailableError, match="lacks the last 1 changes"):
        store.view(NOBODY)
    with pytest.raises(StoreUnavailableError, match="lacks the last 1 changes"):
        store.touch(wall_at=1000.0)


def test_a_newer_schema_is_refused(conninfo: str, store: PostgresSessionStore) -> None:
    """By a store that is opened, and by one that is open."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("UPDATE pdp_sessions.meta SET schema_version = schema_version + 1, revision = revision + 1")

    for call in (lambda: PostgresSessionStore(conninfo, **PATIENT), lambda: store.view(NOBODY)):
        with pytest.raises(StoreUnavailableError, match="upgrade the program"):
            call()


# Connection strings and tables


def test_a_connection_string_that_is_none_is_refused() -> None:
    """The error does not quote it: it can hold a password."""
    with pytest.raises(ConfigurationError, match=r"^not a connection string of PostgreSQL$"):
        PostgresSessionStore("password=secret host", **PATIENT)


def test_who_may_create_nothing_is_told(server: PostgresServer) -> None:
    """The first start creates the tables, and its user needs the right to."""
    with server.connect() as connection:
        connection.execute("CREATE ROLE guest LOGIN")
    try:
        with pytest.raises(StoreUnavailableError, match="its user lacks a right there, `42501`"):
            PostgresSessionStore(server.conninfo.replace("user=pdp", "user=guest"), namespace="elsewhere", **PATIENT)
    finally:
        with server.connect() as connection:
            connection.execute("DROP ROLE guest")


def test_where_nothing_listens_the_store_is_unavailable(server: PostgresServer) -> None:
    """At once."""
    with closing(Proxy(server.port)) as proxy:
        port = proxy.port
    with pytest.raises(StoreUnavailableError, match="nothing listens there"):
        PostgresSessionStore(server.conninfo_at(port), **PATIENT)


def test_the_tables_have_the_columns_of_sqlite(
    server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """In the same order, without those of replicas."""
    folder = tmp_path_factory.mktemp("tables")
    with closing(SQLiteSessionStore(folder / "sessions")) as store, closing(SQLiteSessionHistory(folder / "h")) as past:
        found = {}
        for schema, connection in (("pdp_sessions", store._connection), ("pdp_history", past._connection)):
            for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                columns = connection.execute("SELECT name FROM pragma_table_info(?)", (table,)).fetchall()
                found[schema, table] = [name for (name,) in columns]
    with server.connect() as asked:
        query = """
            SELECT table_schema, table_name, array_agg(CAST(column_name AS text) ORDER BY ordinal_position)
            FROM information_schema.columns WHERE table_schema IN ('pdp_sessions', 'pdp_history') GROUP BY 1, 2
        """
        rows = asked.execute(query).fetchall()
        there = {(schema, table): columns for schema, table, columns in rows if table not in REPLICA_TABLES}

    assert found == there


def test_two_histories_have_one_secret(conninfo: str) -> None:
    """They are on the same tables."""
    with (
        closing(PostgresSessionHistory(conninfo, **PATIENT)) as here,
        closing(PostgresSessionHistory(conninfo, **PATIENT)) as there,
    ):
        assert here.key() == there.key()


def _backend(connection: PostgresConnection) -> int:
    """Return the process of the server that a connection speaks to."""
    return int(connection.execute("SELECT pg_backend_pid()").get)


def _can(call: Callable[[], object]) -> bool:
    try:
        call()
    except StoreUnavailableError:
        return False
    return True
