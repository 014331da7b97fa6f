"""The SQLite store keeps the contract, alone and with other processes, and refuses what it cannot vouch for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Barrier
from typing import Any, get_type_hints

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdp.clock import Deadline
from pdp.errors import ConflictError, OverloadedError, StoreUnavailableError
from pdp.foundation.sqlite import require_sound_engine
from pdp.model import Scope, Session, SessionState
from pdp.sessions import room
from pdp.sessions.database import SCHEMA_VERSION
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.sessions.store import SessionStore
from pdp.sessions.values import Cut, Expected, SessionFilter
from pdp.testing.stores.contract import StoreContract
from pdp.testing.stores.samples import (
    insert_family,
    insert_over,
    make_bundle,
    make_freeze,
    make_scope,
    make_session,
    revoked,
    successor_of,
    unchanged,
)

PROCESS = Path(__file__).with_name("store_process.py")
NOBODY = b"\0" * 32
# Brings a file back to before there were events.
BEFORE_EVENTS = """
DROP TABLE writes;
DROP TABLE freezes;
DROP INDEX sessions_of_user; CREATE INDEX sessions_by_user ON sessions (user, requested_at, id);
DROP INDEX sessions_of_agent; CREATE INDEX sessions_by_agent ON sessions (agent, requested_at, id);
DROP INDEX sessions_unexpired; ALTER TABLE sessions DROP COLUMN expiry_noted;
DROP TABLE outbox; ALTER TABLE meta DROP COLUMN missed_events;
"""

Two = tuple[SQLiteSessionStore, SQLiteSessionStore]


class TestSQLiteSessionStore(StoreContract):
    """Run the published suite."""

    def make_store(self, folder: Path) -> SessionStore:
        """Return an empty store."""
        return SQLiteSessionStore(folder / "store" / "sessions.db")


class TestForgetfulSQLiteSessionStore(StoreContract):
    """Run the published suite on a store that can remember next to nothing."""

    forgetful = True

    def make_store(self, folder: Path) -> SessionStore:
        """Return an empty store."""
        return SQLiteSessionStore(folder / "sessions.db", sessions_kept=1, changes_kept=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a store that does not exist yet."""
    return tmp_path / "store" / "sessions.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteSessionStore]:
    """Give a store that does not wait long for locks."""
    with closing(SQLiteSessionStore(path, busy_seconds=0.05)) as store:
        yield store


class Stopwatch:
    """A monotonic clock that tests move."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        """Return the present reading in seconds."""
        return self.seconds


@pytest.fixture
def stopwatch() -> Stopwatch:
    """Give the clock of the store `watched`."""
    return Stopwatch()


@pytest.fixture
def watched(path: Path, stopwatch: Stopwatch) -> Iterator[SQLiteSessionStore]:
    """Give a store that trusts what it remembers for a second of `stopwatch`."""
    with closing(SQLiteSessionStore(path, trust_seconds=1.0, monotonic=stopwatch)) as store:
        yield store


def patient(path: Path) -> SQLiteSessionStore:
    """Return a store that waits for others however slow the disk is."""
    return SQLiteSessionStore(path, busy_seconds=120.0)


@pytest.fixture
def two(path: Path) -> Iterator[Two]:
    """Give two stores on one file, as two processes have them."""
    with closing(patient(path)) as here, closing(patient(path)) as there:
        yield here, there


# With others on the same file


def test_an_insert_elsewhere_is_seen_at_the_next_view(two: Two) -> None:
    """A handle that was unknown before is found."""
    here, there = two
    session = make_session("a")
    before = here.view(session.handle_digest).chain
    there.insert(session, wall_at=1000.0)

    assert (before, here.view(session.handle_digest).chain) == ((), (session,))


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
    two: Two, write: Callable[[SessionStore, Session], Any]
) -> None:
    """A session that is remembered here is read again, also as an ancestor, whichever method wrote it."""
    here, there = two
    root, _, grandchild = insert_family(here)
    here.view(root.handle_digest)
    here.view(grandchild.handle_digest)
    write(there, root)

    assert here.view(grandchild.handle_digest).chain[-1] == revoked(root)
    assert here.view(root.handle_digest).chain == (revoked(root),)
    assert here.get(root.id) == (revoked(root),)


def test_a_removal_elsewhere_is_seen_at_the_next_view(two: Two) -> None:
    """A session that is remembered here is unknown once another process has removed it, and so are those above it."""
    here, there = two
    root = insert_over(here, "root")
    child = insert_over(here, "child", root)
    here.view(child.handle_digest)
    removed = [there.purge(over_before=3000.0, limit=1, wall_at=3000.0) for _ in range(2)]

    assert removed == [1, 1]
    assert here.view(child.handle_digest).chain == here.view(root.handle_digest).chain == ()


def test_a_scope_goes_with_its_last_session(store: SQLiteSessionStore) -> None:
    """A scope stays while any session has it, and what a session had before it was narrowed goes too."""
    wide, narrow, other = make_scope("a", "b"), make_scope("a"), make_scope("c")
    over = insert_over(store, "over", scope=wide)
    store.update([successor_of(over, scope=narrow)], wall_at=1000.0)
    insert_over(store, "second", scope=other)
    store.insert(make_session("live", scope=other), wall_at=1000.0)
    store.purge(over_before=3000.0, limit=9, wall_at=3000.0)

    assert [scope_id for (scope_id,) in store._connection.execute("SELECT id FROM scopes")] == [other.id]
    assert store.get("ses_live")[0].scope == other


Sweep = Callable[[SessionStore, Callable[[Session], Session | None]], tuple[Session, ...]]
SWEEPS = [
    pytest.param(lambda store, change: store.change_where(SessionFilter(), change, wall_at=1.0), id="where"),
    pytest.param(lambda store, change: store.activate_bundle(make_bundle("v1"), b"", change), id="bundle"),
]


@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_change_meets_what_was_written_while_it_was_worked_out(two: Two, sweep: Sweep) -> None:
    """What a change of many does to a session, it does to the latest of it; and no session is left out."""
    here, there = two
    session, late = make_session("a"), make_session("b")
    here.insert(session, wall_at=1000.0)
    meanwhile = [
        lambda: there.update([successor_of(session, labels=("changed",))], wall_at=1000.0),
        lambda: there.insert(late, wall_at=1000.0),
    ]

    def change(stored: Session) -> Session | None:
        while meanwhile:
            meanwhile.pop()()
        return revoked(stored)

    written = sweep(here, change)

    assert [revoked(successor_of(session, labels=("changed",))), revoked(late)] == list(written)
    assert there.view(late.handle_digest).chain == (revoked(late),)


@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_change_leaves_what_ended_while_it_was_worked_out(two: Two, sweep: Sweep) -> None:
    """A session that somebody else closed meanwhile is not closed twice."""
    here, there = two
    session = make_session("a")
    here.insert(session, wall_at=1000.0)

    def change(stored: Session) -> Session | None:
        if stored == session:
            there.change_tree(session.id, revoked, wall_at=1000.0)
        return revoked(stored)

    assert sweep(here, change) == ()
    assert here.get(session.id) == (revoked(session),)


def test_sessions_with_equal_texts_share_them(path: Path) -> None:
    """However many sessions a user has, what the directory said about them is in memory once."""
    known = '[{"uid": {"type": "User", "id": "ada"}}]'
    sessions = [make_session(name, entities_json=known, grants=("merge",)) for name in "ab"]
    with closing(SQLiteSessionStore(path)) as store:
        for session in sessions:
            store.insert(session, wall_at=1000.0)
        first, second = (store.view(session.handle_digest).chain[0] for session in sessions)

    assert first.entities_json is second.entities_json
    assert first.grants[0] is second.grants[0]


def test_an_activation_elsewhere_is_seen_at_the_next_view(two: Two) -> None:
    """The active bundle is the same everywhere at once."""
    here, there = two
    before = here.view(NOBODY).bundle
    bundle = make_bundle("v1")
    there.activate_bundle(bundle, b"one", unchanged)

    assert (before, here.view(NOBODY).bundle) == (None, bundle)
    assert (here.active_bundle(), here.bundle_content("v1")) == (bundle, b"one")


def test_the_high_water_mark_is_seen_at_the_next_view(two: Two) -> None:
    """A touch elsewhere changes no session, and is seen all the same."""
    here, there = two
    session = make_session("a")
    here.insert(session, wall_at=1000.0)
    here.view(session.handle_digest)
    there.touch(wall_at=5000.0)

    assert here.view(session.handle_digest).high_water_at == 5000.0


def test_a_change_elsewhere_leaves_other_sessions_in_memory(two: Two) -> None:
    """Only what changed is read again: the object of another session is the same as before."""
    here, there = two
    kept, changed = make_session("a"), make_session("b")
    here.insert(kept, wall_at=1000.0)
    here.insert(changed, wall_at=1000.0)
    before = here.view(kept.handle_digest).chain[0]
    there.change_tree(changed.id, revoked, wall_at=1000.0)

    assert here.view(changed.handle_digest).chain == (revoked(changed),)
    assert here.view(kept.handle_digest).chain[0] is before


def test_who_missed_too_many_changes_reads_everything_again(path: Path) -> None:
    """Changes are not kept for ever, and a store that slept through their removal misses nothing."""
    with closing(SQLiteSessionStore(path)) as sleeper, closing(SQLiteSessionStore(path, changes_kept=5)) as writer:
        sessions = [make_session(f"s{number}") for number in range(8)]
        for session in sessions:
            sleeper.insert(session, wall_at=1000.0)
            sleeper.view(session.handle_digest)
        for session in sessions:
            writer.change_tree(session.id, revoked, wall_at=1000.0)

        assert [sleeper.view(session.handle_digest).chain[0] for session in sessions] == [*map(revoked, sessions)]
        assert query(path, "SELECT count(*) FROM changes") == [(5,)]


def test_a_race_across_stores_has_one_winner(two: Two) -> None:
    """Of eight threads on two stores that write the same successor at once, one succeeds."""
    session = make_session("a")
    two[0].insert(session, wall_at=1000.0)
    start = Barrier(8)

    def race(number: int) -> bool:
        start.wait(timeout=30)
        try:
            two[number % 2].update([successor_of(session)], wall_at=1000.0)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(race, range(8)))

    assert won.count(True) == 1
    assert two[1].get(session.id) == (successor_of(session),)


def test_stores_that_start_together_share_one_file(path: Path) -> None:
    """Of stores that create the same file at once, all open the one that came first."""
    start = Barrier(8)

    def begin(number: int) -> SQLiteSessionStore:
        start.wait(timeout=30)
        store = patient(path)
        store.insert(make_session(f"s{number}"), wall_at=1000.0)
        return store

    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(begin, range(8)))

    found = [len(store.select(SessionFilter(), limit=99)) for store in stores]
    for store in stores:
        store.close()
    assert found == [8] * 8


def test_two_processes_see_each_other_at_the_next_view(path: Path) -> None:
    """Inserts, revocations and activations of one process are in the other's very next view, both ways."""
    with process(path, "obey") as first, process(path, "obey") as second:
        answers = [
            ask(first, "insert a"),
            ask(second, "view a"),
            ask(second, "revoke a"),
            ask(first, "view a"),
            ask(first, "activate v1"),
            ask(second, "view a"),
            ask(second, "activate v2"),
            ask(first, "view a"),
        ]

    assert answers == [
        "active -",
        "active -",
        "revoked -",
        "revoked -",
        "- v1",
        "revoked v1",
        "- v2",
        "revoked v2",
    ]


@pytest.mark.parametrize("rounds", [3, pytest.param(100, marks=pytest.mark.long)])
def test_what_was_acknowledged_survives_a_kill(path: Path, rounds: int) -> None:
    """After `kill -9` of a writing process every write that it saw acknowledged is there, without repair."""
    acknowledged: dict[str, int] = {}
    for number in range(rounds):
        with process(path, "write", f"round{number}") as writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline() for _ in range(10 + 37 * number % 101)]
            writer.kill()
            lines += writer.stdout.readlines()
        acknowledged |= {session_id: int(epoch) for session_id, epoch in (line.split() for line in lines)}

    with closing(SQLiteSessionStore(path)) as store:
        # The last write may have been committed and not yet acknowledged.
        lost = [
            session_id
            for session_id, epoch in acknowledged.items()
            if not (chain := store.get(session_id)) or chain[0].epoch < epoch
        ]
    assert len(acknowledged) >= 5 * rounds
    assert lost == []


# Nothing is lost


def sessions() -> st.SearchStrategy[Session]:
    """Return any session, by reflection: a field that is added is filled by its type."""
    finite = st.floats(allow_nan=False, allow_infinity=False)
    special: dict[Any, st.SearchStrategy[Any]] = {
        float: finite,
        Deadline: st.builds(Deadline, wall_at=finite, boot_at=finite),
        Mapping[str, str]: st.dictionaries(st.text(), st.text()),
        Scope | None: st.none() | st.lists(st.text()).map(lambda tools: make_scope(*tools)),
    }
    types = get_type_hints(Session)
    return st.fixed_dictionaries(
        {name: special[kind] if kind in special else st.from_type(kind) for name, kind in types.items()}
    ).map(lambda values: Session(**values))


@settings(max_examples=60, deadline=None)
@given(session=sessions(), depth=st.integers(0, 3))
def test_a_session_comes_back_as_it_was(session: Session, depth: int) -> None:
    """Every field of every session survives being written by one store and read by another."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "sessions.db"
        with closing(SQLiteSessionStore(path)) as here, closing(SQLiteSessionStore(path)) as there:
            parent = None
            for level in range(depth):
                parent = make_session(f"level{level}", parent)
                here.insert(parent, wall_at=1000.0)
            first = replace(
                session,
                epoch=1,
                parent_id=parent.id if parent else "",
                ancestor_ids=(parent.id, *parent.ancestor_ids) if parent else (),
            )
            here.insert(first, wall_at=1000.0)
            inserted = there.view(first.handle_digest).chain
            here.update([successor_of(first)], wall_at=1000.0)

            assert inserted[0] == first
            assert there.get(first.id)[0] == successor_of(first)
            assert types_of(inserted[0]) == types_of(first)


def types_of(session: Session) -> list[type]:
    """Return the types of all fields: equal values may be of unequal types, such as `1` and `1.0`."""
    return [type(getattr(session, field.name)) for field in fields(session)]


# When the data cannot be read or written


def test_a_locked_store_is_unavailable_for_writes(store: SQLiteSessionStore, path: Path) -> None:
    """While another process keeps the write lock, writes are refused after a pause and views answer what is stored."""
    session = make_session("a")
    store.insert(session, wall_at=1000.0)
    with closing(apsw.Connection(str(path))) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OverloadedError, match="busy with other programs; nothing was written"):
            store.update([successor_of(session)], wall_at=1000.0)
        during = store.view(session.handle_digest).chain
        other.execute("ROLLBACK")
    store.update([successor_of(session)], wall_at=1000.0)

    assert during == (session,)
    assert store.view(session.handle_digest).chain == (successor_of(session),)


def test_what_ends_authority_waits_longer_for_others(
    store: SQLiteSessionStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The activation of a bundle can write longer than others wait."""
    store.insert(make_session("a"), wall_at=1000.0)
    tries, begin = list[None](), store._begin
    with closing(apsw.Connection(str(path))) as other:
        other.execute("BEGIN IMMEDIATE")

        def begins() -> None:
            tries.append(None)
            if len(tries) == 3:
                other.execute("ROLLBACK")
            begin()

        monkeypatch.setattr(store, "_begin", begins)
        (written,) = store.change_tree("ses_a", revoked, wall_at=1000.0)

    assert (SessionState.REVOKED, 3) == (written.state, len(tries))


def test_a_write_does_not_wait_for_ever_for_its_own_process(store: SQLiteSessionStore) -> None:
    """A change that itself writes to the store gets an error instead of blocking both."""
    store.insert(make_session("a"), wall_at=1000.0)

    def write_within(_: Session) -> None:
        store.touch(wall_at=1000.0)

    with pytest.raises(OverloadedError):
        store.change_tree("ses_a", write_within, wall_at=1000.0)
    store.touch(wall_at=1000.0)


@pytest.mark.parametrize("content", [b"", b"not a database, but long enough to look like one " * 100])
def test_a_file_that_is_no_store_is_refused(path: Path, content: bytes) -> None:
    """An empty file or one with other content is left as it is."""
    path.parent.mkdir()
    path.write_bytes(content)

    with pytest.raises(StoreUnavailableError, match="not a session store"):
        SQLiteSessionStore(path)
    assert path.read_bytes() == content


def test_a_database_of_somebody_else_is_refused(path: Path) -> None:
    """Another program's SQLite database gets no tables of ours."""
    path.parent.mkdir()
    query(path, "CREATE TABLE songs (title)")

    with pytest.raises(StoreUnavailableError, match="not a session store"):
        SQLiteSessionStore(path)
    assert query(path, "SELECT name FROM sqlite_schema") == [("songs",)]


def test_a_damaged_file_is_unavailable(path: Path) -> None:
    """Pages that were overwritten give an error at the first look that needs them, never an unknown session."""
    session = make_session("a")
    with closing(SQLiteSessionStore(path)) as store:
        store.insert(session, wall_at=1000.0)
    with path.open("r+b") as file:
        # The first page holds the schema; it stays readable.
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))

    with pytest.raises(StoreUnavailableError):
        look(path, session)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param("UPDATE sessions SET session_json = 'canary' WHERE id = 'ses_child'", id="no JSON"),
        pytest.param("UPDATE sessions SET session_json = '[\"canary\"]' WHERE id = 'ses_child'", id="no object"),
        pytest.param("UPDATE sessions SET session_json = '{\"canary\": 1}' WHERE id = 'ses_child'", id="no session"),
        pytest.param(
            "UPDATE sessions SET session_json = json_set(session_json, '$.state', 'canary') WHERE id = 'ses_child'",
            id="state",
        ),
        pytest.param(
            "UPDATE sessions SET session_json = json_set(session_json, '$.canary', 1) WHERE id = 'ses_child'",
            id="field",
        ),
        pytest.param("DELETE FROM sessions WHERE id = 'ses_root'", id="ancestor"),
        pytest.param("DELETE FROM scopes", id="no scope"),
        pytest.param("UPDATE scopes SET tools_json = 'canary'", id="scope"),
        pytest.param("UPDATE scopes SET tools_json = '[\"canary\"]'", id="scope of another shape"),
    ],
)
def test_a_damaged_row_is_unavailable(path: Path, damage: str) -> None:
    """A session that cannot be read as a whole is an error that quotes nothing, never a part of a session."""
    root = make_session("root")
    child = make_session("child", root, scope=make_scope("git/log"))
    with closing(SQLiteSessionStore(path)) as store:
        store.insert(root, wall_at=1000.0)
        store.insert(child, wall_at=1000.0)
    query(path, damage)

    with closing(SQLiteSessionStore(path)) as store:
        with pytest.raises(StoreUnavailableError) as caught:
            store.view(child.handle_digest)
        # The error, which is still held here, keeps no snapshot open.
        store.touch(wall_at=5000.0)
        mark = store.view(NOBODY).high_water_at
    assert "canary" not in str(caught.value)
    assert mark == 5000.0


def test_a_store_of_a_newer_program_is_refused(path: Path) -> None:
    """A file with a later schema version is not opened, and the message says what to do."""
    SQLiteSessionStore(path).close()
    query(path, "UPDATE meta SET schema_version = schema_version + 1")

    with pytest.raises(StoreUnavailableError, match=f"schema `{SCHEMA_VERSION + 1}`.*upgrade the program"):
        SQLiteSessionStore(path)


def test_a_newer_program_may_come_while_the_store_is_open(
    watched: SQLiteSessionStore, stopwatch: Stopwatch, path: Path
) -> None:
    """Once a newer program has changed the schema, neither looks nor writes answer."""
    session = make_session("a")
    watched.insert(session, wall_at=1000.0)
    watched.view(session.handle_digest)
    query(path, "UPDATE meta SET schema_version = schema_version + 1")
    stopwatch.seconds += 1.0

    with pytest.raises(StoreUnavailableError, match="upgrade"):
        watched.view(session.handle_digest)
    with pytest.raises(StoreUnavailableError, match="upgrade"):
        watched.touch(wall_at=1000.0)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_was_taken_away_is_unavailable(
    watched: SQLiteSessionStore, stopwatch: Stopwatch, path: Path, *, replaced: bool
) -> None:
    """Once the path leads elsewhere, others no longer write where we look: no old answer, no lost write."""
    session = make_session("a")
    watched.insert(session, wall_at=1000.0)
    watched.view(session.handle_digest)
    path.rename(path.with_name("moved.db"))
    if replaced:
        path.write_bytes(b"")
    stopwatch.seconds += 1.0

    with pytest.raises(StoreUnavailableError, match="moved, removed or replaced"):
        watched.view(session.handle_digest)
    with pytest.raises(StoreUnavailableError, match="moved, removed or replaced"):
        watched.touch(wall_at=1000.0)


def test_memory_is_trusted_for_a_bounded_time(watched: SQLiteSessionStore, stopwatch: Stopwatch, path: Path) -> None:
    """A foreign program announces nothing; what it wrote is seen when the time is over, and not later."""
    session = make_session("a")
    watched.insert(session, wall_at=1000.0)
    watched.view(session.handle_digest)
    query(path, "UPDATE meta SET bundle_version = 'v1', revision = revision + 1")
    early = watched.view(session.handle_digest).bundle
    stopwatch.seconds += 1.0
    late = watched.view(session.handle_digest).bundle

    assert early is None
    assert late is not None


def test_memory_alone_answers_while_it_is_trusted(
    watched: SQLiteSessionStore, stopwatch: Stopwatch, path: Path
) -> None:
    """It tells nothing after a while, after a write by anybody, or while somebody reads."""
    session = make_session("a")
    watched.insert(session, wall_at=1000.0)
    unread = watched.known(session.handle_digest)
    watched.view(session.handle_digest)
    trusted = watched.known(session.handle_digest)
    watcher: Any = watched._watcher
    with watcher._lock:
        held = watched.known(session.handle_digest)
    stopwatch.seconds += 1.0
    late = watched.known(session.handle_digest)
    watched.view(session.handle_digest)
    with closing(SQLiteSessionStore(path)) as other:
        other.touch(wall_at=1001.0)

    assert trusted is not None
    assert trusted.chain == (session,)
    assert (unread, held, late, watched.known(session.handle_digest)) == (None, None, None, None)


def test_memory_that_is_asked_alone_is_kept_as_new(watched: SQLiteSessionStore, stopwatch: Stopwatch) -> None:
    """The database is asked in time while it is; else nobody has a use for it."""
    session = make_session("a")
    watched.insert(session, wall_at=1000.0)
    watcher: Any = watched._watcher
    watched.view(session.handle_digest)
    told = []
    for _ in range(3):
        stopwatch.seconds += 0.6
        told.append(watched.known(session.handle_digest) is not None)
        watcher.look_again()
    watcher.look_again()
    stopwatch.seconds += 1.0

    assert [True, True, True] == told
    assert watched.known(session.handle_digest) is None


class Held:
    """A lock, and how long each has waited for it."""

    def __init__(self) -> None:
        self.held = True
        self.waits: list[bool] = []

    def acquire(self, *, timeout: float) -> bool:
        """Take it unless it is held."""
        self.waits.append(timeout > 0)
        return not self.held

    def release(self) -> None:
        """Give it back."""


def test_one_caller_at_most_waits_in_vain_for_a_long_read(
    watched: SQLiteSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread with many calls would wait a moment for each, while a disk that is slow holds the read up."""
    lock = Held()
    with monkeypatch.context() as patched:
        patched.setattr(watched._watcher, "_lock", lock)
        for lock.held in (True, True, True, False, True):
            watched.known(NOBODY)

    assert lock.waits == [True, False, False, False, True]


@pytest.mark.parametrize("replaced", [False, True])
def test_without_a_shared_signal_every_look_asks_the_database(
    watched: SQLiteSessionStore, stopwatch: Stopwatch, path: Path, *, replaced: bool
) -> None:
    """Who takes the file of the signal away costs time, not safety: a write by a later process is seen at once."""
    session = make_session("a")
    watched.insert(session, wall_at=1000.0)
    watched.view(session.handle_digest)
    path.with_name("sessions.db-signal").unlink()
    stopwatch.seconds += 1.0
    watched.view(session.handle_digest)
    with closing(SQLiteSessionStore(path)) as later:
        if not replaced:
            path.with_name("sessions.db-signal").unlink()
        later.change_tree(session.id, revoked, wall_at=1000.0)

        assert watched.view(session.handle_digest).chain == (revoked(session),)


def test_a_write_that_cannot_be_announced_is_not_acknowledged(
    watched: SQLiteSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other processes could go on with what they remember, so the writer learns nothing good."""

    def full(*_: object) -> int:
        raise OSError(28, "no space")

    session = make_session("a")
    watched.insert(session, wall_at=1000.0)
    monkeypatch.setattr("pdp.sessions.changesignal.os.pwrite", full)

    with pytest.raises(StoreUnavailableError, match="cannot tell other processes"):
        watched.change_tree(session.id, revoked, wall_at=1000.0)


def test_a_backup_may_be_restored_into_an_open_file(
    watched: SQLiteSessionStore, stopwatch: Stopwatch, path: Path
) -> None:
    """When the data goes back to an earlier revision, nothing of the later one is remembered."""
    session = make_session("a")
    watched.insert(session, wall_at=1000.0)
    with closing(apsw.Connection(":memory:")) as backup, closing(apsw.Connection(str(path))) as live:
        with backup.backup("main", live, "main") as copy:
            copy.step()
        watched.change_tree(session.id, revoked, wall_at=1000.0)
        watched.view(session.handle_digest)
        with live.backup("main", backup, "main") as copy:
            copy.step()
    stopwatch.seconds += 1.0

    assert watched.view(session.handle_digest).chain == (session,)


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    """A path below a file is refused with the path in the message."""
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(StoreUnavailableError, match=r"cannot create the session store `.*sessions\.db`"):
        SQLiteSessionStore(tmp_path / "file" / "sessions.db")


def test_a_new_file_has_its_name_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every folder that had to be made, and then the file in it, can be found after a loss of power."""
    synced: list[Path] = []
    monkeypatch.setattr("pdp.sessions.database.sync_folder", synced.append)
    SQLiteSessionStore(tmp_path / "some" / "where" / "sessions.db").close()

    assert synced == [tmp_path / "some", tmp_path, tmp_path / "some" / "where"]


@pytest.mark.parametrize("version", ["3.7.0", "3.46.1", "3.51.2"])
def test_an_engine_that_can_corrupt_is_refused(version: str) -> None:
    """Versions of SQLite before 3.51.3 do not get to write."""
    with pytest.raises(StoreUnavailableError, match=f"SQLite `{version}` can corrupt"):
        require_sound_engine(version)


@pytest.mark.parametrize("version", ["3.51.3", "3.52.0", "4.0.0"])
def test_a_sound_engine_is_accepted(version: str) -> None:
    """Version 3.51.3 of SQLite and all later ones are used."""
    require_sound_engine(version)


# The file


def test_files_are_for_their_owner_only(store: SQLiteSessionStore, path: Path) -> None:
    """The folder has mode 0700; the database and what lies beside it have mode 0600."""
    store.insert(make_session("a"), wall_at=1000.0)
    modes = {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()}

    assert path.parent.stat().st_mode & 0o777 == 0o700
    names = ("sessions.db", "sessions.db-wal", "sessions.db-shm", "sessions.db-signal")
    assert modes == dict.fromkeys(names, 0o600)


def test_a_store_is_durable_and_shared(store: SQLiteSessionStore) -> None:
    """The writing connection uses a write-ahead log, and syncs it before a write is acknowledged."""
    connection = store._connection

    assert (connection.pragma("journal_mode"), connection.pragma("synchronous")) == ("wal", 2)


def test_a_file_that_lost_its_mode_gets_it_again(path: Path) -> None:
    """A store that was dumped and restored into another journal mode is opened in ours."""
    session = make_session("a")
    with closing(SQLiteSessionStore(path)) as store:
        store.insert(session, wall_at=1000.0)
    query(path, "PRAGMA journal_mode=DELETE")

    with closing(SQLiteSessionStore(path)) as store:
        assert store.view(session.handle_digest).chain == (session,)
        assert store._connection.pragma("journal_mode") == "wal"


def test_ten_bundles_are_kept(store: SQLiteSessionStore) -> None:
    """The ten bundles that were activated last have their content, by order of activation and not by clock."""
    for number in range(12):
        store.activate_bundle(make_bundle(f"v{number}", activated_at=9000.0 - number), b"content", unchanged)

    assert [number for number in range(12) if store.bundle_content(f"v{number}") is None] == [0, 1]


def test_as_many_bundles_are_kept_as_wanted(path: Path) -> None:
    """The number of bundles that keep their content is a choice."""
    with closing(SQLiteSessionStore(path, bundles_kept=2)) as store:
        for number in range(4):
            store.activate_bundle(make_bundle(f"v{number}"), b"content", unchanged)

        assert [bundle.version for bundle in store.kept_bundles()] == ["v3", "v2"]
        assert store.bundle_content("v1") is None


FIRST_SCHEMA = Path(__file__).with_name("first_schema.sql")


def test_a_file_of_the_first_schema_is_upgraded(path: Path) -> None:
    """What an earlier program has written is there, and what it could not know is empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute(FIRST_SCHEMA.read_text(encoding="utf-8"))

    with closing(SQLiteSessionStore(path)) as store, closing(SQLiteSessionStore(path)) as other:
        bundle = make_bundle("v1")
        store.activate_bundle(make_bundle("v2", number=3), b"two", unchanged, expected=Expected(version="v1"))

        assert other.kept_bundles() == (make_bundle("v2", number=3), bundle)
        assert other.bundle_content("v1") == b"one"
        assert other.bundle_past("v1").was_active


def test_an_upgrade_finds_scopes_and_ends_of_old_sessions(path: Path) -> None:
    """A scope that a session of an earlier program has stays as long as that session, which counts until its end."""
    scope = make_scope("git/log")
    with closing(SQLiteSessionStore(path)) as store:
        for name, one in (("old", scope), ("none", None)):
            store.insert(make_session(name, scope=one), wall_at=1000.0)
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute(BEFORE_EVENTS)
        connection.execute("DROP INDEX sessions_by_scope; ALTER TABLE sessions DROP COLUMN scope_id")
        connection.execute("DROP INDEX sessions_live; ALTER TABLE sessions DROP COLUMN ends_at; DROP TABLE cuts")
        connection.execute("ALTER TABLE meta DROP COLUMN bundle_counted")
        connection.execute("UPDATE meta SET schema_version = 2")

    with closing(SQLiteSessionStore(path)) as store:
        insert_over(store, "over")
        store.purge(over_before=3000.0, limit=9, wall_at=3000.0)

        assert store.get("ses_old")[0].scope == scope
        assert [("", 1), (scope.id, 1)] == sorted(
            store._connection.execute("SELECT scope_id, count(*) FROM sessions GROUP BY 1")
        )
        assert store.count_live(make_session("old").opened_by, wall_at=1000.0) == 2


def test_an_upgrade_takes_no_label_that_came_later_for_approved(path: Path) -> None:
    """Labels of an old session count as seen by its approver where nothing can have been added; otherwise none do."""
    with closing(SQLiteSessionStore(path)) as store:
        for name in ("approved", "narrowed", "child"):
            store.insert(make_session(name, labels=("a", "b")), wall_at=1000.0)
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute("UPDATE sessions SET session_json = json_remove(session_json, '$.widening_labels')")
        connection.execute("UPDATE sessions SET epoch = iif(id = 'ses_narrowed', 3, 2)")
        connection.execute("UPDATE sessions SET parent_id = 'ses_approved' WHERE id = 'ses_child'")
        connection.execute(BEFORE_EVENTS)
        connection.execute("ALTER TABLE meta DROP COLUMN bundle_counted")
        connection.execute("UPDATE meta SET schema_version = 4")

    with closing(SQLiteSessionStore(path)) as store:
        found = {one.id: one.widening_labels for one in store.select(SessionFilter(), limit=9)}

    assert {"ses_approved": ("a", "b"), "ses_narrowed": (), "ses_child": ()} == found


def test_new_files_have_the_schema_of_upgraded_ones(path: Path, tmp_path: Path) -> None:
    """A file of any age has the same tables."""
    old = tmp_path / "old.sqlite"
    with closing(apsw.Connection(str(old))) as connection:
        connection.execute(FIRST_SCHEMA.read_text(encoding="utf-8"))
    for file in (path, old):
        SQLiteSessionStore(file).close()

    tables = [query(file, "SELECT name, sql FROM sqlite_schema ORDER BY name") for file in (path, old)]
    assert tables[0] == tables[1]


def test_memory_is_bounded(path: Path) -> None:
    """No more sessions are remembered than was asked for, and the last used stay."""
    made = [make_session(f"s{number}") for number in range(5)]
    with closing(SQLiteSessionStore(path, sessions_kept=3)) as store:
        for session in made:
            store.insert(session, wall_at=1000.0)
            store.view(session.handle_digest)
        store.view(made[2].handle_digest)
        store.view(made[0].handle_digest)
        recent = store._watcher._recent

        assert set(recent) == {made[number].handle_digest for number in (4, 2, 0)}
        assert set(recent._digests) == {"ses_s4", "ses_s2", "ses_s0"}


def test_a_nearly_full_disk_takes_only_what_ends_authority(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left is kept for that: nothing is opened, approved or charged, no freeze is lifted, and no time noted."""
    waiting, active, doomed = (
        make_session(name, state=state)
        for name, state in (
            ("waiting", SessionState.REQUESTED),
            ("active", SessionState.ACTIVE),
            ("doomed", SessionState.ACTIVE),
        )
    )
    with closing(SQLiteSessionStore(path, reserve_bytes=4096)) as store:
        for session in (waiting, active, doomed):
            store.insert(session, wall_at=1000.0)
        monkeypatch.setattr(room, "free_bytes", lambda _: 4095)

        for act in (
            lambda: store.insert(make_session("new"), wall_at=1000.0),
            lambda: store.update([successor_of(waiting, state=SessionState.ACTIVE)], wall_at=1000.0),
            lambda: store.settle([active], frozenset(), by="dec_1", wall_at=1000.0),
            lambda: store.change_freeze("frz_all", lambda _: None, wall_at=1000.0),
            lambda: store.touch(wall_at=1000.0),
        ):
            with pytest.raises(StoreUnavailableError, match="nearly full"):
                act()
        store.update([successor_of(doomed, state=SessionState.REVOKED, reason="r")], wall_at=1000.0)
        store.freeze(make_freeze(""))
        store.cut(Cut(tenant="default", at=1001.0, by="lead", reason="r"))
        states = [store.get(session.id)[0].state for session in (waiting, active, doomed)]
        monkeypatch.setattr(room, "free_bytes", lambda _: 4096)
        store.touch(wall_at=1000.0)

    assert [SessionState.REVOKED] * 3 == states


def test_lists_use_indexes(store: SQLiteSessionStore, path: Path) -> None:
    """Neither a page of sessions nor a family is found by reading the whole table."""
    insert_family(store)
    plans = [
        query(path, "EXPLAIN QUERY PLAN SELECT id FROM sessions ORDER BY requested_at DESC, id DESC LIMIT 9"),
        query(path, "EXPLAIN QUERY PLAN SELECT id FROM sessions WHERE user = 'a' ORDER BY requested_at DESC, id DESC"),
        query(path, "EXPLAIN QUERY PLAN SELECT id FROM sessions WHERE parent_id = 'a'"),
        query(path, "EXPLAIN QUERY PLAN SELECT id FROM sessions WHERE handle_digest = x'00'"),
    ]

    assert ["INDEX" in str(plan) and "TEMP B-TREE" not in str(plan) for plan in plans] == [True] * 4


@pytest.mark.parametrize(
    ("which", "index"),
    [
        (SessionFilter(tenant="a"), "sessions_by_age"),
        (SessionFilter(tenant="a", opened_by="a"), "sessions_by_age"),
        (SessionFilter(tenant="a", states=frozenset({SessionState.REQUESTED})), "sessions_by_state"),
        (SessionFilter(tenant="a", user="a"), "sessions_of_user"),
        (SessionFilter(tenant="a", agent="a"), "sessions_of_agent"),
    ],
)
def test_a_list_of_a_tenant_is_read_in_its_order(store: SQLiteSessionStore, which: SessionFilter, index: str) -> None:
    """By an index that has that order, so that a page does not sort all that it does not show."""
    asked: list[tuple[str, Any]] = []

    def note(_: object, sql: str, values: Any) -> bool:
        asked.append((sql, values))
        return True

    store._connection.exec_trace = note
    store.select(which, limit=9)
    store._connection.exec_trace = None
    ((sql, values),) = [one for one in asked if one[0].startswith("SELECT session_json")]
    ((*_, plan),) = store._connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)

    assert index in plan


# Means


def look(path: Path, session: Session) -> None:
    """Open a store, and view a session."""
    with closing(SQLiteSessionStore(path)) as store:
        store.view(session.handle_digest)


def query(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """Run a statement on the file past any store."""
    with closing(apsw.Connection(str(path))) as connection:
        return [*connection.execute(sql)]


@contextmanager
def process(path: Path, *task: str) -> Iterator[subprocess.Popen[str]]:
    """Run `store_process.py` on a store, and see that it ends."""
    command = [sys.executable, str(PROCESS), str(path), *task]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def ask(child: subprocess.Popen[str], command: str) -> str:
    """Send one command, and return the answer."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(f"{command}\n")
    child.stdin.flush()
    return child.stdout.readline().strip()
