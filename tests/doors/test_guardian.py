"""What the guardian of a door does when its door was killed."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pdp.doors import guardian
from pdp.foundation.files import open_private, replacing
from pdp.testing.waiting import wait_until
from tests.machinery.servers.server_process import PATIENCE

# Says that it runs, waits for a word, and then writes what it reads on its stdin.
_COMMAND = """
import sys, time
from pathlib import Path
folder = Path(sys.argv[1])
(folder / "runs").touch()
while not (folder / "go").exists():
    time.sleep(0.01)
print(Path("/dev/stdin").read_text())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a task whose only door was killed."""
    for name in ("lock", "members", "handle"):
        (tmp_path / name).write_text(name)
    return tmp_path


@contextmanager
def guardian_of_killed(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the guardian of a door that was killed."""
    with subprocess.Popen(
        [sys.executable, "-I", guardian.__file__, str(folder), sys.executable, "-c", _COMMAND, str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


def test_the_session_of_the_killed_door_is_ended_and_no_later_one(folder: Path) -> None:
    """The next door can join, and write its own handle, before the command reads one."""
    with guardian_of_killed(folder) as process:
        wait_until((folder / "runs").exists, seconds=PATIENCE)
        with replacing(folder / "handle") as file:
            file.write(b"of the next door")
        (folder / "go").touch()
        said, _ = process.communicate(timeout=PATIENCE)

    assert said == "handle\n"


def test_a_door_that_joins_is_waited_for(folder: Path) -> None:
    """Otherwise it would take up the session that ends now: while the guardian looks, another door seems to have it."""
    (folder / "go").touch()
    lock, members = open_private(folder / "lock"), open_private(folder / "members")
    fcntl.flock(lock, fcntl.LOCK_EX)
    with guardian_of_killed(folder) as process:
        # Long enough for one that does not wait; it is not asserted that the guardian has come so far.
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.0)
        fcntl.flock(members, fcntl.LOCK_SH)
        os.close(lock)
        said, _ = process.communicate(timeout=PATIENCE)
        os.close(members)

    assert (said, process.returncode, (folder / "runs").exists()) == ("", 0, False)
