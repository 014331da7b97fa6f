"""A store moves from SQLite to PostgreSQL and back with all that it holds, and is never in two places."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import apsw
import psycopg
import pytest

from pdp.errors import StoreUnavailableError
from pdp.messages.postgresqueue import PostgresMessageQueue
from pdp.messages.sorting import Message
from pdp.messages.sqlitequeue import SQLiteMessageQueue
from pdp.model import Session
from pdp.record.keys import write_keys
from pdp.sessions.care import inspect
from pdp.sessions.forgetting import forget
from pdp.sessions.historycontract import SessionHistory
from pdp.sessions.moving import Row, StoreSide, Table, move
from pdp.sessions.outbox import OutboxEvent, Topic
from pdp.sessions.postgres import PostgresSessionStore
from pdp.sessions.postgrescare import inspect_postgres
from pdp.sessions.postgreshistory import PostgresSessionHistory
from pdp.sessions.postgresmoving import PostgresSide
from pdp.sessions.postgressteps import BASE_VERSION, FIRST_VERSION, POSTGRES_SCHEMA_VERSION
from pdp.sessions.postgressteps import STEPS as ALL_STEPS
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.sessions.sqlitehistory import SQLiteSessionHistory
from pdp.sessions.sqlitemoving import SQLiteSide
from pdp.sessions.store import SessionStore
from pdp.testing.inprocess import write_folder
from pdp.testing.stores.access import at
from pdp.testing.stores.samples import insert_family, insert_over
from tests.machinery.servers.notes import notes_bundle
from tests.machinery.servers.server_process import Callers, ServerProcess
from tests.sessions.postgres import fullstore, moving_process
from tests.sessions.postgres.conftest import PATIENT
from tests.sessions.postgres.onpostgres import basis, open_session, run, start
from tests.sessions.postgres.postgresserver import PostgresServer

T = TypeVar("T")

pytestmark = pytest.mark.replicas

NOW = at(2000.0)
# Those of programs that have no additive step.
FIRST_STEPS = ALL_STEPS[: BASE_VERSION - FIRST_VERSION]
NUMBERS = "SELECT schema_version, there, begun FROM pdp_sessions.meta, pdp_sessions.steps"
KINDS = ["postgres", "sqlite"]


class Stores:
    """A store in a folder and one in a database, at least one of which is empty."""

    def __init__(self, folder: Path, conninfo: str, *, known_revision: int = 0) -> None:
        self.folder, self.conninfo = folder, conninfo
        files = folder / "sessions.sqlite", folder / "history.sqlite"
        self.sqlite = SQLiteSide(*files, known_revision=known_revision)
        self.postgres = PostgresSide(conninfo, known_revision=known_revision)

    def sides(self, target: str) -> tuple[StoreSide, StoreSide]:
        """Return the source and the target of a move."""
        return (self.sqlite, self.postgres) if target == "postgres" else (self.postgres, self.sqlite)

    def opened(self, kind: str) -> tuple[SessionStore, SessionHistory]:
        """Open a store and its history as a server does."""
        if kind == "sqlite":
            store = SQLiteSessionStore(self.folder / "sessions.sqlite", tells=True)
            return store, SQLiteSessionHistory(self.folder / "history.sqlite", tells=True)
        return (
            PostgresSessionStore(self.conninfo, **PATIENT, tells=True),
            PostgresSessionHistory(self.conninfo, **PATIENT, tells=True),
        )

    def use(self, kind: str, use: Callable[[SessionStore, SessionHistory], T]) -> T:
        """Use a store as a server does."""
        store, history = self.opened(kind)
        with closing(store), closing(history):
            return use(store, history)

    def refusal(self, kind: str) -> str:
        """Return why a server does not start on a store; empty when it does."""
        try:
            self.use(kind, lambda _, __: None)
        except StoreUnavailableError as error:
            return str(error)
        return ""


@pytest.fixture
def stores(server: PostgresServer, tmp_path: Path) -> Iterator[Stores]:
    """Give a folder and a database without tables."""
    with server.connect() as connection:
        connection.execute("CREATE DATABASE moved")
        stores = Stores(tmp_path, server.conninfo.replace("dbname=postgres", "dbname=moved"))
        try:
            yield stores
        finally:
            stores.postgres.close()
            connection.execute("DROP DATABASE moved WITH (FORCE)")


def other_than(kind: str) -> str:
    """Return the kind of the other store."""
    (other,) = set(KINDS) - {kind}
    return other


def rows(side: StoreSide) -> dict[tuple[str, ...], list[Any]]:
    """Return every row of a store by its columns, without the version of its tables: each engine has its own."""
    with side.reading() as content:
        return {
            (table.half, table.name, *sorted(table.columns)): sorted(
                (sorted(_values(table, row)) for some in content.rows(table) for row in some), key=repr
            )
            for table in content.tables()
        }


def _values(table: Table, row: Row) -> Iterator[tuple[str, Any]]:
    return (one for one in zip(table.columns, row, strict=True) if one[0] != "schema_version")


@pytest.mark.parametrize("target", KINDS)
def test_everything_arrives(stores: Stores, target: str) -> None:
    """Each row of each table, and all that the store tells; what follows, follows on it."""
    source = other_than(target)
    stores.use(source, fullstore.fill)
    told, before = stores.use(source, fullstore.read), rows(stores.sides(target)[0])
    move(*stores.sides(target), now=NOW)

    assert [] == [table for table, found in before.items() if not found]
    assert before == rows(stores.sides(target)[1])
    assert told == stores.use(target, fullstore.read)
    stores.use(target, fullstore.go_on)


def test_a_store_of_servers_of_before_moves_to_sqlite_and_back(stores: Stores, server: PostgresServer) -> None:
    """With all its rows. What came after those servers is prepared where it arrives, and has begun for who starts."""
    before = PostgresSessionStore(stores.conninfo, **PATIENT, tells=True, steps=FIRST_STEPS)
    history = PostgresSessionHistory(stores.conninfo, **PATIENT, tells=True)
    with closing(before), closing(history):
        fullstore.fill(before, history)
    with server.connect(dbname="moved") as connection:
        connection.execute("DROP TABLE pdp_sessions.steps")
        filled = rows(stores.postgres)
        move(*stores.sides("sqlite"), now=NOW)
        move(*stores.sides("postgres"), now=NOW)
        arrived = rows(stores.postgres)
        stores.use("postgres", fullstore.go_on)
        numbers = connection.execute(NUMBERS).fetchone()

    assert filled == arrived
    assert (POSTGRES_SCHEMA_VERSION,) * 3 == numbers


def test_labels_that_calls_have_added_arrive_in_their_sessions(stores: Stores) -> None:
    """SQLite has no rows of theirs; the epochs are those that were told."""

    def family(store: SessionStore, _: SessionHistory) -> tuple[Session, ...]:
        return store.get("ses_child")

    def fill(store: SessionStore, _: SessionHistory) -> None:
        insert_family(store)
        for label in ("untrusted", "sent"):
            store.settle(store.get("ses_child"), frozenset({label}), by=f"dec_{label}", wall_at=1000.0)

    stores.use("postgres", fill)
    before = stores.use("postgres", family)
    move(*stores.sides("sqlite"), now=NOW)
    there = stores.use("sqlite", family)
    move(*stores.sides("postgres"), now=NOW)

    assert [(3, ("sent", "untrusted"))] * 2 == [(session.epoch, session.labels) for session in before]
    assert before == there == stores.use("postgres", family)


# After a step: whether servers can start on source and target, and why not on those that know of the move.
GONE, ARRIVING = "were moved to", "is not finished: run `pdp store move` again"
STEPS = [
    ("copied history.trees", [True, False], ["", ""]),
    ("copied everything", [True, False], ["", ARRIVING]),
    ("set ", [False, False], [GONE, ARRIVING]),
    ("servers", [False, True], [GONE, ""]),
]


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize(("step", "live", "refused"), STEPS, ids=["in the copy", "copied", "set aside", "activated"])
def test_a_killed_move_is_finished_by_the_next(
    stores: Stores, target: str, step: str, live: list[bool], refused: list[str]
) -> None:
    """At no moment do servers start on both, and afterwards on the target alone, which has everything."""
    source = other_than(target)
    stores.use(source, fullstore.fill)
    told = stores.use(source, fullstore.read)
    killed = subprocess.run(
        [sys.executable, "-m", moving_process.__name__, str(stores.folder), stores.conninfo, target, step],
        check=False,
        timeout=120,
    )
    found = [(kind, side.state()) for kind, side in zip((source, target), stores.sides(target), strict=True)]
    refusals = [stores.refusal(kind) if state.mark else "" for kind, state in found]
    move(*stores.sides(target), now=NOW)

    assert -signal.SIGKILL == killed.returncode
    assert live == [state.live for _, state in found]
    assert [True, True] == [wanted in refusal for wanted, refusal in zip(refused, refusals, strict=True)]
    assert refused.count("") == refusals.count("")
    assert told == stores.use(target, fullstore.read)
    assert f"were moved to `{stores.sides(target)[1].name}`" in stores.refusal(source)


def test_a_store_goes_there_and_back(stores: Stores) -> None:
    """In the place of what was left there the first time."""
    stores.use("sqlite", fullstore.fill)
    told = stores.use("sqlite", fullstore.read)
    for target in ("postgres", "sqlite", "postgres"):
        move(*stores.sides(target), now=NOW)

    assert told == stores.use("postgres", fullstore.read)
    assert GONE in stores.refusal("sqlite")
    with pytest.raises(StoreUnavailableError, match=GONE):
        inspect(stores.folder / "sessions.sqlite")


def test_a_person_is_forgotten_by_way_of_sqlite(stores: Stores) -> None:
    """Their rows are nowhere in the database afterwards, and those of others are as they were."""

    def fill(store: SessionStore, _: SessionHistory) -> None:
        insert_over(store, "hers", user="ada@example.org")
        insert_over(store, "his", user="bob@example.org")

    stores.use("postgres", fill)
    move(*stores.sides("sqlite"), now=NOW)
    files = stores.folder / "sessions.sqlite", stores.folder / "history.sqlite"
    forget(*files, tenant="default", user="ada@example.org", now_at=NOW.wall_at + 10_000, apply=True)
    move(*stores.sides("postgres"), now=NOW)

    held = str(rows(stores.postgres))
    assert (False, True) == ("ada@example.org" in held, "bob@example.org" in held)
    assert "" == stores.refusal("postgres")


def test_what_looks_at_a_database_that_was_left_says_where_its_sessions_are(stores: Stores) -> None:
    """Otherwise it would look like one that never had any."""
    stores.use("postgres", fullstore.fill)
    move(*stores.sides("sqlite"), now=NOW)

    with pytest.raises(StoreUnavailableError, match=GONE):
        inspect_postgres(stores.conninfo)


def test_a_move_outwaits_who_answers_from_memory(stores: Stores) -> None:
    """A server that was cut off has no lease any more when others start on the target, also in the second try."""

    def interrupt(done: str) -> None:
        if done.startswith("set "):
            raise InterruptedError

    def silent(sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(stores.conninfo, autocommit=True) as connection:
            found = connection.execute(sql)
            return found.fetchall() if found.description else []

    stores.use("postgres", fullstore.fill)
    silent("INSERT INTO pdp_sessions.replicas VALUES ('rep_silent', 7, 0.1)")
    with pytest.raises(InterruptedError):
        move(*stores.sides("sqlite"), now=NOW, step=interrupt)
    before = silent("SELECT id FROM pdp_sessions.replicas")
    move(*stores.sides("sqlite"), now=NOW)

    assert [("rep_silent",)] == before
    # Who has waited for it has removed it.
    assert [] == silent("SELECT id FROM pdp_sessions.replicas")
    assert "" == stores.refusal("sqlite")


@pytest.mark.parametrize("user", KINDS)
def test_no_store_moves_while_it_is_used(stores: Stores, user: str) -> None:
    """A server uses the source, or the target; nothing has changed afterwards."""
    stores.use("sqlite", fullstore.fill)
    stores.postgres = PostgresSide(stores.conninfo, gone_seconds=0.0)
    store, history = stores.opened(user)
    with closing(store), closing(history), pytest.raises(StoreUnavailableError, match="a server uses the session"):
        move(*stores.sides("postgres"), now=NOW)

    assert "" == stores.refusal("sqlite")


def test_a_store_that_is_there_is_not_replaced(stores: Stores) -> None:
    """Two stores that servers can start on are one too many."""
    for kind in KINDS:
        stores.use(kind, fullstore.fill)
    with pytest.raises(StoreUnavailableError, match="there is a session store already: `PostgreSQL database moved at"):
        move(*stores.sides("postgres"), now=NOW)


@pytest.mark.parametrize("target", KINDS)
def test_nothing_moves_from_where_there_is_nothing(stores: Stores, target: str) -> None:
    """Neither a first time, nor again after it was moved and recorded."""
    with pytest.raises(StoreUnavailableError, match="there is no session store"):
        move(*stores.sides(target), now=NOW)
    stores.use(other_than(target), fullstore.fill)
    move(*stores.sides(target), now=NOW)
    stores.sides(target)[1].forget_move()

    with pytest.raises(StoreUnavailableError, match=GONE):
        move(*stores.sides(target), now=NOW)


@pytest.mark.parametrize("source", KINDS)
def test_a_store_that_lacks_what_was_acknowledged_stays(stores: Stores, source: str) -> None:
    """The record knows a later revision: an old snapshot must not live on under another name."""
    stores.use(source, fullstore.fill)
    revision = stores.use(source, lambda store, _: store.head().revision)
    known = Stores(stores.folder, stores.conninfo, known_revision=revision + 2)
    with pytest.raises(StoreUnavailableError, match="lacks the last 2 changes"):
        move(*known.sides(other_than(source)), now=NOW)
    known.postgres.close()

    assert "" == stores.refusal(source)


def test_a_table_that_one_of_them_lacks_is_not_left_behind(stores: Stores) -> None:
    """A move that would lose something is not made."""
    stores.use("sqlite", fullstore.fill)
    with closing(apsw.Connection(str(stores.folder / "history.sqlite"))) as connection:
        connection.execute("CREATE TABLE forgotten (id TEXT)")
    with pytest.raises(StoreUnavailableError, match=r"has the column `history.forgotten.id`"):
        move(*stores.sides("postgres"), now=NOW)

    assert "" == stores.refusal("sqlite")


def test_a_session_goes_on_where_the_command_moved_it(stores: Stores) -> None:
    """A server on the old store names the new one, one on the new store allows the next call, and the log tells it."""
    folder = stores.folder
    write_folder(folder / "policies", notes_bundle())
    (folder / "postgres").write_text(stores.conninfo, encoding="utf-8")
    (folder / "postgres").chmod(0o600)
    command = ("store", "move", "--to", "postgres", "--postgres-file", "postgres")
    with ServerProcess(folder) as server, Callers.of(server) as callers:
        opened = open_session(callers)
        _, preview = run(folder, *command, "--preview", store="sqlite")
        running, error = run(folder, *command, store="sqlite")
        assert 0 == server.terminate()
    code, moved = run(folder, *command, store="sqlite")
    refused = ServerProcess.refused(folder)
    with start(folder) as server, Callers.of(server) as callers:
        after = basis(callers, opened)
    told = [one for one in records(server) if one["kind"] == "store.moved"]

    assert (False, 1, 1) == (preview["moved"], preview["rows"]["sessions.sessions"], preview["rows"]["history.history"])
    assert (2, True) == (running, "a server uses the session store" in error)
    assert (0, True, preview["from"], "PostgreSQL database moved at 127.0.0.1") == (
        code,
        moved["moved"],
        moved["from"],
        moved["to"],
    )
    assert 2 == refused.returncode
    assert f"{GONE} `PostgreSQL database moved at 127.0.0.1`" in refused.stderr
    assert "permit" == after
    assert [(moved["from"], moved["to"], "1")] == [
        (one["facts"]["from"], one["facts"]["to"], one["facts"]["sessions"]) for one in told
    ]


def test_messages_that_wait_come_to_the_file(stores: Stores) -> None:
    """In their order, with dead ones and with what was taken of the store; a server brings them back when it starts."""
    folder = stores.folder
    (folder / "postgres").write_text(stores.conninfo, encoding="utf-8")
    (folder / "postgres").chmod(0o600)
    (folder / "data").mkdir(mode=0o700)
    write_keys(folder / "data")
    stores.use("postgres", fullstore.fill)
    event = OutboxEvent(id="evt_1", topic=Topic.SESSION_REQUESTED, at=1.0)
    with closing(PostgresMessageQueue(stores.conninfo)) as queue:
        queue.lead()
        queue.put([Message(id=f"msg_{one}", receiver="on-call", event=event) for one in "cab"], ["evt_1"], at=1000.0)
        queue.give_up(["on-call"], created_before=0.0, most=2)
    code, said = run(folder, "store", "move", "--to", "sqlite", "--postgres-file", "postgres")
    with closing(SQLiteMessageQueue(folder / "data" / "messages.sqlite")) as file:
        found = [[one.message.id for one in file.letters(dead=dead, limit=9)] for dead in (True, False)]
        taken = sorted(file.taken(["evt_1"]))

    assert (0, [["msg_c"], ["msg_a", "msg_b"]], ["evt_1"]) == (code, found, taken), said


def records(server: ServerProcess) -> list[dict[str, Any]]:
    """Return what the decision log holds."""
    files = sorted(server.record_folder.glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_bytes().splitlines()]
