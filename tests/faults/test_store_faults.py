"""The store breaks under a server that runs: what gateways, approvers and probes see, and that it is well again."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from unittest.mock import patch

import apsw
import pytest

from pdp.app.server import App
from pdp.errors import StoreUnavailableError
from pdp.record.ends import store_revision
from pdp.sessions.restoring import restore
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.sessions.watcher import Watcher
from pdp.testing.clock import FakeClock
from pdp.testing.waiting import wait_until
from tests.faults.troubledvfs import Trouble, troubled
from tests.machinery.faults.breakdowns import ROWS
from tests.machinery.servers.served import PATIENCE, WELL, Served, damage, served

Fault = Callable[[Served, Trouble], AbstractContextManager[None]]


@contextmanager
def locked(served: Served, _: Trouble) -> Iterator[None]:
    """Hold the lock for writing."""
    with closing(apsw.Connection(str(served.settings.sessions_file))) as other:
        other.set_busy_timeout(60_000)  # the server writes now and then too
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def failing(trouble: Trouble, *, writes: type[apsw.Error] | None, syncs: type[apsw.Error] | None) -> Iterator[None]:
    """Let writes or syncs of the store's disk fail."""
    trouble.writes, trouble.syncs = writes, syncs
    yield
    trouble.heal()


@contextmanager
def moved(path: Path) -> Iterator[None]:
    """Take a file or a folder away, and bring it back."""
    away = path.with_name("away")
    path.rename(away)
    yield
    away.rename(path)


FAULTS: dict[str, Fault] = {
    "the store is locked by another program": locked,
    "the store's disk refuses every write": lambda _, trouble: failing(trouble, writes=apsw.FullError, syncs=None),
    "the store is read-only": lambda _, trouble: failing(trouble, writes=apsw.ReadOnlyError, syncs=None),
    "the store's disk fails": lambda _, trouble: failing(trouble, writes=None, syncs=apsw.IOError),
    "the store's file is gone": lambda served, _: moved(served.settings.sessions_file),
    "the store's folder is gone": lambda served, _: moved(Path(served.settings.data_dir)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_while_the_store_is_broken(tmp_path: Path, fault: str) -> None:
    """What is seen is what the table says; nothing is allowed that was revoked; then all is as before, by itself."""
    busy_seconds = 0.5 if FAULTS[fault] is locked else PATIENCE
    with troubled() as trouble, served(tmp_path, busy_seconds=busy_seconds) as service:
        live, doomed = service.open(), service.open()
        before = service.seen(service.open())
        with FAULTS[fault](service, trouble):
            wait_until(lambda: service.health() == ROWS[fault].seen.health)
            during = service.seen(doomed)
            revoked = service.call(service.revoked)
        wait_until(lambda: service.health() == WELL.health)
        after = service.seen(doomed)
        states = [service.state(one) for one in (live, service.revoked, doomed)]
        answers = [service.call(one) for one in (live, service.revoked, doomed)]

    assert (before, during, after) == (WELL, ROWS[fault].seen, WELL)
    assert revoked in ("session_revoked", "`UNAVAILABLE`")
    assert states == ["active", "revoked", "revoked"]
    assert answers == ["permit", "session_revoked", "session_revoked"]
    assert damage(service) == []


def test_while_the_disk_hangs(tmp_path: Path) -> None:
    """Who needs the disk is let go by its own deadline, and so are probes; then all is as before, by itself."""
    with troubled() as trouble, served(tmp_path) as service:
        doomed = service.open()
        forget(service)
        # A disk that does not hang can take longer, so only meanwhile.
        with patch("pdp.sessions.heartbeat._LONGEST_SECONDS", 0.05), service.impatient() as impatient:
            trouble.hang()
            wait_until(lambda: impatient.health("pdp.store") == ("NOT_SERVING",))
            during = impatient.seen(doomed)
        trouble.heal()
        wait_until(lambda: service.health() == WELL.health)
        state = service.state(doomed)
        after = service.seen(doomed)
        answers = [service.call(one) for one in (service.active, service.revoked, doomed)]

    assert (during, after) == (ROWS["the store's disk hangs"].seen, WELL)
    # Nobody was told that it is revoked, and it may be.
    assert state in ("active", "revoked")
    assert answers == ["permit", "session_revoked", "session_revoked"]
    assert damage(service) == []


@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_store_is_never_believed(tmp_path: Path, seed: int) -> None:
    """Whatever of the file was overwritten or cut off: no start, or calls are answered rightly or not at all."""
    choices = random.Random(seed)  # noqa: S311 - no secret
    with served(tmp_path) as service:
        for _ in range(20):
            service.open()
    spoil(service.settings.sessions_file, choices)

    try:
        with served(tmp_path, before=service) as again:
            answers = [again.call(again.active), again.call(again.revoked)]
    except StoreUnavailableError:
        answers = ["`UNAVAILABLE`"] * 2

    assert answers[0] in ("permit", "session_not_found", "`UNAVAILABLE`")
    assert answers[1] in ("session_revoked", "session_not_found", "`UNAVAILABLE`")


def spoil(file: Path, choices: random.Random) -> None:
    """Overwrite some places of a file, or cut its end off."""
    content = bytearray(file.read_bytes())
    if choices.random() < 0.25:
        del content[choices.randrange(len(content)) :]
    for _ in range(choices.randrange(1, 8)):
        at, size = choices.randrange(max(len(content), 1)), choices.choice((64, 512, 4096))
        content[at : at + size] = choices.randbytes(min(size, len(content) - at))
    file.write_bytes(content)


def forget(service: Served) -> None:
    """Let the store have no session in memory, as for one that was not used for long."""
    store = service.app.embedded.sessions
    assert isinstance(store, SQLiteSessionStore)
    watcher = store._watcher
    assert isinstance(watcher, Watcher)
    with watcher._lock:
        watcher._recent.clear()
        watcher._connection.execute("PRAGMA shrink_memory")


def test_a_snapshot_of_the_store_brings_nothing_back(tmp_path: Path) -> None:
    """A start on a folder that is older than the record is refused; restoring the store from itself revokes all."""
    with served(tmp_path) as service:
        kept = service.active
    data, snapshot = Path(service.settings.data_dir), tmp_path / "snapshot"
    shutil.copytree(data, snapshot)
    with served(tmp_path, before=service) as again:
        assert again.revoke(kept) == "OK"
    shutil.rmtree(data)
    shutil.copytree(snapshot, data)

    with pytest.raises(StoreUnavailableError, match=r"lacks the last \d+ changes that it acknowledged"):
        App(service.settings, clock=FakeClock())
    store, known = service.settings.sessions_file, store_revision(service.settings.record_folder)
    restore(store, store, now=FakeClock().now(), known_revision=known)
    with served(tmp_path, before=service) as restored:
        answer = restored.call(restored.active)

    assert answer == "session_revoked"
    assert damage(service) == []
