"""A backup takes the place of a store, and brings nothing back that was taken away since."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from pdp.clock import Deadline, Instant
from pdp.errors import StoreUnavailableError
from pdp.model import Session, SessionState
from pdp.sessions.care import backup, inspect
from pdp.sessions.database import SCHEMA_VERSION
from pdp.sessions.restoring import restore
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.testing.stores.samples import make_bundle, make_session, successor_of, unchanged

NOW = Instant(wall_at=3000.0, boot_at=2100.0, boot_id="boot-1")
FIRST_SCHEMA = Path(__file__).with_name("first_schema.sql")
LIVE, ASKED, OVER = make_session("live"), make_session("asked", state=SessionState.REQUESTED), make_session("over")
CHILD = make_session("child", LIVE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the file of a closed store with a live session and its child, a request, and one that is over."""
    path = tmp_path / "store" / "sessions.sqlite"
    with closing(SQLiteSessionStore(path)) as store:
        for session in (LIVE, CHILD, ASKED, OVER):
            store.insert(session, wall_at=1000.0)
        store.update([successor_of(OVER, state=SessionState.ENDED)], wall_at=2000.0)
    return path


@pytest.fixture
def saved(path: Path, tmp_path: Path) -> Path:
    """Return a backup of that store."""
    backup(path, tmp_path / "backup")
    return tmp_path / "backup"


def states(path: Path) -> dict[str, SessionState]:
    """Return the state of each session of a store."""
    with closing(SQLiteSessionStore(path)) as store:
        found = {one.id: store.get(one.id) for one in (LIVE, CHILD, ASKED, OVER)}
        return {session_id.removeprefix("ses_"): chain[0].state for session_id, chain in found.items() if chain}


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    """Ask a file behind the store's back, or change it."""
    with closing(apsw.Connection(str(path))) as connection:
        return list(connection.execute(sql).fetchall())


def test_live_sessions_are_revoked(path: Path, saved: Path) -> None:
    """Every session that is live in the backup may have been revoked since, and is; what is over stays as it is."""
    done = restore(saved, path, now=NOW)

    assert {"live": SessionState.REVOKED, "child": SessionState.REVOKED, "asked": SessionState.REVOKED} | {
        "over": SessionState.ENDED
    } == states(path)
    assert ["ses_asked", "ses_child", "ses_live"] == sorted(one.id for one in done.revoked)


def test_revocations_say_why(path: Path, saved: Path) -> None:
    """Whoever looks at a session that a restore revoked reads by what, when and why."""
    restore(saved, path, now=NOW)

    with closing(SQLiteSessionStore(path)) as store:
        session = store.get(LIVE.id)[0]
    assert ("store-restore", 3000.0, LIVE.epoch + 1) == (session.ended_by, session.ended_at, session.epoch)
    assert (
        "restored from a backup of 1970-01-01T00:33:20.000000Z: what was revoked after it is not known"
        == session.reason
    )


def test_sessions_are_kept_when_asked(path: Path, saved: Path) -> None:
    """Whoever knows that nothing was revoked since can keep the sessions."""
    done = restore(saved, path, now=NOW, keep_sessions=True)

    assert () == done.revoked
    assert SessionState.ACTIVE == states(path)["live"]


def test_sessions_that_are_kept_are_older_than_what_counts_their_calls(path: Path, tmp_path: Path) -> None:
    """A bundle that came after the backup may not have counted them."""
    with closing(SQLiteSessionStore(path)) as store:
        active = make_bundle("v2", activated_at=1500.0, counted=(("git/commit", 0.0), ("mutating", 0.0)))
        store.activate_bundle(active, b"", unchanged)
    backup(path, tmp_path / "counting")
    restore(tmp_path / "counting", path, now=NOW, keep_sessions=True)

    with closing(SQLiteSessionStore(path)) as store:
        restored = store.active_bundle()
    assert restored is not None
    assert (("git/commit", NOW.wall_at), ("mutating", NOW.wall_at)) == restored.counted


def test_an_expired_session_is_left_to_its_end(path: Path, tmp_path: Path) -> None:
    """A session whose end has passed on the wall clock is not revoked: nothing can bring it back."""
    past: Session = make_session("past", deadline=Deadline(wall_at=2500.0, boot_at=9e9, boot_id="boot-1"))
    with closing(SQLiteSessionStore(path)) as store:
        store.insert(past, wall_at=1000.0)
    backup(path, tmp_path / "later")

    done = restore(tmp_path / "later", path, now=NOW)

    assert past.id not in {one.id for one in done.revoked}


def test_the_store_of_before_is_kept(path: Path, saved: Path) -> None:
    """What was replaced lies beside the store, whole and for its owner alone."""
    with closing(SQLiteSessionStore(path)) as store:
        store.insert(make_session("newer"), wall_at=2500.0)

    done = restore(saved, path, now=NOW)

    assert done.replaced is not None
    assert "sessions.sqlite.replaced-1970-01-01T005000.000000Z" == done.replaced.name
    assert [("ses_newer",)] == query(done.replaced, "SELECT id FROM sessions WHERE id = 'ses_newer'")
    assert [] == query(path, "SELECT id FROM sessions WHERE id = 'ses_newer'")
    assert [0o600] * 2 == [stat.S_IMODE(one.stat().st_mode) for one in (path, done.replaced)]


def test_restore_where_there_is_no_store(path: Path, saved: Path, tmp_path: Path) -> None:
    """On a new machine the backup becomes the store."""
    done = restore(saved, tmp_path / "new" / "sessions.sqlite", now=NOW)

    assert done.replaced is None
    assert states(path).keys() == states(tmp_path / "new" / "sessions.sqlite").keys()
    assert 0o700 == stat.S_IMODE((tmp_path / "new").stat().st_mode)


def test_marks_do_not_fall(path: Path, saved: Path) -> None:
    """The clock and the numbers of signed bundles cannot be turned back by a restore."""
    with closing(SQLiteSessionStore(path)) as store:
        store.activate_bundle(make_bundle("v9", number=9), b"content", unchanged)
        store.touch(wall_at=5000.0)

    restore(saved, path, now=NOW)

    report = inspect(path)
    assert (5000.0, 9, "") == (report.high_water_at, report.highest_number, report.bundle_version)


def test_restored_time_is_now(path: Path, saved: Path) -> None:
    """The restore itself is the last write."""
    restore(saved, path, now=NOW)

    assert 3000.0 == inspect(path).high_water_at


def test_a_store_in_use_is_refused(path: Path, saved: Path) -> None:
    """While anybody has the store open nothing is restored, and they go on undisturbed."""
    with closing(SQLiteSessionStore(path)) as store:
        with pytest.raises(StoreUnavailableError, match=r"a server uses the session store: `.*`; stop it"):
            restore(saved, path, now=NOW)

        store.insert(make_session("undisturbed"), wall_at=2500.0)
    assert SessionState.ACTIVE == states(path)["live"]


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda file: query(file, "UPDATE meta SET schema_version = 99"), "upgrade the program"),
        (lambda file: query(file, "UPDATE sessions SET epoch = 7"), "damaged: `.*backup`"),
        (lambda file: file.write_bytes(b"noise" * 999), "not a session store: `.*backup`"),
        (Path.unlink, "there is no session store: `.*backup`"),
    ],
    ids=["newer", "damaged", "noise", "absent"],
)
def test_a_bad_backup_changes_nothing(path: Path, saved: Path, spoil: Callable[[Path], object], problem: str) -> None:
    """A backup that is damaged, absent or of a newer program is refused, and the store stays to the byte."""
    spoil(saved)
    before = path.read_bytes()

    with pytest.raises(StoreUnavailableError, match=problem):
        restore(saved, path, now=NOW)

    assert before == path.read_bytes()
    assert [] == [one.name for one in path.parent.iterdir() if not one.name.startswith("sessions.sqlite")]


def test_the_backup_stays_as_it_is(path: Path, saved: Path) -> None:
    """A backup can be restored again: not a byte of it changes."""
    before = saved.read_bytes()

    restore(saved, path, now=NOW)

    assert before == saved.read_bytes()


def test_an_older_backup_is_upgraded(path: Path, tmp_path: Path) -> None:
    """A backup of an earlier program serves this one."""
    old = tmp_path / "old"
    query(old, FIRST_SCHEMA.read_text(encoding="utf-8"))

    restore(old, path, now=NOW)

    report = inspect(path)
    assert (SCHEMA_VERSION, "v1", ()) == (report.schema_version, report.bundle_version, report.damage)


def test_a_damaged_store_is_replaced(path: Path, saved: Path) -> None:
    """What a restore is for: the present store cannot be read."""
    path.write_bytes(b"noise" * 9999)

    done = restore(saved, path, now=NOW)

    assert () == inspect(path).damage
    assert done.replaced is not None
    assert done.replaced.read_bytes() == b"noise" * 9999


def test_the_log_of_the_store_of_before_is_not_read(path: Path, saved: Path, tmp_path: Path) -> None:
    """What a killed server left in its log is kept with its store, and does not get into the restored one."""
    killed = tmp_path / "killed"
    killed.mkdir()
    with closing(SQLiteSessionStore(path)) as store:
        store.insert(make_session("unfolded"), wall_at=2500.0)
        for name in ("sessions.sqlite", "sessions.sqlite-wal"):
            shutil.copy(path.with_name(name), killed / name)
    # The file itself is unreadable, so its log cannot be folded in.
    (killed / "sessions.sqlite").write_bytes(b"noise" * 9999)

    done = restore(saved, killed / "sessions.sqlite", now=NOW)

    assert () == inspect(killed / "sessions.sqlite").damage
    assert [] == query(killed / "sessions.sqlite", "SELECT id FROM sessions WHERE id = 'ses_unfolded'")
    assert done.replaced is not None
    assert done.replaced.with_name(done.replaced.name + "-wal").exists()


def test_a_killed_servers_log_is_kept_whole(path: Path, saved: Path, tmp_path: Path) -> None:
    """The store of before holds what a killed server had acknowledged."""
    killed = tmp_path / "killed"
    killed.mkdir()
    with closing(SQLiteSessionStore(path)) as store:
        store.insert(make_session("unfolded"), wall_at=2500.0)
        for name in ("sessions.sqlite", "sessions.sqlite-wal"):
            shutil.copy(path.with_name(name), killed / name)

    done = restore(saved, killed / "sessions.sqlite", now=NOW)

    assert done.replaced is not None
    assert [("ses_unfolded",)] == query(done.replaced, "SELECT id FROM sessions WHERE id = 'ses_unfolded'")


def test_who_opened_the_store_of_before_does_not_go_on_with_it(path: Path, saved: Path) -> None:
    """A reader that took no lock finds that its file was replaced, and does not answer from it."""
    with closing(SQLiteSessionStore(path, trust_seconds=0.0)) as store:
        # As a file system without locks would have it.
        path.with_name("sessions.sqlite-signal").unlink()
        restore(saved, path, now=NOW)

        with pytest.raises(StoreUnavailableError, match="moved, removed or replaced"):
            store.view(LIVE.handle_digest)
