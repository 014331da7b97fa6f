"""What calls left behind: both histories pass the contract, and the file is shared, private and bounded by the disk."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from pdp.errors import AlreadyReportedError, OverloadedError, StoreUnavailableError
from pdp.sessions.history import MemorySessionHistory
from pdp.sessions.sqlitehistory import SQLiteSessionHistory
from pdp.sessions.store import SessionHistory
from pdp.sessions.values import Report
from pdp.testing.stores.past import SessionHistoryContract

REPORT = Report(decision_id="dec_1", digest=b"1", reported_at=1000.0)


class TestMemorySessionHistory(SessionHistoryContract):
    """The history in memory."""

    def make_store(self, folder: Path) -> SessionHistory:  # noqa: ARG002 - it needs no file
        """Return an empty history."""
        return MemorySessionHistory()


def test_memory_keeps_the_last_reports() -> None:
    """Nobody may be there to remove old ones."""
    history = MemorySessionHistory(most=3)
    for number in range(4):
        history.keep_report(Report(decision_id=f"dec_{number}", digest=b"1", reported_at=1000.0))

    assert 3 == history.forget_reports(reported_before=2000.0)


class TestSQLiteSessionHistory(SessionHistoryContract):
    """The history in a file."""

    def make_store(self, folder: Path) -> SessionHistory:
        """Return an empty history."""
        return SQLiteSessionHistory(folder / "history.db")


def test_a_file_is_shared(tmp_path: Path) -> None:
    """What one process has kept, another one sees at once; and both have the same secret, also after a restart."""
    path = tmp_path / "data" / "history.db"
    with closing(SQLiteSessionHistory(path)) as here, closing(SQLiteSessionHistory(path)) as there:
        here.keep_report(REPORT)
        with pytest.raises(AlreadyReportedError):
            there.keep_report(Report(decision_id="dec_1", digest=b"2", reported_at=1000.0))
        key = here.key()
        assert key == there.key()

    with closing(SQLiteSessionHistory(path)) as again:
        assert key == again.key()


def test_those_who_open_it_first_agree(tmp_path: Path) -> None:
    """Processes that start together have one secret."""

    def open_it(_: int) -> bytes:
        with closing(SQLiteSessionHistory(tmp_path / "history.db")) as opened:
            return opened.key()

    with ThreadPoolExecutor(max_workers=8) as threads:
        assert 1 == len(set(threads.map(open_it, range(8))))


def test_a_file_is_private(tmp_path: Path) -> None:
    """It holds a secret."""
    with closing(SQLiteSessionHistory(tmp_path / "history.db")) as opened:
        opened.keep_report(REPORT)
        modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("history.db*")}

    assert {0o600} == modes


def test_a_nearly_full_disk_takes_no_report(tmp_path: Path) -> None:
    """What is left is for ending authority; forgetting goes on."""
    with closing(SQLiteSessionHistory(tmp_path / "history.db", reserve_bytes=1 << 62)) as opened:
        with pytest.raises(StoreUnavailableError, match="nearly full"):
            opened.keep_report(REPORT)
        assert 0 == opened.forget_reports(reported_before=2000.0)


def test_a_locked_file_is_busy(tmp_path: Path) -> None:
    """A foreign program that keeps the lock costs a pause and no more."""
    path = tmp_path / "history.db"
    with closing(SQLiteSessionHistory(path, busy_seconds=0.05)) as opened:
        with closing(apsw.Connection(str(path))) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(OverloadedError, match="nothing was written"):
                opened.keep_report(REPORT)
        opened.keep_report(REPORT)


@pytest.mark.parametrize("content", [b"not a database, but long enough to be taken for one" * 40, b"\0" * 4096])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """It stays as it is."""
    path = tmp_path / "history.db"
    path.write_bytes(content)

    with pytest.raises(StoreUnavailableError):
        SQLiteSessionHistory(path)
    assert content == path.read_bytes()


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    """Its program knows more."""
    path = tmp_path / "history.db"
    SQLiteSessionHistory(path).close()
    with closing(apsw.Connection(str(path))) as other:
        other.execute("UPDATE history SET version = 2")

    with pytest.raises(StoreUnavailableError, match="version `2`, and this program knows `1`"):
        SQLiteSessionHistory(path)
