"""What ends authority passes an activation of a bundle that changes many sessions, and the activation is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import pytest

from pdp.errors import OverloadedError
from pdp.model import Session
from pdp.sessions import postgresprecedence
from pdp.sessions.postgres import PostgresSessionStore
from pdp.sessions.rows import row_of
from pdp.sessions.values import Cut, SessionFilter
from pdp.sessions.writes import Write
from pdp.testing.stores.samples import make_bundle, make_freeze, make_session, revoked, successor_of
from pdp.testing.waiting import wait_until
from tests.sessions.postgres.conftest import PATIENT
from tests.sessions.postgres.postgresserver import PostgresServer

pytestmark = pytest.mark.replicas

SESSIONS = 2000
ONE = "ses_00007"
WRITE = Write(key=b"k" * 32, digest=b"d" * 32)
# In the transaction of an activation, an ending is waited for at most so long: who asks it then is refused.
BUSY_SECONDS = 1.0


class Activating(PostgresSessionStore):
    """A store whose activations do something `between` two pieces of sessions; it is told how many are written."""

    between: Callable[[int], object] = staticmethod(lambda _: None)
    pieces = 0

    def _rewrite(self, sessions: Sequence[Session]) -> Sequence[Session]:
        if len(sessions) > 1:
            self.between(self.pieces)
            self.pieces += 1
        return super()._rewrite(sessions)


@dataclass(frozen=True, slots=True)
class World:
    """A server that activates, another one, and a thread for what ends meanwhile."""

    here: Activating
    there: PostgresSessionStore
    server: PostgresServer
    thread: ThreadPoolExecutor
    ended: list[Future[Any]] = field(default_factory=list)

    def ends(self, end: Callable[[PostgresSessionStore], object], at: PostgresSessionStore) -> None:
        """Begin an ending, and return when it waits for the activation."""
        self.ended.append(self.thread.submit(end, at))
        wait_until(self.waits)

    def waits_at_database(self) -> bool:
        """Say whether a process waits for a lock."""
        with self.server.connect() as other:
            ((waiting,),) = other.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return bool(waiting)

    def waits(self) -> bool:
        """Say whether an ending waits, or was refused."""
        return (
            self.waits_at_database()
            or bool(self.here._turns._waiting or self.here._turns._pressing)
            or self.ended[-1].done()
        )

    def activate(self) -> tuple[Session, ...]:
        """Activate a bundle that changes each session."""
        return self.here.activate_bundle(make_bundle("v2"), b"content", changed, captured=lambda *_: "[2]")

    def stored(self) -> dict[str, int]:
        """Return how many sessions have each data of the directory."""
        with self.server.connect() as other:
            return dict(other.execute(_CAPTURED).fetchall())


_CAPTURED = """
SELECT CAST(session_json AS json) ->> 'entities_json', CAST(count(*) AS integer) FROM pdp_sessions.sessions
WHERE state = 'active' GROUP BY 1
"""


def changed(session: Session) -> Session:
    """Return a session with other data of the directory."""
    return successor_of(session, entities_json="[2]")


@pytest.fixture
def world(conninfo: str, server: PostgresServer) -> Iterator[World]:
    """Give two servers on a database with many live sessions."""
    options: dict[str, Any] = {**PATIENT, "busy_seconds": BUSY_SECONDS}
    with ExitStack() as opened:
        thread = opened.enter_context(ThreadPoolExecutor(max_workers=1))
        here = opened.enter_context(closing(Activating(conninfo, **options)))
        there = opened.enter_context(closing(PostgresSessionStore(conninfo, **options)))
        here.insert(make_session("parent"), wall_at=1000.0)
        rows = [{**row_of(make_session(f"{number:05d}")), "expiry_noted": 0} for number in range(SESSIONS - 1)]
        names = ", ".join(f'"{name}"' for name in rows[0])
        with (
            server.connect() as other,
            other.cursor() as cursor,
            cursor.copy(f"COPY pdp_sessions.sessions ({names}) FROM STDIN") as copy,
        ):
            for row in rows:
                copy.write_row(list(row.values()))
        yield World(here, there, server, thread)


ENDINGS = [
    pytest.param(lambda store: store.change_tree(ONE, revoked, wall_at=1001.0), id="revocation"),
    pytest.param(lambda store: store.change_where(SessionFilter(id=ONE), revoked, wall_at=1001.0), id="revocations"),
    pytest.param(
        lambda store: store.cut(Cut(tenant="default", user="ada", agent="", at=1001.0, by="admin", reason="")), id="cut"
    ),
    pytest.param(lambda store: store.freeze(make_freeze("default")), id="freeze"),
    pytest.param(lambda store: store.written(WRITE, wall_at=1001.0), id="asked for again"),
    pytest.param(lambda store: store.outwait((ONE,)), id="found made"),
]


@pytest.mark.parametrize("end", ENDINGS)
@pytest.mark.parametrize("where", ["here", "there"])
def test_what_ends_authority_passes_an_activation(
    world: World, where: str, end: Callable[[PostgresSessionStore], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for a piece, in the same process and in another one, and sees nothing of what was written of it."""
    monkeypatch.setattr(postgresprecedence, "GIVES_WAY_AFTER", (0.0,))
    seen = list[dict[str, int]]()

    def between(pieces: int) -> None:
        if pieces == 2:
            world.ends(end, getattr(world, where))
        if pieces == 3:
            world.ended[0].result(timeout=60)
            seen.append(world.stored())

    world.here.between = between
    written = world.activate()

    assert [["[]"]] == [list(one) for one in seen]
    assert {"[2]": len(written)} == world.stored()
    assert "v2" == getattr(world.there.active_bundle(), "version", "")


@pytest.mark.parametrize("end", ENDINGS[::3])
@pytest.mark.parametrize("where", ["here", "there"])
def test_what_ends_authority_waits_for_an_activation_that_gives_way_no_more(
    world: World, where: str, end: Callable[[PostgresSessionStore], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be refused after `busy_seconds`, and waits again as long as the activation is under way."""
    monkeypatch.setattr(postgresprecedence, "GIVES_WAY_AFTER", ())
    store: PostgresSessionStore = getattr(world, where)
    refused, seen = list[bool](), store._precedence._seen

    def asked(query: str) -> bool:
        refused.append(seen(query))
        return refused[-1]

    monkeypatch.setattr(store._precedence, "_seen", asked)

    def between(pieces: int) -> None:
        if pieces == 2:
            world.ends(end, store)
            wait_until(lambda: bool(refused))

    world.here.between = between
    written = world.activate()
    world.ended[0].result(timeout=60)

    assert SESSIONS == len(written)
    assert refused == [True] * len(refused)


def test_endings_do_not_keep_an_activation_from_being_made(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often one comes: the last try gives way to none."""
    monkeypatch.setattr(postgresprecedence, "GIVES_WAY_AFTER", (0.0, 0.0))

    def between(_: int) -> None:
        if not world.ended or world.ended[-1].done():
            name = f"ses_{len(world.ended):05d}"
            world.ends(lambda store: store.change_tree(name, revoked, wall_at=1001.0), world.there)

    world.here.between = between
    written = world.activate()
    revocations = [ended.result(timeout=60) for ended in world.ended]

    assert [1, 1, 1] == [len(changed) for changed in revocations]
    assert SESSIONS - 2 == len(written)


def test_an_ending_passes_what_waits_before_it_on_another_machine(
    conninfo: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What gives authority waits at the database for long; it is refused when an ending of its process waits for it."""
    monkeypatch.setattr(postgresprecedence, "GIVES_WAY_AFTER", (0.0,))
    with (
        closing(PostgresSessionStore(conninfo, **PATIENT)) as there,
        ThreadPoolExecutor(max_workers=3) as others,
    ):
        opened: list[Future[Any]] = []

        def between(pieces: int) -> None:
            if pieces == 2:
                opened.append(others.submit(there.insert, make_session("new"), wall_at=1001.0))
                wait_until(world.waits_at_database)
                opened.append(others.submit(there.insert, make_session("next"), wall_at=1001.0))
                wait_until(lambda: bool(there._turns._waiting))
                world.ended.append(world.thread.submit(there.change_tree, ONE, revoked, wall_at=1001.0))
                wait_until(opened[0].done, seconds=10)
            if pieces == 3:
                world.ended[0].result(timeout=60)

        world.here.between = between
        world.activate()

        with pytest.raises(OverloadedError, match="nothing was written"):
            opened[0].result(timeout=60)
        opened[1].result(timeout=60)


def test_what_waits_for_a_moment_only_is_not_refused(conninfo: str, server: PostgresServer) -> None:
    """As long as no ending of its process waits."""
    with closing(PostgresSessionStore(conninfo, **PATIENT)) as store, ThreadPoolExecutor(max_workers=1) as thread:
        with server.connect() as other:
            other.execute("BEGIN; SELECT 1 FROM pdp_sessions.meta FOR UPDATE")
            opened = thread.submit(store.insert, make_session("new"), wall_at=1001.0)
            with pytest.raises(TimeoutError):
                opened.result(timeout=0.8)
        opened.result(timeout=60)


def test_others_than_endings_are_refused_as_before(world: World) -> None:
    """What gives authority can wait for its turn, and does not push an activation back."""

    def between(pieces: int) -> None:
        if pieces == 2:
            world.ends(lambda store: store.insert(make_session("new"), wall_at=1001.0), world.there)
            wait_until(world.ended[0].done)

    world.here.between = between
    world.activate()

    assert SESSIONS // 500 == world.here.pieces
    with pytest.raises(OverloadedError):
        world.ended[0].result()


def test_many_sessions_are_computed_by_a_few_questions(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would be a round trip to the database, for a bundle and for a revocation of many."""
    asked, execute = list[str](), world.here._foreseer.execute

    def heard(statements: str, bindings: Any = None) -> Any:
        asked.append(statements)
        return execute(statements, bindings)

    monkeypatch.setattr(world.here._foreseer, "execute", heard)
    written = world.activate()
    revocations = world.here.change_where(SessionFilter(user="ada"), revoked, wall_at=1001.0)

    assert [SESSIONS, SESSIONS] == [len(written), len(revocations)]
    assert 2 + 2 * SESSIONS // 500 == len(asked)


def test_a_change_of_many_sessions_reads_the_changes_once(world: World, server: PostgresServer) -> None:
    """Also with the statistics of an empty table: else each row takes longer than the one before."""
    with server.connect() as other:
        other.execute("ANALYZE pdp_sessions.changes")
        ((rows, read),) = other.execute(_READ).fetchall()
        revocations = world.there.change_where(SessionFilter(user="ada"), revoked, wall_at=1001.0)
        # A process of the server counts when it is idle for long, or ends.
        world.there._connection.drop()
        wait_until(lambda: other.execute(_READ).fetchall()[0][0] >= rows + SESSIONS)
        ((_, read_now),) = other.execute(_READ).fetchall()

    assert SESSIONS == len(revocations)
    assert 10 * SESSIONS > read_now - read


_READ = (
    "SELECT n_tup_ins, seq_tup_read FROM pg_stat_user_tables WHERE schemaname = 'pdp_sessions' AND relname = 'changes'"
)


def test_a_revocation_reads_few_sessions(world: World, server: PostgresServer) -> None:
    """Also where none is below another one: it keeps all other writers waiting meanwhile."""
    with server.connect() as other:
        other.execute("ANALYZE pdp_sessions.sessions")
        ((updated, read),) = other.execute(_SESSIONS_READ).fetchall()
        for number in range(10):
            world.there.change_tree(f"ses_{number:05d}", revoked, wall_at=1001.0)
        world.there._connection.drop()
        wait_until(lambda: other.execute(_SESSIONS_READ).fetchall()[0][0] >= updated + 10)
        ((_, read_now),) = other.execute(_SESSIONS_READ).fetchall()

    assert SESSIONS > read_now - read


_SESSIONS_READ = """
SELECT n_tup_upd, seq_tup_read FROM pg_stat_user_tables WHERE schemaname = 'pdp_sessions' AND relname = 'sessions'
"""
