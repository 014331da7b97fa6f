"""A machine whose clock is wrong neither keeps sessions for longer than others nor ends theirs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from pdp.app.server import App
from pdp.cli.operate.init import prepare
from pdp.clock import Deadline, SystemClock, no_earlier
from pdp.config.settings import SessionSettings
from pdp.errors import StoreUnavailableError
from pdp.model import Session, SessionState
from pdp.sessions.lease import LeaseTerms
from pdp.sessions.lifecycle import state_of
from pdp.sessions.postgres import PostgresSessionStore
from pdp.sessions.postgresrestoring import accept
from pdp.sessions.postgreswatcher import PostgresWatcher
from pdp.sessions.sharedclock import SharedClock
from pdp.sessions.store import SessionStore
from pdp.testing.inprocess import write_folder
from pdp.testing.stores.samples import insert_family, make_bundle, make_freeze, make_session, revoked, unchanged
from pdp.testing.waiting import wait_until
from tests.machinery.servers.notes import notes_bundle
from tests.machinery.servers.served import settings_in
from tests.sessions.postgres.conftest import PATIENT
from tests.sessions.postgres.movableclock import MovableClock
from tests.sessions.postgres.postgresserver import PostgresServer

pytestmark = pytest.mark.replicas

TOMORROW = time.time() + 86_400.0
SESSION = make_session("a")
Write = Callable[[SessionStore, float], object]


@pytest.fixture
def store(conninfo: str) -> Iterator[PostgresSessionStore]:
    """Give the store of a machine whose clock is right, with a family of sessions."""
    with closing(PostgresSessionStore(conninfo, **PATIENT)) as store:
        insert_family(store)
        yield store


def shared(wall: float) -> SharedClock:
    """Return the clock of a machine that differs by so many seconds."""
    return SharedClock(MovableClock(wall))


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda store, at: store.touch(wall_at=at), id="a heartbeat"),
        pytest.param(lambda store, at: store.insert(SESSION, wall_at=at), id="a new session"),
        pytest.param(lambda store, at: store.change_tree("ses_root", revoked, wall_at=at), id="a revocation"),
        pytest.param(lambda store, at: store.purge(over_before=at, limit=9, wall_at=at), id="a purge"),
        pytest.param(lambda store, at: store.freeze(make_freeze("default", set_at=at)), id="a freeze"),
        pytest.param(
            lambda store, at: store.activate_bundle(make_bundle("v1", activated_at=at), b"", unchanged), id="a bundle"
        ),
    ],
)
def test_no_write_pushes_the_mark_beyond_the_time_of_the_database(store: PostgresSessionStore, write: Write) -> None:
    """It never falls again, and would end the sessions of all: the write is refused whole."""
    before = store.high_water_at(), store.head().revision, store.count_by_state()
    with pytest.raises(StoreUnavailableError, match="seconds ahead of that of the database; nothing was written"):
        write(store, TOMORROW)

    assert before == (store.high_water_at(), store.head().revision, store.count_by_state())


def test_a_mark_that_is_ahead_already_keeps_no_write_back(server: PostgresServer, store: PostgresSessionStore) -> None:
    """Each write is for that time then, and pushes nothing."""
    with server.connect() as connection:
        connection.execute("UPDATE pdp_sessions.meta SET high_water_at = %s", (TOMORROW,))
    store.touch(wall_at=TOMORROW)

    assert TOMORROW == store.high_water_at()


def test_people_take_a_mark_back_that_is_ahead(
    server: PostgresServer, conninfo: str, store: PostgresSessionStore
) -> None:
    """`pdp store restore`: nothing stays live that rests on it, also not what had ended by it; and time goes on."""
    now = SystemClock().now()

    def waits(name: str, seconds: float) -> Session:
        end = Deadline(wall_at=now.wall_at + seconds, boot_at=0.0, boot_id="another boot")
        return make_session(name, deadline=end)

    def state(session: Session) -> SessionState:
        view = store.view(session.handle_digest)
        return state_of(view.chain[0], no_earlier(now, view.high_water_at))

    early, late, after = waits("early", 3600.0), waits("late", 2 * 86_400.0), waits("after", 3600.0)
    store.insert(early, wall_at=now.wall_at)
    with server.connect() as connection:
        # As the clock of the database has had them write.
        connection.execute("UPDATE pdp_sessions.meta SET high_water_at = %s", (TOMORROW,))
    store.insert(late, wall_at=TOMORROW)
    before = [state(one) for one in (early, late)]
    accept(conninfo, now=now, keep_sessions=True)
    kept = store.high_water_at()
    accept(conninfo, now=now)
    store.insert(after, wall_at=now.wall_at)

    assert [SessionState.EXPIRED] * 2 == before
    assert TOMORROW == kept
    assert now.wall_at - 1.0 <= store.high_water_at() <= time.time() + 1.0
    assert [SessionState.REVOKED, SessionState.REVOKED, SessionState.ACTIVE] == [
        state(one) for one in (early, late, after)
    ]


@pytest.mark.parametrize("leased", [False, True])
def test_a_machine_that_is_behind_goes_by_the_database(conninfo: str, tmp_path: Path, *, leased: bool) -> None:
    """No session lasts longer on it, whether it asks or answers from memory."""
    clock = shared(-0.4 if leased else -3600.0)
    lease = LeaseTerms(file=tmp_path / "lease", seconds=60.0, clock=clock.machine) if leased else None
    with closing(PostgresSessionStore(conninfo, **PATIENT, clock=clock, lease=lease)) as store:
        store.insert(SESSION, wall_at=1000.0)
        if leased:
            wait_until(lambda: bool(store.view(SESSION.handle_digest).chain) and _remembers(store))
            store._watcher._connection.close()  # type: ignore[attr-defined]
        clock.behind = 0.0
        store.view(SESSION.handle_digest, labels=False)
        now = time.time()

        assert now <= clock.now().wall_at


def test_a_machine_that_is_far_ahead_answers_nothing(conninfo: str, tmp_path: Path) -> None:
    """It would end sessions, and count in windows that have not begun; so its server does not start either."""
    (tmp_path / "postgres").touch(mode=0o600)
    (tmp_path / "postgres").write_text(conninfo, encoding="utf-8")
    sessions = SessionSettings(store="postgres", postgres_file=str(tmp_path / "postgres"))
    settings = replace(settings_in(tmp_path), sessions=sessions)
    write_folder(tmp_path / "policies", notes_bundle())
    prepare(settings, development=True)
    with pytest.raises(StoreUnavailableError, match=r"seconds ahead of that of the database$"):
        App(settings, clock=MovableClock(60.0))


def _remembers(store: PostgresSessionStore) -> bool:
    """Say whether the next view is answered from memory, under a lease."""
    watcher = store._watcher
    assert isinstance(watcher, PostgresWatcher)
    lease = watcher._leased()
    return lease is not None and watcher._has(lease.head)
