"""A file of the store that somebody or something wrote over is never believed, and no damage is more than an error."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from pdp.clock import Instant
from pdp.errors import ConflictError, StoreUnavailableError
from pdp.model import Session
from pdp.sessions.restoring import restore
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.sessions.store import SessionStore
from pdp.sessions.values import SessionFilter
from pdp.testing.stores.samples import make_bundle, make_scope, make_session, revoked, unchanged
from tests.machinery.seeds import seeded

NOW = Instant(wall_at=3000.0, boot_at=2100.0, boot_id="boot-1")
SESSIONS = [make_session(f"s{number}", scope=make_scope("git/log", "git/status")) for number in range(40)]


def expected(session: Session) -> tuple[Session, ...]:
    """Return a session as it was stored: each third one was revoked."""
    return ((SESSIONS.index(session) % 3 == 0 and revoked(session)) or session,)


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    """Return the file of a store that was closed."""
    path = tmp_path / "whole.sqlite"
    with closing(SQLiteSessionStore(path)) as store:
        store.activate_bundle(make_bundle("v1"), bytes(9000), unchanged)
        for session in SESSIONS:
            store.insert(session, wall_at=1.0)
        for session in SESSIONS[::3]:
            store.change_tree(session.id, revoked, wall_at=2.0)
    return path.read_bytes()


@pytest.mark.parametrize("images", [100, pytest.param(5000, marks=pytest.mark.long)])
def test_a_damaged_file_is_never_believed(tmp_path: Path, content: bytes, images: int) -> None:
    """A session is as it was, or unknown, or the store does not answer; nothing else is ever raised."""
    choices, found, path = seeded(), Counter[str](), tmp_path / "damaged.sqlite"
    for _ in range(images):
        for left in tmp_path.glob("damaged.sqlite*"):
            left.unlink()
        path.write_bytes(damaged(content, choices))
        found.update(seen(path, choices.sample(SESSIONS, 4)))

    print(dict(found))  # noqa: T201 - the figures of the proof
    assert found["another"] == 0
    assert [] == [what for what in ("as it was", "no answer") if not found[what]]


def test_an_error_names_the_damaged_file_and_what_to_do(tmp_path: Path, content: bytes) -> None:
    """An operator has several files of this kind, and reads only the log."""
    path = tmp_path / "damaged.sqlite"
    path.write_bytes(content[:100] + b"\xff" * 300 + content[400:])

    with pytest.raises(StoreUnavailableError, match=r"damaged: `.*/damaged.sqlite`; see `pdp store check`"):
        SQLiteSessionStore(path)


@pytest.fixture
def crashed(tmp_path: Path) -> Path:
    """Return the files of a store whose process was killed: all that it acknowledged stands in the log."""
    left = tmp_path / "left"
    with closing(SQLiteSessionStore(tmp_path / "running" / "store.sqlite")) as store:
        for session in SESSIONS[:4]:
            store.insert(session, wall_at=1.0)
            store.change_tree(session.id, revoked, wall_at=2.0)
        shutil.copytree(tmp_path / "running", left)
    return left / "store.sqlite"


def spoil(path: Path, start: float, content: bytes) -> None:
    """Put something over a part of a file, `start` being a share of its length."""
    with path.open("r+b") as file:
        file.seek(round(path.stat().st_size * start))
        file.write(content)


def states(path: Path) -> set[str]:
    """Return the states of all sessions of a store."""
    with closing(SQLiteSessionStore(path)) as store:
        return {session.state.value for session in store.select(SessionFilter(), limit=9)}


@pytest.mark.parametrize(
    "break_it",
    [
        pytest.param(lambda log: os.truncate(log, log.stat().st_size // 2), id="cut"),
        pytest.param(lambda log: spoil(log, 0.5, b"\xff" * 20), id="overwritten"),
        pytest.param(lambda log: spoil(log, 0.0, b"\xff" * 20), id="overwritten at its beginning"),
        pytest.param(lambda log: spoil(log, 0.9, bytes([255])), id="one byte"),
        pytest.param(lambda log: log.unlink(), id="gone"),
    ],
)
def test_a_damaged_log_brings_nothing_back(crashed: Path, break_it: Callable[[Path], None]) -> None:
    """SQLite takes the log to end where the damage begins: what was revoked in it would be active again."""
    break_it(crashed.with_name("store.sqlite-wal"))

    with pytest.raises(
        StoreUnavailableError, match=r"lacks the last \d+ changes that it acknowledged.*pdp store restore"
    ):
        states(crashed)


def test_a_whole_log_is_read(crashed: Path) -> None:
    """After a crash nothing is missing."""
    assert states(crashed) == {"revoked"}


def test_an_old_file_brings_nothing_back(tmp_path: Path) -> None:
    """An earlier copy in the place of the store is refused; a restore takes it and revokes what lives in it."""
    path, old = tmp_path / "store.sqlite", tmp_path / "old.sqlite"
    with closing(SQLiteSessionStore(path)) as store:
        store.insert(SESSIONS[0], wall_at=1.0)
    shutil.copy(path, old)
    with closing(SQLiteSessionStore(path)) as store:
        store.change_tree(SESSIONS[0].id, revoked, wall_at=2.0)
    shutil.copy(old, path)

    with pytest.raises(StoreUnavailableError, match="lacks the last 1 changes"):
        states(path)
    restore(old, path, now=NOW)
    assert states(path) == {"revoked"}


def test_a_store_that_is_gone_begins_anew(tmp_path: Path) -> None:
    """Without any file there is nothing that could come back: all sessions are unknown."""
    path = tmp_path / "store.sqlite"
    with closing(SQLiteSessionStore(path)) as store:
        store.insert(SESSIONS[0], wall_at=1.0)
    path.unlink()

    assert states(path) == set()


def test_a_write_that_failed_is_not_missed(tmp_path: Path) -> None:
    """What was taken back was never acknowledged, whatever is written or not afterwards."""
    path = tmp_path / "store.sqlite"
    with closing(SQLiteSessionStore(path)) as store:
        store.insert(SESSIONS[0], wall_at=1.0)
        store.activate_bundle(make_bundle("v1"), b"", unchanged)
        with pytest.raises(ConflictError):
            store.insert(SESSIONS[0], wall_at=2.0)
        # Changes nothing.
        store.activate_bundle(make_bundle("v1"), b"", unchanged)

    assert states(path) == {"active"}


def damaged(content: bytes, choices: random.Random) -> bytes:
    """Overwrite some places, or cut the end off: enough that no text stays readable there."""
    left = bytearray(content)
    for _ in range(choices.randrange(1, 6)):
        at, size = choices.randrange(len(left)), choices.choice((64, 512, 4096))
        left[at : at + size] = choices.choice((bytes, choices.randbytes))(min(size, len(left) - at))
    return bytes(left[: choices.randrange(len(left))] if choices.random() < 0.2 else left)


def seen(path: Path, sessions: list[Session]) -> Counter[str]:
    """Return how often a store says what of sessions, and whether everything else raises what it should."""
    found = Counter[str]()
    try:
        with closing(SQLiteSessionStore(path)) as store:
            for session in sessions:
                found[said(store, session)] += 1
            for ask in OTHERS:
                found[attempted(ask, store)] += 1
    except StoreUnavailableError:
        found["no start"] += 1
    return found


def said(store: SessionStore, session: Session) -> str:
    """Return what a store says of a session."""
    try:
        chain = store.view(session.handle_digest).chain
    except StoreUnavailableError:
        return "no answer"
    return "unknown" if not chain else "as it was" if chain == expected(session) else "another"


def attempted(ask: Callable[[SessionStore], object], store: SessionStore) -> str:
    """Return whether a store can do something."""
    try:
        ask(store)
    except StoreUnavailableError:
        return "not done"
    return "done"


OTHERS: tuple[Callable[[SessionStore], object], ...] = (
    lambda store: store.touch(wall_at=3.0),
    lambda store: store.count_by_state(),
    lambda store: store.select(SessionFilter(user="alice"), limit=5),
    lambda store: store.change_where(SessionFilter(agent="coder"), revoked, wall_at=4.0),
    lambda store: store.bundle_content("v1"),
    lambda store: store.kept_bundles(),
    lambda store: store.active_bundle(),
)
