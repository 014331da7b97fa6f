"""What was used is remembered until it is over: by all threads and processes, and across their sudden end."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from pdp.calltokens import uses
from pdp.calltokens.refusals import CallTokenRefusedError, Reason
from pdp.calltokens.uses import FileUses, MemoryUses, Uses
from tests.machinery.calltokens import CLAIMS, NOW
from tests.machinery.servers.running import PATIENCE


def in_memory(_: Path) -> Uses:
    """Return the memory of one process."""
    return MemoryUses(wall=lambda: NOW - 60)


def in_a_file(folder: Path) -> Uses:
    """Return the memory in a file."""
    return FileUses(folder / "uses.sqlite", wall=lambda: NOW - 60, boot_id=lambda: "boot-1")


def used(uses: Uses, *, now: float = NOW + 1, **changes: object) -> Reason | None:
    """Use a token up; return why not."""
    try:
        uses.use(replace(CLAIMS, **changes), now=now, skew=5.0)  # type: ignore[arg-type] # any claim
    except CallTokenRefusedError as error:
        return error.reason
    return None


@pytest.mark.parametrize("opened", [in_memory, in_a_file])
def test_of_many_at_once_one_uses_it(tmp_path: Path, opened: Callable[[Path], Uses]) -> None:
    """Of 32 threads with the same token one goes on."""
    uses = opened(tmp_path)
    with ThreadPoolExecutor(32) as threads:
        answers = list(threads.map(lambda _: used(uses), range(32)))

    assert 1 == answers.count(None)
    assert {None, Reason.USED} == set(answers)


def test_a_use_survives_the_sudden_end_of_the_process(tmp_path: Path) -> None:
    """Another process with the same file refuses what one used that was killed."""
    code = """
import os, sys
from pathlib import Path
from tests.calltokens.test_uses import in_a_file, used
print(used(in_a_file(Path(sys.argv[1]))), flush=True)
os.kill(os.getpid(), 9)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], cwd=root, capture_output=True, text=True, check=False, timeout=60
    )

    assert (-signal.SIGKILL, "None\n") == (done.returncode, done.stdout)
    assert Reason.USED is used(in_a_file(tmp_path))


def test_after_a_boot_earlier_tokens_are_refused(tmp_path: Path) -> None:
    """The machine can have lost their uses."""
    again = partial(FileUses, tmp_path / "uses.sqlite", boot_id=lambda: "boot-2")
    in_a_file(tmp_path)
    first, second = again(wall=lambda: NOW), again(wall=lambda: NOW + 50)

    assert Reason.TIME is used(first, issued_at=int(NOW) + 4)
    assert used(first, issued_at=int(NOW) + 6) is None
    assert used(second, issued_at=int(NOW) + 6, id="k" * 43) is None


@pytest.mark.parametrize("opened", [in_memory, in_a_file])
def test_a_use_counts_as_long_as_a_clock_could_take_the_token(tmp_path: Path, opened: Callable[[Path], Uses]) -> None:
    """It is remembered beyond the end of the token by what clocks may differ."""
    uses = opened(tmp_path)
    used(uses)

    assert Reason.USED is used(uses, now=CLAIMS.expires_at + 4.9)


def test_memory_is_bounded_and_forgets_only_what_is_over() -> None:
    """When it is full of tokens that are still good, no other is taken."""
    uses = MemoryUses(most=2, wall=lambda: NOW - 60)
    answers = [used(uses, id=one * 43) for one in "abc"]
    later = used(uses, id="c" * 43, now=NOW + 30, expires_at=int(NOW) + 45)

    assert [None, None, Reason.UNAVAILABLE] == answers
    assert later is None


@pytest.mark.parametrize("opened", [lambda _: MemoryUses(most=2, wall=lambda: NOW - 60), in_a_file])
def test_a_use_counts_also_after_the_clock_was_set_back(tmp_path: Path, opened: Callable[[Path], Uses]) -> None:
    """Nothing that was forgotten meanwhile is taken again, and what ends later is."""
    uses = opened(tmp_path)
    before = used(uses), used(uses, id="k" * 43)
    later = used(uses, id="l" * 43, now=NOW + 3600, expires_at=int(NOW) + 3615)
    back = used(uses), used(uses, id="m" * 43, expires_at=int(NOW) + 16)

    assert ((None, None), None) == (before, later)
    assert (Reason.TIME, None) == back


def test_a_token_that_ends_while_it_is_looked_at_is_refused(tmp_path: Path) -> None:
    """It was good when its time was looked at, and forgotten when it was to be used up."""
    uses = in_a_file(tmp_path)

    assert used(uses) is None
    assert Reason.TIME is used(uses, now=CLAIMS.expires_at + 5.1)


def test_a_file_that_is_being_opened_by_another_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that start together begin with the log beside the file, and the engine would not wait for that."""
    monkeypatch.setattr(uses, "_BUSY_SECONDS", PATIENCE)
    with closing(sqlite3.connect(tmp_path / "uses.sqlite", isolation_level=None, check_same_thread=False)) as other:
        other.execute("CREATE TABLE begun (one)")
        other.execute("BEGIN IMMEDIATE")
        ending = threading.Timer(0.1, other.execute, ["COMMIT"])
        ending.start()
        found = used(in_a_file(tmp_path))
        ending.join()

    assert found is None


def test_only_its_owner_can_change_the_file(tmp_path: Path) -> None:
    """Whoever could would make a used token good again."""
    in_a_file(tmp_path)

    assert 0 == (tmp_path / "uses.sqlite").stat().st_mode & 0o077


def test_a_file_that_others_can_change_is_refused(tmp_path: Path) -> None:
    """It may have been there before, as in a folder of all users."""
    path = tmp_path / "uses.sqlite"
    path.touch(0o666)
    path.chmod(0o666)
    with pytest.raises(PermissionError, match="others can change"):
        in_a_file(tmp_path)
    path.chmod(0o600)

    assert used(in_a_file(tmp_path)) is None


def test_a_machine_without_a_boot_id_has_a_memory_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named by the time of its boot, so that processes that begin one after the other share the memory."""
    monkeypatch.setattr(uses, "_BOOT_ID", tmp_path / "none")
    monkeypatch.setattr("time.clock_gettime", lambda _: 1_000.0)
    monkeypatch.setattr("time.time", lambda: NOW)
    walls = NOW - 60, NOW
    with closing(FileUses(tmp_path / "uses", wall=lambda: walls[0])) as first:
        before = used(first)
        with closing(FileUses(tmp_path / "uses", wall=lambda: walls[1])) as second:
            after = used(second), used(second, id="another")

    assert (None, (Reason.USED, None)) == (before, after)
