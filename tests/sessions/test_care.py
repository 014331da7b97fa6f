"""The file of a store is looked at without a change, and copied while others write to it."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event

import apsw
import pytest

from pdp.errors import StoreUnavailableError
from pdp.model import SessionState
from pdp.sessions import database
from pdp.sessions.care import backup, inspect
from pdp.sessions.changesignal import unused
from pdp.sessions.database import SCHEMA_VERSION
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.testing.stores.samples import (
    insert_family,
    make_bundle,
    make_scope,
    make_session,
    successor_of,
    unchanged,
)

FIRST_SCHEMA = Path(__file__).with_name("first_schema.sql")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the file of a store that was written and closed."""
    path = tmp_path / "store" / "sessions.sqlite"
    with closing(SQLiteSessionStore(path)) as store:
        insert_family(store)
        scoped = make_session("scoped", scope=make_scope("git/git_log"))
        store.insert(replace(scoped, scope=None), wall_at=1000.0)
        store.update([successor_of(scoped)], wall_at=2000.0)
        store.activate_bundle(make_bundle("v1", number=7), b"content", unchanged)
    return path


def change(path: Path, sql: str) -> None:
    """Change a file behind the store's back."""
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute(sql).fetchall()


def overwrite(path: Path, name: str) -> None:
    """Overwrite the first page of a table or index with noise."""
    with closing(apsw.Connection(str(path))) as connection:
        page = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,)).get
        size = connection.execute("PRAGMA page_size").get
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\x5a" * size)


def test_inspect_counts(path: Path) -> None:
    """A sound store is counted by state, and says what it holds."""
    report = inspect(path)

    assert (SCHEMA_VERSION, (), False, False) == (report.schema_version, report.damage, report.newer, report.older)
    assert "v1" == report.bundle_version
    assert 7 == report.highest_number
    assert 2000.0 == report.high_water_at
    with closing(SQLiteSessionStore(path)) as store:
        assert store.count_by_state() == report.sessions


def test_inspect_changes_nothing(path: Path) -> None:
    """Not a byte of the file differs afterwards."""
    before = path.read_bytes()

    inspect(path)

    assert before == path.read_bytes()


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda path: overwrite(path, "sessions_by_age"), ""),
        (lambda path: overwrite(path, "sessions"), ""),
        (
            lambda path: change(path, "UPDATE sessions SET state = 'ended' WHERE id = 'ses_scoped'"),
            "session `ses_scoped`: its columns differ from its content",
        ),
        (
            lambda path: change(path, "UPDATE sessions SET session_json = '{}' WHERE id = 'ses_scoped'"),
            "session `ses_scoped`: a stored session is damaged",
        ),
        (lambda path: change(path, "DELETE FROM scopes"), "session `ses_scoped`: a stored scope is damaged"),
        (lambda path: change(path, "DELETE FROM sessions WHERE depth = 0"), "is missing"),
    ],
    ids=["index", "table", "column", "text", "scope", "ancestor"],
)
def test_damage_is_found(path: Path, damage: Callable[[Path], None], text: str) -> None:
    """What is wrong with pages, columns, texts, scopes and families is said."""
    damage(path)

    found = inspect(path).damage

    assert found
    assert text in " ".join(found)


def test_damage_quotes_nothing(path: Path) -> None:
    """What is said about damage holds ids and no content of sessions."""
    change(path, "UPDATE sessions SET session_json = replace(session_json, '{', 'canary {')")

    assert "canary" not in " ".join(inspect(path).damage)


def test_a_newer_schema_is_only_named(path: Path) -> None:
    """Of a file of a newer program the schema is told, and nothing is guessed."""
    change(path, "UPDATE meta SET schema_version = 99")

    report = inspect(path)

    assert (99, True, (), {}) == (report.schema_version, report.newer, report.damage, report.sessions)


def test_an_older_schema_is_read(tmp_path: Path) -> None:
    """A file of the first schema is sound, and will be upgraded."""
    path = tmp_path / "old.sqlite"
    change(path, FIRST_SCHEMA.read_text(encoding="utf-8"))

    report = inspect(path)

    assert (1, True, (), "v1") == (report.schema_version, report.older, report.damage, report.bundle_version)


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100])
def test_what_is_no_store_is_refused(tmp_path: Path, content: bytes) -> None:
    """An empty file and another kind of file are no stores."""
    path = tmp_path / "file"
    path.write_bytes(content)

    with pytest.raises(StoreUnavailableError, match="not a session store"):
        inspect(path)


def test_absence_is_said(tmp_path: Path) -> None:
    """Nothing is made where there is no store."""
    path = tmp_path / "absent"

    with pytest.raises(StoreUnavailableError, match=r"there is no session store: `.*absent`"):
        inspect(path)

    assert [] == list(tmp_path.iterdir())


def test_backup_equals_the_store(path: Path, tmp_path: Path) -> None:
    """A backup holds what the store holds, in one file that its owner alone can read."""
    target = tmp_path / "backup"

    report = backup(path, target)

    assert inspect(path) == report == inspect(target)
    assert 0o600 == stat.S_IMODE(target.stat().st_mode)
    assert ["backup", "store"] == sorted(one.name for one in tmp_path.iterdir())


def test_backup_while_a_store_is_open_holds_what_was_acknowledged(path: Path, tmp_path: Path) -> None:
    """What was acknowledged before the backup began is in it, also when it stands only in the log."""
    with closing(SQLiteSessionStore(path)) as store:
        store.insert(make_session("late"), wall_at=3000.0)
        report = backup(path, tmp_path / "backup")

        assert 3000.0 == report.high_water_at
        assert store.count_by_state() == report.sessions


def test_backups_are_of_one_moment(path: Path, tmp_path: Path) -> None:
    """While another thread ends pairs of sessions, each backup holds both of a pair ended or none."""
    pairs = [(make_session(f"a{number}"), make_session(f"b{number}")) for number in range(40)]
    stop = Event()

    def end_pairs() -> None:
        with closing(SQLiteSessionStore(path)) as store:
            for pair in pairs:
                if stop.is_set():
                    return
                store.update([successor_of(one, state=SessionState.ENDED) for one in pair], wall_at=2000.0)

    with closing(SQLiteSessionStore(path)) as store:
        for pair in pairs:
            for one in pair:
                store.insert(one, wall_at=1000.0)
    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(end_pairs)
        try:
            reports = [backup(path, tmp_path / f"backup-{number}") for number in range(8)]
        finally:
            stop.set()
        ending.result()

    for number, report in enumerate(reports):
        with closing(apsw.Connection(str(tmp_path / f"backup-{number}"))) as connection:
            odd = "SELECT substr(id, 6) FROM sessions WHERE state = 'ended' GROUP BY 1 HAVING count(*) = 1"
            assert [] == connection.execute(odd).fetchall()
        assert () == report.damage


@pytest.mark.parametrize("kind", ["file", "link", "dangling"])
def test_backup_overwrites_nothing(path: Path, tmp_path: Path, kind: str) -> None:
    """A name that is taken, if only by a link that leads nowhere, is refused and stays as it is."""
    target, elsewhere = tmp_path / "backup", tmp_path / "elsewhere"
    if kind != "dangling":
        elsewhere.write_bytes(b"precious")
    if kind == "file":
        elsewhere.rename(target)
    else:
        target.symlink_to(elsewhere)

    with pytest.raises(FileExistsError):
        backup(path, target)

    assert kind == "dangling" or target.read_bytes() == b"precious"
    assert kind != "dangling" or not elsewhere.exists()


@pytest.mark.parametrize("spoil", ["UPDATE meta SET schema_version = 99", "DELETE FROM scopes"])
def test_backup_of_what_is_not_sound_is_refused(path: Path, tmp_path: Path, spoil: str) -> None:
    """There is no backup that could not be restored, and nothing is left of the attempt."""
    change(path, spoil)

    with pytest.raises(StoreUnavailableError):
        backup(path, tmp_path / "backup")

    assert ["store"] == [one.name for one in tmp_path.iterdir()]


def test_backup_of_an_older_schema_stays_old(tmp_path: Path) -> None:
    """Before an upgrade a store can be backed up as it is."""
    path = tmp_path / "old.sqlite"
    change(path, FIRST_SCHEMA.read_text(encoding="utf-8"))

    assert 1 == backup(path, tmp_path / "backup").schema_version


def test_an_upgrade_happens_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgrade that fails in its middle leaves the file as it was, for the program that wrote it."""
    path = tmp_path / "old.sqlite"
    change(path, FIRST_SCHEMA.read_text(encoding="utf-8"))
    shutil.copy(path, tmp_path / "before")
    monkeypatch.setattr(database, "_UPGRADES", (*database._UPGRADES, "CREATE TABLE one (x); CREATE TABLE one (x);"))
    monkeypatch.setattr(database, "SCHEMA_VERSION", SCHEMA_VERSION + 1)

    with pytest.raises(StoreUnavailableError):
        SQLiteSessionStore(path)

    assert schema(tmp_path / "before") == schema(path)


def schema(path: Path) -> list[tuple[str, str]]:
    """Return the tables and indexes of a file, and its schema version."""
    with closing(apsw.Connection(str(path))) as connection:
        version = connection.execute("SELECT schema_version, '' FROM meta").fetchall()
        return [*connection.execute("SELECT name, sql FROM sqlite_schema ORDER BY name"), *version]


def test_nobody_opens_a_store_that_is_being_restored(path: Path) -> None:
    """Who starts while a restore goes on is refused and told why; afterwards the store opens."""
    with unused(path.with_name(f"{path.name}-signal")), pytest.raises(StoreUnavailableError, match="is being restored"):
        SQLiteSessionStore(path)

    SQLiteSessionStore(path).close()
