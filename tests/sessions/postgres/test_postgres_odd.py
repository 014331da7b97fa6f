"""What a database, a role or a network can be like changes nothing that is promised, or is said at the start."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import psycopg
import pytest

from pdp.clock import SystemClock
from pdp.errors import ConfigurationError, StoreUnavailableError
from pdp.sessions import postgresconnection
from pdp.sessions.lease import LeaseTerms
from pdp.sessions.outbox import Untold
from pdp.sessions.postgres import PostgresSessionStore
from pdp.sessions.postgresbeginning import Beginning
from pdp.sessions.postgresconnection import PostgresConnection
from pdp.sessions.postgreshistory import PostgresSessionHistory
from pdp.sessions.postgressettling import SettlingStore
from pdp.sessions.rows import row_of
from pdp.sessions.sqlrows import BY_ID
from pdp.sessions.values import Cut, Report, SessionFilter
from pdp.testing.stores.access import at, request
from pdp.testing.stores.samples import make_session, revoked
from pdp.testing.waiting import wait_until
from tests.machinery.resolver import hanging
from tests.sessions.postgres.conftest import PATIENT
from tests.sessions.postgres.machine import living
from tests.sessions.postgres.postgresserver import PostgresServer
from tests.sessions.postgres.tcpproxy import Proxy

pytestmark = pytest.mark.replicas

# Too short for what never comes, and for nothing else.
SHORT = 0.4
_SETTINGS = {
    "default_transaction_isolation": "repeatable read",
    "extra_float_digits": "-4",
    "statement_timeout": "250ms",
    "idle_session_timeout": "100ms",
}

LONG = "a long answer " * 5
REPORT = Report(decision_id="dec_a", digest=b"d" * 32, reported_at=1.0)
connected = partial(PostgresConnection, namespace="pdp", name="session store")


class _Stopping(Proxy):
    """Takes nothing more once a long answer begins, as a process does that has stopped."""

    def __init__(self, port: int) -> None:
        self.goes_on = Event()
        super().__init__(port)

    def _send(self, data: bytes, source: socket.socket, target: socket.socket) -> None:
        if data.count(LONG.encode()) > 1:
            self.goes_on.wait()
        super()._send(data, source, target)


class _Both(NamedTuple):
    """A store and its history."""

    store: PostgresSessionStore
    history: PostgresSessionHistory
    conninfo: str

    def reopened(self) -> None:
        """Open both once more, as a start does."""
        PostgresSessionStore(self.conninfo, **PATIENT).close()
        PostgresSessionHistory(self.conninfo, **PATIENT).close()


@pytest.fixture
def store(conninfo: str) -> Iterator[PostgresSessionStore]:
    """Give an empty store."""
    with closing(PostgresSessionStore(conninfo, **PATIENT)) as store:
        yield store


@pytest.fixture
def odd_role(server: PostgresServer) -> Iterator[None]:
    """Have the role of the stores come with settings that suit another program."""
    with server.connect() as connection:
        for name, value in _SETTINGS.items():
            connection.execute(f"ALTER ROLE pdp SET {name} = '{value}'")
    yield
    with server.connect() as connection:
        connection.execute("ALTER ROLE pdp RESET ALL")


@pytest.mark.usefixtures("odd_role")
def test_settings_of_a_role_do_not_count(server: PostgresServer, store: PostgresSessionStore) -> None:
    """Whoever has waited for another writer writes all the same; numbers are whole, and nobody ends what is slow."""
    cut = Cut(tenant="default", user="bob", agent="", at=1000.1234567, by="lead", reason="left")
    with ThreadPoolExecutor(1) as pool, server.connect(options="-c statement_timeout=0") as other:
        other.execute("BEGIN; UPDATE pdp_sessions.meta SET revision = revision + 1")
        written = pool.submit(store.cut, cut)
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'pdp'"
        wait_until(lambda: other.execute(waiting).fetchone() is not None)
        other.execute("SELECT pg_sleep(0.6)")
        other.execute("COMMIT")
        written.result(timeout=60)

    assert (cut,) == store.cuts()


def test_only_a_database_of_all_letters_is_used(server: PostgresServer) -> None:
    """Another one would take sessions until the first with a strange letter, and then activate no bundle any more."""
    with server.connect() as connection:
        connection.execute("CREATE DATABASE few ENCODING 'SQL_ASCII' TEMPLATE template0")
    try:
        with pytest.raises(StoreUnavailableError, match="must have the encoding `UTF8`, and this one has `SQL_ASCII`"):
            PostgresSessionStore(server.conninfo.replace("dbname=postgres", "dbname=few"), **PATIENT)
    finally:
        with server.connect() as connection:
            connection.execute("DROP DATABASE few")


def test_a_connection_that_has_ended_keeps_no_authority_from_ending(
    server: PostgresServer, store: PostgresSessionStore
) -> None:
    """The database was started again, or something on the way forgot the connection: nothing was written by it yet."""
    session = make_session("a")
    store.insert(session, wall_at=1000.0)
    with server.connect() as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pdp'")
    cut = Cut(tenant="default", user="bob", agent="", at=1000.0, by="lead", reason="left")
    store.cut(cut)

    assert (cut,) == store.cuts()


def test_a_silent_connection_is_waited_for_once(
    server: PostgresServer, conninfo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has not ended, so another one would be as silent."""
    assert conninfo
    with (
        closing(Proxy(server.port)) as proxy,
        closing(PostgresSessionStore(server.conninfo_at(proxy.port), **PATIENT)) as store,
    ):
        tried = list[int]()
        monkeypatch.setattr(store._connection, "_connected", lambda: tried.append(1))
        proxy.stalled.set()
        with store._connection.within(SHORT), pytest.raises(StoreUnavailableError):
            store.touch(wall_at=1000.0)

        assert [] == tried


def test_who_has_stopped_while_much_is_sent_to_it_holds_others_up_for_a_moment(
    server: PostgresServer, store: PostgresSessionStore
) -> None:
    """It is not idle, so the server would wait for it with the lock on all changes, as long as it has stopped."""
    hasty = {**PATIENT, "idle_seconds": 2.0}
    with (
        closing(_Stopping(server.port)) as proxy,
        closing(PostgresSessionStore(server.conninfo_at(proxy.port), **hasty)) as stopped,
        ThreadPoolExecutor(1) as pool,
        server.connect() as connection,
    ):

        def read() -> None:
            with stopped._transaction():
                stopped._connection.execute("SELECT repeat(?, 20) FROM generate_series(1, 100000)", (LONG,))

        reading = pool.submit(read)
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'ClientWrite'"
        wait_until(lambda: connection.execute(waiting).fetchone() is not None)
        store.touch(wall_at=2000.0)
        proxy.goes_on.set()
        with pytest.raises(StoreUnavailableError):
            reading.result(timeout=60)

    assert 2000.0 == store.high_water_at()


def test_who_ends_authority_needs_no_connection_that_is_not_there_yet(
    server: PostgresServer, store: PostgresSessionStore
) -> None:
    """Others on the database have taken all that there are."""
    session = make_session("a")
    store.insert(session, wall_at=1000.0)
    with ExitStack() as others:
        with suppress(psycopg.OperationalError):
            while True:
                others.enter_context(closing(server.connect()))
        written = store.change_where(SessionFilter(user=session.user), revoked, wall_at=1000.0)

    assert (revoked(session),) == written


def test_many_values_are_waited_for_some_at_a_time(
    store: PostgresSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failover all that is live is revoked in one transaction, however many there are."""
    monkeypatch.setattr(postgresconnection, "_BATCH", 1)
    with store._reading(), store._connection.within(1.5):
        store._connection.executemany("SELECT pg_sleep(?)", [(0.5,)] * 5)

        assert 5 == store._connection.changes()


def test_what_is_revoked_after_a_failover_is_computed_before_others_have_to_wait(
    conninfo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of tens of thousands of sessions that takes longer than to write them; what changes meanwhile is read again."""
    sessions = [living(f"s{number}") for number in range(3)]
    with closing(SettlingStore(conninfo, **PATIENT, tells=True)) as store:
        for one in sessions:
            store.insert(one, wall_at=1000.0)
        changed = replace(sessions[0], epoch=2, reason="goes on")
        asked, standing, execute = list[str](), store.standing(), store._connection.execute

        def heard(statements: str, bindings: Any = None) -> Any:
            asked.append(statements)
            return execute(statements, bindings)

        def meanwhile(wall_at: float) -> int:
            execute(
                "UPDATE sessions SET epoch = 2, session_json = ? WHERE id = ?",
                (row_of(changed)["session_json"], changed.id),
            )
            asked.clear()
            return PostgresSessionStore._advance(store, wall_at)

        monkeypatch.setattr(store._connection, "execute", heard)
        monkeypatch.setattr(store, "_advance", meanwhile)
        _, written = store.replace(revoked, beyond=1, wall_at=1000.0, seen=standing)

    assert {one.id: revoked(one) for one in (changed, *sessions[1:])} == {one.id: one for one in written}
    assert 1 == sum(one == BY_ID for one in asked)
    assert 1 == sum(one.startswith("SELECT id, state FROM sessions") for one in asked)


def test_a_database_that_is_being_restored_is_unavailable(
    server: PostgresServer, conninfo: str, tmp_path: Path
) -> None:
    """Its tables are empty for a moment; afterwards there is a lease again, too."""
    lease = LeaseTerms(file=tmp_path / "lease", seconds=2.0, clock=SystemClock())
    with closing(PostgresSessionStore(conninfo, **PATIENT, lease=lease)) as store, server.connect() as connection:
        session = make_session("a")
        store.insert(session, wall_at=1000.0)
        wait_until(lambda: store.lease() is not None)
        head = store.head()
        connection.execute("CREATE TABLE pdp_sessions.kept AS SELECT * FROM pdp_sessions.meta")
        connection.execute("DELETE FROM pdp_sessions.meta")
        wait_until(lambda: store.lease_standing is not None and not store.lease_standing.held())
        for call in (
            lambda: store.view(session.handle_digest),
            lambda: store.touch(wall_at=1000.0),
            lambda: PostgresSessionStore(conninfo, **PATIENT),
        ):
            with pytest.raises(StoreUnavailableError, match="are being restored, or are damaged"):
                call()
        nothing = (store.changed(after=head, limit=9), store.untold(limit=9))
        connection.execute("INSERT INTO pdp_sessions.meta SELECT * FROM pdp_sessions.kept")
        connection.execute("DROP TABLE pdp_sessions.kept")
        wait_until(lambda: store.lease() is not None)

        assert (None, Untold()) == nothing
        assert (session,) == store.view(session.handle_digest).chain


@pytest.mark.parametrize(
    ("table", "asks"),
    [
        pytest.param("pdp_sessions.meta", lambda two: two.store.bundle_past("v1"), id="past bundles"),
        pytest.param("pdp_sessions.steps", lambda two: two.reopened(), id="a start"),
        pytest.param("pdp_history.history", lambda two: two.reopened(), id="a start of the history"),
        pytest.param("pdp_history.history", lambda two: two.history.key(), id="the secret"),
        pytest.param("pdp_history.history", lambda two: two.history.keep_report(REPORT), id="a report"),
        pytest.param(
            "pdp_history.history", lambda two: two.history.forget_reports(reported_before=9.0), id="old reports"
        ),
        pytest.param(
            "pdp_history.history", lambda two: two.history.access().ask(request(), b"{}", at(1.0)), id="requests"
        ),
        pytest.param("pdp_history.counting", lambda two: two.history.counts(["ses_a"], ["git/log"]), id="counts"),
        pytest.param("pdp_history.access_revision", lambda two: two.history.access().revision(), id="approvals"),
        pytest.param(
            "pdp_history.access_revision",
            lambda two: two.history.access().ask(request(), b"{}", at(1000.0)),
            id="what waits for people",
        ),
    ],
)
def test_a_table_that_was_restored_without_its_row_is_named(
    server: PostgresServer, conninfo: str, table: str, asks: Callable[[_Both], object]
) -> None:
    """Whatever needs it: the error says where to look, and nothing is answered without it."""
    with (
        closing(PostgresSessionStore(conninfo, **PATIENT)) as store,
        closing(PostgresSessionHistory(conninfo, **PATIENT)) as history,
        server.connect() as connection,
    ):
        connection.execute(f"CREATE TABLE kept AS SELECT * FROM {table}")  # noqa: S608 - our own names
        connection.execute(f"DELETE FROM {table}")  # noqa: S608 - the same
        name = table.partition(".")[2]
        try:
            with pytest.raises(StoreUnavailableError, match=f"lacks what is always in its table `{name}`"):
                asks(_Both(store, history, conninfo))
        finally:
            connection.execute(f"INSERT INTO {table} SELECT * FROM kept")  # noqa: S608 - the same
            connection.execute("DROP TABLE kept")


def test_who_waits_for_steps_goes_on_waiting_while_a_database_is_being_restored(
    server: PostgresServer, store: PostgresSessionStore
) -> None:
    """Its thread does not end with that."""
    with server.connect() as connection:
        connection.execute("CREATE TABLE pdp_sessions.kept AS SELECT * FROM pdp_sessions.steps")
        connection.execute("DELETE FROM pdp_sessions.steps")
        begun = list[int]()
        Beginning(begun.append, quiet_seconds=0.0).look(store._connection)
        connection.execute("INSERT INTO pdp_sessions.steps SELECT * FROM pdp_sessions.kept")
        connection.execute("DROP TABLE pdp_sessions.kept")

    assert [] == begun


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Have the resolver say nothing about hosts of `.example` until the test is over; give those it was asked for."""
    with hanging(monkeypatch) as asked:
        yield asked


def test_a_resolver_that_hangs_is_waited_for_as_long_as_a_server(slow: list[str]) -> None:
    """By each who wants a connection; and one thread asks it for all of them."""
    hasty = {**PATIENT, "seconds": 2.0}
    with ThreadPoolExecutor(4) as pool, closing(connected("host=db.example", **hasty)) as one:
        hosts = one._primary.hosts
        others = [pool.submit(hosts.placed, {"host": "db.example,127.0.0.1"}, SHORT) for _ in range(4)]
        with pytest.raises(StoreUnavailableError, match="its host is not found in time"), one.answering():
            one.execute("SELECT 1")
        found = [{(placed["host"], placed["hostaddr"]) for placed in (other.result() for other in others)}]

    assert [{("127.0.0.1", "127.0.0.1")}] == found
    assert ["db.example"] == slow


@pytest.mark.parametrize("named", [{"PGHOST": "db.example"}, {"PGSERVICE": "ours", "PGSERVICEFILE": "services"}])
def test_a_host_in_the_environment_is_waited_for_no_longer(
    slow: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: dict[str, str]
) -> None:
    """The library would look it up by itself, for as long as that takes. What the string names counts before it."""
    (tmp_path / "services").write_text("[ours]\nhost=db.example\n")
    monkeypatch.chdir(tmp_path)
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    said = {"dbname=postgres": "its host is not found in time", "host=/nowhere": "there is no such socket"}
    for string, problem in said.items():
        one = connected(string, **{**PATIENT, "seconds": 2.0})
        with closing(one), pytest.raises(StoreUnavailableError, match=problem), one.answering():
            one.execute("SELECT 1")

    assert ["db.example"] == slow


def test_hosts_are_tried_one_after_the_other(server: PostgresServer, slow: list[str]) -> None:
    """Also when the resolver knows nothing of one of them, at each of its addresses, or the string has addresses."""
    strings = [
        server.conninfo.replace("host=127.0.0.1", "host=db.example,localhost"),
        server.conninfo.replace("host=127.0.0.1", "host=localhost"),
        server.conninfo.replace("host=127.0.0.1", "host=db.example hostaddr=127.0.0.1"),
        server.conninfo.replace("host=127.0.0.1", "host=/nowhere,127.0.0.1"),
    ]
    for string in strings:
        with closing(connected(string, **{**PATIENT, "seconds": 2.0})) as connection:
            assert 1 == connection.execute("SELECT 1").get
    assert ["db.example"] == slow


@pytest.mark.parametrize("host", ["db.example", f"{64 * 'd'}.example", "db..example"])
def test_a_host_that_is_not_known_is_said_at_once(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """Also one that can be none. And asked for again by the next connection."""
    look_up = socket.getaddrinfo

    def unknown(host: str, *rest: Any, **more: Any) -> Any:
        if host == "db.example":
            raise socket.gaierror
        return look_up(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with closing(connected(f"host={host}", **PATIENT)) as connection:
        for _ in range(2):
            with pytest.raises(StoreUnavailableError, match="its host is not known"), connection.answering():
                connection.execute("SELECT 1")


@pytest.mark.parametrize("string", ["service=ours", "postgresql:///?service=ours"])
def test_a_service_is_named_in_the_environment(string: str) -> None:
    """In the string the library alone reads it, and looks up its host without a limit."""
    with pytest.raises(ConfigurationError, match="name the service of PostgreSQL in `PGSERVICE`"):
        PostgresSessionStore(string, **PATIENT)


@pytest.mark.parametrize("url", ["postgresql://pdp:x@secret@host/db", "postgresql://pdp:x/secret@host/db"])
def test_a_password_that_is_not_written_for_a_url_is_none_of_a_host(url: str) -> None:
    """What follows its first strange letter would be shown as the name of one, or of a database."""
    with pytest.raises(ConfigurationError, match="write `@` and `/` in a password as `%40` and `%2F`") as raised:
        PostgresSessionStore(url, **PATIENT)

    assert "secret" not in str(raised.value)
