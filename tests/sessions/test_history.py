"""What calls left behind: both histories pass the contract, and the file is shared, private and bounded by the disk."""

from __future__ import annotations

import secrets
import stat
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from pdp.errors import AlreadyReportedError, OverloadedError, StoreUnavailableError
from pdp.model import ValueClass
from pdp.sessions.history import MemorySessionHistory, ReopeningHistory
from pdp.sessions.historycontract import SessionHistory
from pdp.sessions.memoryvalues import MOST_TAINTED, MOST_TRUSTED
from pdp.sessions.sqlitehistory import SQLiteSessionHistory
from pdp.sessions.values import Charge, Debit, HeldValues, Report
from pdp.testing.stores.past import SessionHistoryContract
from pdp.testing.stores.samples import make_moment

CHARGING = Path(__file__).parent / "charging_process.py"
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
        with closing(SQLiteSessionHistory(tmp_path / "history.db", busy_seconds=120.0)) as opened:
            return opened.key()

    with ThreadPoolExecutor(max_workers=8) as threads:
        assert 1 == len(set(threads.map(open_it, range(8))))


def test_one_that_is_being_opened_by_another_is_waited_for(tmp_path: Path) -> None:
    """Nobody can begin with the log beside the file while another one reads it; the engine would not wait for that."""
    path = tmp_path / "history.db"
    path.touch(0o600)
    with closing(apsw.Connection(str(path))) as other:
        other.execute("CREATE TABLE begun (one)")
        other.execute("BEGIN IMMEDIATE")
        other.execute("SELECT * FROM begun").fetchall()
        ending = threading.Timer(0.1, other.execute, ["COMMIT"])
        ending.start()
        with closing(SQLiteSessionHistory(path, busy_seconds=120.0)) as opened:
            assert opened.key()
        ending.join()


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


def test_a_writer_in_the_same_process_can_go_on(tmp_path: Path) -> None:
    """Who waits for it does not keep the interpreter from running it."""
    path, waiting = tmp_path / "history.db", threading.Event()

    def report(waits: SQLiteSessionHistory) -> None:
        waiting.set()
        waits.keep_report(REPORT)

    with (
        closing(SQLiteSessionHistory(path, busy_seconds=120.0)) as history,
        closing(apsw.Connection(str(path))) as other,
        ThreadPoolExecutor(max_workers=1) as thread,
    ):
        other.execute("BEGIN IMMEDIATE")
        done = thread.submit(report, history)
        waiting.wait()
        other.execute("COMMIT")
        done.result()

        assert 1 == history.forget_reports(reported_before=REPORT.reported_at + 1)


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


@pytest.mark.parametrize(
    ("kind", "most", "processes", "threads"),
    [
        ("budget", 300, 3, 1),
        ("count", 300, 3, 4),
        pytest.param("budget", 20_000, 24, 1, marks=pytest.mark.long),
        pytest.param("count", 3_000, 12, 8, marks=pytest.mark.long),
    ],
)
def test_killed_processes_overshoot_nothing(tmp_path: Path, kind: str, most: int, processes: int, threads: int) -> None:
    """What was acknowledged is in the file, each number once; a kill costs at most one call of each thread."""
    path = tmp_path / "history.db"
    SQLiteSessionHistory(path).close()
    command = [sys.executable, str(CHARGING), str(path), str(most), kind, str(threads)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    doomed, lines = running[: processes // 2 + 1], []
    for place, one in enumerate(doomed):
        assert one.stdout is not None
        lines += [one.stdout.readline() for _ in range(3 + 7 * place)]
        one.kill()
    for one in running:
        lines += [line for line in one.communicate()[0].splitlines(keepends=True) if line.endswith("\n")]
    with closing(SQLiteSessionHistory(path)) as after:
        used = [after.used(name) for name in ("ses_child", "ses_parent")]
        counted = after.counts(["ses_child", "ses_parent"], ["git/commit"]).of

    said = [tuple(map(int, line.split())) for line in lines if line]
    assert all(child == parent for child, parent in said)
    assert len(set(said)) == len(said)
    found = [one["max_calls"].used for one in used] if kind == "budget" else [one.made for one in counted.values()]
    assert [most, most] == found
    assert most - len(doomed) * threads <= len(said) <= most


@pytest.mark.parametrize("kind", ["budget", "count"])
def test_threads_of_two_processes_take_exactly_what_there_is(tmp_path: Path, kind: str) -> None:
    """Sixteen threads in each: together as many calls as there may be, and none of them is lost."""
    path = tmp_path / "history.db"
    SQLiteSessionHistory(path).close()
    command = [sys.executable, str(CHARGING), str(path), "1000", kind, "16"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [line for one in running for line in one.communicate()[0].splitlines()]

    assert [f"{number} {number}" for number in range(1, 1001)] == sorted(said, key=lambda line: int(line.split()[0]))
    assert [0, 0] == [one.returncode for one in running]


def test_memory_keeps_what_tells_retries_of_the_last_charges() -> None:
    """An older call that is tried again is charged again, and never more than the budget holds."""
    history = MemorySessionHistory(most=2)
    debit = Debit(session_id="ses_a", budget="max_calls", amount=1, most=9, window=0, ends_at=5000.0)
    charges = [
        Charge(debits=(debit,), retry_digest=name, now=make_moment(1000.0))
        for name in (b"a", b"b", b"c", b"c", b"b", b"a")
    ]

    assert [(1,), (2,), (3,), (), (), (4,)] == [history.charge(one).used for one in charges]


def test_another_file_at_the_path_is_noticed(tmp_path: Path) -> None:
    """Processes that start now use that one, and another secret."""
    path = tmp_path / "history.db"
    with closing(SQLiteSessionHistory(path)) as opened:
        path.rename(tmp_path / "old.db")
        with pytest.raises(StoreUnavailableError, match="was moved, removed or replaced"):
            opened.keep_report(REPORT)
        with closing(SQLiteSessionHistory(path)), pytest.raises(StoreUnavailableError, match="was moved"):
            opened.key()


def test_many_old_reports_go_in_steps(tmp_path: Path) -> None:
    """All of them, and between two steps others write."""
    with closing(SQLiteSessionHistory(tmp_path / "history.db")) as opened:
        for number in range(4500):
            opened.keep_report(Report(decision_id=f"dec_{number}", digest=b"1", reported_at=1000.0))
        opened.keep_report(Report(decision_id="dec_late", digest=b"1", reported_at=3000.0))

        assert 4500 == opened.forget_reports(reported_before=2000.0)
        with pytest.raises(AlreadyReportedError):
            opened.keep_report(Report(decision_id="dec_late", digest=b"2", reported_at=3000.0))


def test_a_folder_in_its_place_is_an_error(tmp_path: Path) -> None:
    """The message names the history, and not the store."""
    (tmp_path / "history.db").mkdir()

    with pytest.raises(StoreUnavailableError, match="the session history cannot be opened"):
        SQLiteSessionHistory(tmp_path / "history.db")


class TestReopeningHistory(SessionHistoryContract):
    """A history that is opened when it is needed."""

    def make_store(self, folder: Path) -> SessionHistory:
        """Return an empty history."""
        return ReopeningHistory(lambda: SQLiteSessionHistory(folder / "history.db"), on_failure=lambda _: None)


def test_a_damaged_history_is_opened_again(tmp_path: Path) -> None:
    """Until then each use fails, the failure is told once, and not every use looks at the file."""
    path, told, seconds, tries = tmp_path / "history.db", list[str](), [0.0], [0]
    path.write_bytes(b"damaged" * 1000)

    def reopen() -> SessionHistory:
        tries[0] += 1
        return SQLiteSessionHistory(path)

    history = ReopeningHistory(reopen, on_failure=lambda error: told.append(str(error)), monotonic=lambda: seconds[0])
    for _ in range(3):
        with pytest.raises(
            StoreUnavailableError, match=r"the session history is damaged: `.*/history.db`; stop the server"
        ):
            history.keep_report(REPORT)
    path.unlink()
    seconds[0] = 1.0
    history.keep_report(REPORT)

    assert (1, 2) == (len(told), tries[0])
    history.close()


def test_one_that_was_never_opened_is_closed(tmp_path: Path) -> None:
    """And stays so."""
    (tmp_path / "history.db").mkdir()
    history = ReopeningHistory(lambda: SQLiteSessionHistory(tmp_path / "history.db"), on_failure=lambda _: None)
    history.close()

    with pytest.raises(StoreUnavailableError, match="is closed"):
        history.key()


def test_a_file_shares_values(tmp_path: Path) -> None:
    """What one process has kept, another one sees at once, and after a restart."""
    path, held = tmp_path / "history.db", HeldValues(tree_id="ses_a", clean=(b"v" * 16,))
    with closing(SQLiteSessionHistory(path)) as here, closing(SQLiteSessionHistory(path)) as there:
        here.values().keep(held)
        assert {b"v" * 16: ValueClass.CLEAN} == there.values().classes("ses_a", [b"v" * 16])

    with closing(SQLiteSessionHistory(path)) as again:
        assert 1 == again.values().count("ses_a")


def test_a_nearly_full_disk_takes_no_values(tmp_path: Path) -> None:
    """Forgetting goes on."""
    with closing(SQLiteSessionHistory(tmp_path / "history.db", reserve_bytes=1 << 62)) as opened:
        with pytest.raises(StoreUnavailableError, match="nearly full"):
            opened.values().keep(HeldValues(tree_id="ses_a", clean=(b"v" * 16,)))
        opened.values().forget(["ses_a"])


def test_memory_keeps_values_of_the_trees_of_the_last_reports() -> None:
    """So many in all, and then a tree goes as a whole; the last one stays, however large."""
    history = MemorySessionHistory(most_values=10)
    for number, size in enumerate((4, 4, 1, 2, 12)):
        digests = tuple(f"{number}-{value}".rjust(16).encode() for value in range(size))
        history.values().keep(HeldValues(tree_id=f"ses_{number}", clean=digests))
        if size == 2:
            assert [0, 4, 1, 2] == [history.values().count(f"ses_{one}") for one in range(4)]

    assert ("ses_4",) == history.values().trees(after="", limit=10)


def test_memory_that_values_take_is_bounded() -> None:
    """Trees of the most values, each kept apart, take no more than twenty megabytes together."""
    tracemalloc.start()
    history = MemorySessionHistory()
    for number in range(40):
        digests = tuple(secrets.token_bytes(16) for _ in range(4096 + 512))
        held = HeldValues(tree_id=f"ses_{number}", clean=digests[:4096], tainted=digests[4096:])
        history.values().keep(held)
    del digests, held
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert taken < 20 * 1024 * 1024
    assert 14 == len(history.values().trees(after="", limit=100))


def test_values_take_as_much_of_a_file_as_the_page_says(tmp_path: Path, project_root: Path) -> None:
    """4,608 of a tree, less than 400 KiB; and the room of a tree that has gone is used again."""
    page = (project_root / "pdp" / "deployment" / "README.md").read_text(encoding="utf-8")
    path, trees = tmp_path / "history.db", [f"ses_{number:026}" for number in range(5)]

    def fill(history: SessionHistory, names: list[str]) -> None:
        for name in [name for name in names for _ in range(10)]:
            digests = [secrets.token_bytes(16) for _ in range(520)]
            history.values().keep(HeldValues(tree_id=name, clean=tuple(digests[60:]), tainted=tuple(digests[:60])))
        assert {MOST_TRUSTED + MOST_TAINTED} == {history.values().count(name) for name in names}

    SQLiteSessionHistory(path).close()
    before = path.stat().st_size
    with closing(SQLiteSessionHistory(path)) as history:
        fill(history, trees)
    full = path.stat().st_size
    with closing(SQLiteSessionHistory(path)) as history:
        history.values().forget(trees)
        fill(history, [f"{name}b" for name in trees])

    assert f"at most {MOST_TRUSTED + MOST_TAINTED:,} digests" in page
    assert (full - before) / len(trees) < 400 * 1024
    assert path.stat().st_size < full * 1.1


def test_what_results_held_is_read_while_others_write(tmp_path: Path) -> None:
    """A decision does not wait for a report, of this process or another."""
    path, held = tmp_path / "history.db", HeldValues(tree_id="ses_a", clean=(b"v" * 16,))
    with closing(SQLiteSessionHistory(path, busy_seconds=60.0)) as history:
        history.values().keep(held)
        with closing(apsw.Connection(str(path))) as other, ThreadPoolExecutor(max_workers=1) as thread:
            other.execute("BEGIN IMMEDIATE")
            waits = thread.submit(history.keep_report, REPORT)
            assert {b"v" * 16: ValueClass.CLEAN} == history.values().classes("ses_a", [b"v" * 16])
            assert not waits.done()
            other.execute("COMMIT")
            waits.result()
