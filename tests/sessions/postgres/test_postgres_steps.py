"""Servers of two versions share a database: the older goes on until all that are there know what the newer brings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pdp.doctor.finding import Finding, Level
from pdp.doctor.stepscheck import server_findings, step_findings
from pdp.errors import StoreUnavailableError
from pdp.sessions.care import StoreReport
from pdp.sessions.postgres import PostgresSessionStore
from pdp.sessions.postgresbeginning import Beginning, ServerRow
from pdp.sessions.postgrescare import inspect_postgres, live_servers
from pdp.sessions.postgresconnection import PostgresConnection
from pdp.sessions.postgresreplicas import PostgresReplicas
from pdp.sessions.postgressteps import BASE_VERSION, FIRST_VERSION, POSTGRES_SCHEMA_VERSION, STEPS, Step, begun
from pdp.testing.stores.samples import make_session
from tests.sessions.postgres.conftest import PATIENT, leased_store
from tests.sessions.postgres.postgresserver import PostgresServer

pytestmark = pytest.mark.replicas

NOW, NEXT = POSTGRES_SCHEMA_VERSION, POSTGRES_SCHEMA_VERSION + 1
ADDITIVE = Step(statements="CREATE TABLE IF NOT EXISTS brought (id BIGINT)", additive=True, brings="what is brought")
BREAKING = Step(statements="CREATE TABLE brought (id BIGINT)")
# Those of programs that have no additive step.
FIRST_STEPS = STEPS[: BASE_VERSION - FIRST_VERSION]
REFUSAL = f"has schema `{NEXT}`, but this program knows only `{NOW}`: upgrade the program"
NUMBERS = "SELECT schema_version, there, begun FROM meta, steps"
HANDLE = b"\0" * 32
_counted = count(1)


class Clock:
    """Seconds that tests set."""

    at = 0.0

    def __call__(self) -> float:
        """Return them."""
        return self.at


class Tables:
    """The tables of a store, without another test's."""

    def __init__(self, conninfo: str, database: psycopg.Connection[Any], folder: Path, opened: ExitStack) -> None:
        self.conninfo, self.database, self._folder, self._opened = conninfo, database, folder, opened
        self.namespace = f"steps{next(_counted)}"
        # For statements that name no schema.
        self.connection = opened.enter_context(
            closing(
                PostgresConnection(conninfo, namespace=f"{self.namespace}_sessions", name="test", busy_seconds=30.0)
            )
        )

    def store(self, *more: Step, steps: tuple[Step, ...] = STEPS, leased: bool = False) -> PostgresSessionStore:
        """Open a store of a program that knows `steps` and `more`."""
        options: dict[str, Any] = {"namespace": self.namespace, "steps": (*steps, *more)}
        made = leased_store(self.conninfo, self._folder / str(next(_counted)), **options) if leased else None
        return self._opened.enter_context(closing(made or PostgresSessionStore(self.conninfo, **PATIENT, **options)))

    def replicas(self, name: str, knows: int) -> PostgresReplicas:
        """Open what a server says to others."""
        made = PostgresReplicas(self.conninfo, namespace=self.namespace, name=name, knows=knows)
        return self._opened.enter_context(closing(made))

    @property
    def numbers(self) -> tuple[int, ...]:
        """Return what programs must know, what is prepared, and what has begun."""
        return tuple(self.connection.execute(NUMBERS).get)

    def make_as_before(self) -> None:
        """Make the tables as programs leave them that have no additive step."""
        self.store(steps=FIRST_STEPS).close()
        self.connection.execute("DROP TABLE steps")


@pytest.fixture
def tables(server: PostgresServer, tmp_path: Path) -> Iterator[Tables]:
    """Give tables that are not there yet."""
    with server.connect() as database, ExitStack() as opened:
        tables = Tables(server.conninfo, database, tmp_path, opened)
        yield tables
        opened.close()
        database.execute(f"DROP SCHEMA {tables.namespace}_sessions CASCADE")


@pytest.mark.parametrize(
    ("step", "begins", "refused"),
    [
        pytest.param(ADDITIVE, False, False, id="additive"),
        pytest.param(ADDITIVE, True, True, id="additive, and begun"),
        pytest.param(BREAKING, False, True, id="breaking"),
    ],
)
@pytest.mark.parametrize("leased", [False, True], ids=["each read asks", "leases"])
def test_what_an_older_program_does_with_a_newer_step(
    tables: Tables, step: Step, *, begins: bool, refused: bool, leased: bool
) -> None:
    """It goes on, open or opened anew, or is refused with both versions, also what it could answer from memory."""
    older = tables.store(leased=leased)
    session = make_session("root")
    older.insert(session, wall_at=1000.0)
    older.view(session.handle_digest)
    newer = tables.store(step)
    if begins:
        newer.begin_steps(NEXT)
    calls: list[Callable[[], object]] = [
        lambda: older.view(session.handle_digest),
        lambda: older.insert(make_session("other"), wall_at=1000.0),
        lambda: older.settle((session,), frozenset({"untrusted"}), by="dec_1", wall_at=1000.0),
        lambda: tables.store().get(session.id),
    ]

    assert [REFUSAL if refused else ""] * len(calls) == [refusal(call) for call in calls]
    assert session.id == newer.get(session.id)[0].id


def refusal(call: Callable[[], object]) -> str:
    """Return why a call is refused, after what names the store; empty when it is not."""
    try:
        call()
    except StoreUnavailableError as error:
        return str(error).removeprefix("the session store ")
    return ""


def test_a_new_program_prepares_an_old_database_and_uses_nothing_of_it(tables: Tables) -> None:
    """Earlier servers go on, and say in their way that they are there."""
    tables.make_as_before()
    store = tables.store()
    tables.connection.execute("INSERT INTO bundle_servers (id, name, beats) VALUES ('1', 'older', 1)")

    assert (BASE_VERSION, NOW, BASE_VERSION) == tables.numbers
    assert BASE_VERSION == begun(tables.connection, f"{tables.namespace}_sessions")
    assert [(1, "older", BASE_VERSION)] == tables.connection.execute(
        "SELECT 1, name, knows FROM bundle_servers"
    ).fetchall()
    assert (store.head().revision, ()) == (0, store.get("ses_none"))


def test_new_tables_have_all_that_a_program_knows(tables: Tables) -> None:
    """No earlier server has seen them."""
    tables.store(ADDITIVE)

    assert (NEXT, NEXT, NEXT) == tables.numbers


def test_a_step_that_begins_shows_itself_by_a_revision(tables: Tables) -> None:
    """By that, programs that answer from memory notice; to begin it twice changes nothing more."""
    tables.store()
    newer = tables.store(ADDITIVE)
    before = newer.head().revision
    newer.begin_steps(NEXT)
    newer.begin_steps(NEXT)

    assert (NEXT, NEXT, NEXT) == tables.numbers
    assert before + 1 == newer.head().revision


def test_a_step_whose_beginning_was_interrupted_begins_at_the_next_start(tables: Tables) -> None:
    """The process can have died before the fence was over."""
    tables.store(ADDITIVE)
    tables.connection.execute("UPDATE steps SET begun = ?", (NOW,))
    tables.store(ADDITIVE)

    assert (NEXT, NEXT, NEXT) == tables.numbers


def test_a_newer_program_takes_each_step_once(tables: Tables) -> None:
    """An older one that starts afterwards does not undo what is prepared."""
    tables.store()
    tables.store(ADDITIVE)
    tables.store()

    assert (NOW, NEXT, NOW) == tables.numbers


def test_a_step_that_breaks_has_all_before_it_begin(tables: Tables) -> None:
    """Servers that know less are refused in any case."""
    tables.store()
    tables.store(ADDITIVE, Step(statements="CREATE TABLE broken (id BIGINT)"))

    assert (NEXT + 1, NEXT + 1, NEXT + 1) == tables.numbers


# When a step begins

Seen = Mapping[str, tuple[int, int]]
OLDER = {"older": (1, NOW - 1)}


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        pytest.param([(0.0, {}), (59.0, {}), (60.0, {})], (60.0, NOW), id="alone"),
        pytest.param(
            [(0.0, {"newer": (1, NOW + 1)}), (60.0, {"newer": (2, NOW + 1)})], (60.0, NOW), id="beside a newer one"
        ),
        pytest.param(
            [(0.0, OLDER), (59.0, {"older": (2, NOW - 1)}), (118.0, {"older": (3, NOW - 1)})],
            None,
            id="beside an older one",
        ),
        pytest.param([(0.0, OLDER), (59.0, OLDER), (60.0, OLDER)], (60.0, NOW), id="beside one that was killed"),
        pytest.param([(0.0, OLDER), (59.0, {}), (60.0, {})], (60.0, NOW), id="after one that has ended"),
        pytest.param(
            [(0.0, OLDER), (50.0, {}), (55.0, {"again": (1, NOW - 1)}), (114.0, {"again": (1, NOW - 1)})],
            None,
            id="beside one that was started again",
        ),
        pytest.param(
            [(0.0, OLDER), (70.0, OLDER), (71.0, {"older": (2, NOW - 1)}), (130.0, {"older": (2, NOW - 1)})],
            (70.0, NOW),
            id="one that was silent for too long is refused",
        ),
    ],
)
def test_a_step_begins_when_all_servers_have_known_it_for_a_minute(
    tables: Tables, looks: list[tuple[float, Seen]], expected: tuple[float, int] | None
) -> None:
    """By the clock of the one that looks; who says nothing, or is gone, counts for a minute."""
    tables.store()
    tables.connection.execute("UPDATE steps SET begun = ?", (NOW - 2,))
    clock, began = Clock(), list[tuple[float, int]]()
    beginning = Beginning(lambda version: began.append((clock.at, version)), monotonic=clock)
    for clock.at, servers in looks:
        tables.connection.execute("DELETE FROM bundle_servers")
        for name, (beats, knows) in servers.items():
            tables.connection.execute("INSERT INTO bundle_servers VALUES (?, ?, ?, ?)", (name, name, beats, knows))
        beginning.look(tables.connection)

    assert expected == next((one for one in began if one[1] == NOW), None)


def test_it_begins_when_the_last_server_of_before_is_replaced(tables: Tables) -> None:
    """Until then the newer one writes as before, and the older one goes on; afterwards it is refused."""
    clock = Clock()
    older, newer = tables.store(), tables.store(ADDITIVE)
    beats = tables.replicas("older", NOW), tables.replicas("newer", NEXT)
    beginning = Beginning(newer.begin_steps, knows=NEXT, monotonic=clock)
    for clock.at in (0.0, 40.0, 80.0, 120.0):
        for one in beats:
            one.beat()
        beginning.look(tables.connection)
    mixed = tables.numbers, refusal(lambda: older.view(HANDLE))
    beats[0].close()
    for clock.at in (160.0, 200.0):
        beats[1].beat()
        beginning.look(tables.connection)

    assert ((NOW, NEXT, NOW), "") == mixed
    assert ((NEXT, NEXT, NEXT), REFUSAL) == (tables.numbers, refusal(lambda: older.view(HANDLE)))


def test_while_the_database_is_away_nothing_begins(tables: Tables, caplog: pytest.LogCaptureFixture) -> None:
    """The log says so once."""
    beginning = Beginning(lambda _: pytest.fail("it has begun"), quiet_seconds=0.0)
    with closing(PostgresConnection("host=127.0.0.1 port=1", namespace="x", name="test", busy_seconds=0.0)) as away:
        beginning.look(away)
        beginning.look(away)
    tables.store()

    assert 1 == caplog.text.count(f"cannot have schema `{NOW}` of the session store begin")


# What people are told


def report(has: int) -> StoreReport:
    """Return what a store of a version holds."""
    return StoreReport(schema_version=has, known_schema=NOW)


@pytest.mark.parametrize(
    ("has", "there", "expected"),
    [
        pytest.param(BASE_VERSION - 1, BASE_VERSION - 1, "earlier servers are refused", id="upgrades"),
        pytest.param(BASE_VERSION, BASE_VERSION, "earlier servers go on", id="prepares"),
        pytest.param(NOW, NEXT, f"a newer program has prepared schema {NEXT}", id="prepared by a newer one"),
        pytest.param(NOW, NOW, "sound to read", id="prepared"),
    ],
)
def test_doctor_says_what_the_next_start_does(has: int, there: int, expected: str) -> None:
    """Before anything is done."""
    (finding,) = step_findings(report(has), there=there, begun=has)

    assert expected in finding.found


def told(*servers: tuple[str, int], begun: int) -> list[Finding]:
    """Return what is found of some servers."""
    rows = [ServerRow(name, name, 1, knows) for name, knows in servers]
    return list(server_findings(rows, known=NOW, begun=begun))


@pytest.mark.parametrize(
    ("servers", "begun", "level", "expected"),
    [
        pytest.param([("a", NOW - 1), ("b", NOW)], NOW - 1, Level.WARNING, "do not know it: `a`", id="mixed"),
        pytest.param([("a", NOW)], NOW - 1, Level.OK, "begins after a minute", id="all new"),
        pytest.param([("a", NOW)], NOW, Level.OK, f"`a` knows schema {NOW}", id="begun"),
        pytest.param([("a", NOW), ("b", NEXT)], NOW, Level.WARNING, "do not know it: `a`", id="a newer one"),
    ],
)
def test_doctor_says_what_servers_know_and_what_waits_for_which(
    servers: list[tuple[str, int]], begun: int, level: Level, expected: str
) -> None:
    """With the name that each gives itself."""
    last = told(*servers, begun=begun)[-1]

    assert level == last.level
    assert expected in last.found


def test_only_servers_that_say_so_again_are_there(tables: Tables) -> None:
    """One that was killed has left its row."""
    tables.store()
    alive, dead = tables.replicas("alive", NOW), tables.replicas("dead", NOW)
    alive.beat()
    dead.beat()
    found = live_servers(tables.conninfo, namespace=tables.namespace, pause=lambda _: alive.beat())

    assert [("alive", NOW)] == [(one.name, one.knows) for one in found]


def test_a_database_of_before_is_inspected(tables: Tables) -> None:
    """It has no numbers of its own for what is prepared and has begun."""
    tables.make_as_before()
    found = inspect_postgres(tables.conninfo, namespace=tables.namespace)

    assert (BASE_VERSION, BASE_VERSION) == (found.there, found.begun)
