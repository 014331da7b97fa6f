"""Events for receivers: both stores pass the contract, and an ending stands where no event can be written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import apsw
import pytest

from pdp.errors import StoreUnavailableError
from pdp.model import SessionState
from pdp.sessions import access
from pdp.sessions.access import AccessState
from pdp.sessions.history import MemorySessionHistory
from pdp.sessions.historycontract import SessionHistory
from pdp.sessions.memory import MemorySessionStore
from pdp.sessions.memoryoutbox import MemoryOutbox
from pdp.sessions.outbox import OutboxEvent, Topic
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.sessions.sqlitehistory import SQLiteSessionHistory
from pdp.sessions.sqlitetables import OUTBOX_SCHEMA
from pdp.sessions.sqloutbox import SQLOutbox
from pdp.sessions.store import SessionStore
from pdp.sessions.values import Cut, SessionFilter
from pdp.testing.stores.access import at, request
from pdp.testing.stores.samples import make_freeze, make_session, revoked, successor_of
from pdp.testing.stores.telling import TellingAccessContract, TellingStoreContract

FULL = "CREATE TRIGGER full BEFORE INSERT ON outbox BEGIN SELECT RAISE(ABORT, 'no room'); END"


class TestTellingMemoryStore(TellingStoreContract):
    """The store in memory."""

    def make_store(self, folder: Path) -> SessionStore:  # noqa: ARG002 - nothing is kept in files
        """Return an empty store that tells."""
        return MemorySessionStore(tells=True)

    def make_silent_store(self, folder: Path) -> SessionStore:  # noqa: ARG002 - the same
        """Return one that does not."""
        return MemorySessionStore()


class TestTellingSQLiteStore(TellingStoreContract):
    """The store in a file."""

    def make_store(self, folder: Path) -> SessionStore:
        """Return an empty store that tells."""
        return SQLiteSessionStore(folder / "sessions.db", tells=True)

    def make_silent_store(self, folder: Path) -> SessionStore:
        """Return one that does not."""
        return SQLiteSessionStore(folder / "sessions.db")


class TestTellingMemoryHistory(TellingAccessContract):
    """The history in memory."""

    def make_store(self, folder: Path) -> SessionHistory:  # noqa: ARG002 - nothing is kept in files
        """Return an empty history that tells."""
        return MemorySessionHistory(tells=True)


class TestTellingSQLiteHistory(TellingAccessContract):
    """The history in a file."""

    def make_store(self, folder: Path) -> SessionHistory:
        """Return an empty history that tells."""
        return SQLiteSessionHistory(folder / "history.db", tells=True)


def _sqlite_outbox() -> SQLOutbox:
    connection = apsw.Connection(":memory:")
    connection.execute(OUTBOX_SCHEMA)
    connection.execute("CREATE TABLE meta (missed_events); INSERT INTO meta VALUES (0)")
    return SQLOutbox(connection, tells=True, counter="meta", most=3)


@pytest.mark.parametrize("make", [_sqlite_outbox, partial(MemoryOutbox, tells=True, most=3)])
def test_of_too_many_events_the_oldest_go(make: Callable[[], SQLOutbox | MemoryOutbox]) -> None:
    """They are counted as missed, until that was passed on."""
    outbox = make()
    for number in range(5):
        outbox.add([OutboxEvent(id=f"evt_{number}", topic=Topic.SESSION_REVOKED, at=1.0)])
    found = outbox.untold(9)
    outbox.forget(found)

    assert ([one.id for one in found.events], found.missed) == (["evt_2", "evt_3", "evt_4"], 2)
    assert outbox.untold(9) == ((), 0)


@pytest.fixture
def full(tmp_path: Path) -> Iterator[SQLiteSessionStore]:
    """Give a store with a waiting and an active session, and no room for another event."""
    path = tmp_path / "sessions.db"
    with closing(SQLiteSessionStore(path, tells=True)) as store:
        store.insert(make_session("active"), wall_at=1000.0)
        store.insert(make_session("waiting", state=SessionState.REQUESTED), wall_at=1000.0)
        store.forget_told(store.untold(limit=9))
        with closing(apsw.Connection(str(path))) as connection:
            connection.execute(FULL)
        yield store


ENDINGS: dict[str, Callable[[SQLiteSessionStore], object]] = {
    "revoke": lambda store: store.change_tree("ses_active", revoked, wall_at=1001.0),
    "revoke many": lambda store: store.change_where(SessionFilter(id="ses_active"), revoked, wall_at=1001.0),
    "cut": lambda store: store.cut(Cut(tenant="default", at=1001.0, by="lead", reason="gone")),
    "deny": lambda store: store.update(
        [successor_of(store.get("ses_waiting")[0], state=SessionState.DENIED)], wall_at=1001.0
    ),
}


@pytest.mark.parametrize("end", ENDINGS.values(), ids=list(ENDINGS))
def test_an_ending_stands_without_its_event(
    full: SQLiteSessionStore, end: Callable[[SQLiteSessionStore], object]
) -> None:
    """It is made, and that its event is missing is counted."""
    end(full)
    states = {full.get("ses_active")[0].state, full.get("ses_waiting")[0].state}

    assert states & {SessionState.REVOKED, SessionState.DENIED}
    assert full.untold(limit=9) == ((), 1)


def test_a_freeze_stands_without_its_event(full: SQLiteSessionStore) -> None:
    """As what ends authority."""
    full.freeze(make_freeze("default"))

    assert full.freezes() == (make_freeze("default"),)
    assert full.untold(limit=9) == ((), 1)


def test_nothing_opens_without_its_event(full: SQLiteSessionStore) -> None:
    """What gives authority fits with its event or not at all."""
    with pytest.raises(StoreUnavailableError):
        full.insert(make_session("new"), wall_at=1001.0)

    assert full.get("ses_new") == ()
    assert full.untold(limit=9) == ((), 0)


def test_a_no_to_a_call_stands_without_its_event(tmp_path: Path) -> None:
    """As for sessions."""
    path = tmp_path / "history.db"
    with closing(SQLiteSessionHistory(path, tells=True)) as history:
        requests = history.access()
        requests.ask(request(), b"{}", at(1000.0))
        requests.forget_told(requests.untold(limit=9))
        with closing(apsw.Connection(str(path))) as connection:
            connection.execute(FULL)
        denied = requests.answer("acc_1", partial(access.deny, now=at(1001.0), by="ann", reason="no"))

        assert requests.get("acc_1") == denied
        assert requests.untold(limit=9) == ((), 1)


@pytest.mark.parametrize("all_at_once", [False, True])
def test_an_answer_that_may_have_been_written_is_given_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, all_at_once: bool
) -> None:
    """The second try finds what the first has written, and returns it; it does not take it for another's."""
    deny = partial(access.deny, now=at(1001.0), by="ann", reason="no")
    with closing(SQLiteSessionHistory(tmp_path / "history.db", tells=True)) as history:
        requests = history.access()
        requests.ask(request(), b"{}", at(1000.0))
        requests.forget_told(requests.untold(limit=9))
        durably, lost = history._durably, iter([True])

        @contextmanager
        def unsure() -> Iterator[None]:
            with durably():
                yield
            if next(lost, False):
                raise StoreUnavailableError("the write may or may not have been made")

        monkeypatch.setattr(requests, "_writing", unsure)
        denied = requests.answer_all(["acc_1"], deny) if all_at_once else (requests.answer("acc_1", deny),)

        assert (requests.get("acc_1"),) == denied
        assert denied[0].state is AccessState.DENIED
        assert [one.topic for one in requests.untold(limit=9).events] == [Topic.ACCESS_DENIED]
