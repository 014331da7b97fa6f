"""`pdp mcp --embedded`: decided in the proxy's own process, after a person's yes, without a server."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from pdp.testing.inprocess import write_folder
from tests.doors.commands import PDP
from tests.doors.mcp.conversation import FILES
from tests.doors.mcp.doorprocess import DoorProcess, environment, run_pdp
from tests.machinery.servers.server_process import PATIENCE

# Processes of several programs: `make doors` runs them.
pytestmark = pytest.mark.doors

WISH = ("--request", "to test", "--user", "alice", "--agent", "coder")


@pytest.fixture
def embedded(tmp_path: Path) -> tuple[str, ...]:
    """Return the options of a proxy that decides by itself, with a data folder of its own, whose name has a blank."""
    write_folder(tmp_path / "policies", FILES)
    return ("--embedded", "--policies", str(tmp_path / "policies"), "--data-dir", str(tmp_path / "a b"), *WISH)


def test_a_person_says_yes_and_tools_run(tmp_path: Path, embedded: tuple[str, ...]) -> None:
    """Nothing runs before; afterwards what the policies permit does, and the session ends with the proxy."""
    with DoorProcess(tmp_path / "door", *embedded) as door:
        command = door.asked_of_person()
        assert [] == door.ran
        run_pdp(f"{command} --yes")
        assert "ran read" in door.until("read", "ran read")
        assert "Denied (default_deny)" in door.call("write", path="a")
        assert door.end() == 0

    assert {"read"} == set(door.ran)
    # Its server has ended with the proxy; the next one shows what became of the session.
    with DoorProcess(tmp_path / "next", *embedded) as door:
        told = door.asked_of_person()
        old, new = (re.search(r"ses_\w+", one) for one in (command, told))
        assert old is not None
        assert new is not None
        assert re.search(r"state +ended", run_pdp(told.replace("approve", "show").replace(new.group(), old.group())))


def test_what_was_read_through_one_server_counts_when_another_writes(tmp_path: Path, embedded: tuple[str, ...]) -> None:
    """Two proxies of one task share one session, which the second one joins, and which ends with the last."""
    task = (*embedded, "--task", "errand")
    with DoorProcess(tmp_path / "one", *task) as one, DoorProcess(tmp_path / "two", *task) as two:
        command = one.asked_of_person()
        assert command == two.asked_of_person()
        run_pdp(f"{command} --yes")
        one.until("read", "ran read")
        two.until("read", "ran read")
        assert one.end() == 0
        # The server was in the first one: the second takes over, with the same session.
        two.until("read", "ran read")
        assert re.search(r"state +active", run_pdp(command.replace("approve", "show")))


def test_another_takes_over_from_a_proxy_that_was_killed(tmp_path: Path, embedded: tuple[str, ...]) -> None:
    """The session goes on where its server begins again."""
    task = (*embedded, "--task", "errand")
    with DoorProcess(tmp_path / "one", *task) as one:
        run_pdp(f"{one.asked_of_person()} --yes")
        one.until("read", "ran read")
        with DoorProcess(tmp_path / "two", *task) as two:
            two.until("read", "ran read")
            one.kill()
            two.until("read", "ran read")


def started(policies: Path, data: Path) -> subprocess.CompletedProcess[str]:
    """Return how a start with these folders has ended."""
    options = ("--embedded", "--policies", str(policies), "--data-dir", str(data), *WISH)
    return subprocess.run(
        [*PDP, "mcp", *options, "--server", "files", "--", "true"],
        env=environment(),
        stdin=subprocess.PIPE,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_data_folder_of_other_policies_is_refused(tmp_path: Path, embedded: tuple[str, ...]) -> None:
    """Sessions of one bundle are not continued with another."""
    with DoorProcess(tmp_path / "one", *embedded) as one:
        one.asked_of_person()
        one.end()
    write_folder(tmp_path / "others", FILES)
    done = started(tmp_path / "others", tmp_path / "a b")

    assert done.returncode == 2
    assert "is the data folder of other policies: pass another --data-dir" in done.stderr


def test_policies_that_are_not_there_take_no_data_folder(tmp_path: Path) -> None:
    """A mistyped name is told, and the next start with the right one finds the data folder free."""
    done = started(tmp_path / "polices", tmp_path / "a b")

    assert done.returncode == 2
    assert f"`{tmp_path / 'polices'}` is no folder of policies" in done.stderr
    assert not (tmp_path / "a b").exists()


def test_policies_that_do_not_load_end_the_proxy(tmp_path: Path) -> None:
    """With the line of the mistake, as every command says it."""
    write_folder(tmp_path / "policies", FILES | {"files.cedar": b"permit;"})
    options = ("--embedded", "--policies", str(tmp_path / "policies"), "--data-dir", str(tmp_path / "a b"), *WISH)
    with subprocess.Popen(
        [*PDP, "mcp", *options, "--server", "files", "--", "cat"],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.wait(PATIENCE) == 2
        assert process.stderr is not None
        said = process.stderr.read()

    assert "files.cedar:1" in said
