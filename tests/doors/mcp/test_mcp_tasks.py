"""Sessions that `pdp mcp` asks a server for: shared by a task, and ended whatever becomes of the proxies."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pdp.client import Client
from pdp.model import Role
from pdp.testing.inprocess import write_folder
from pdp.testing.waiting import wait_until
from pdp.v1.session_pb2 import SESSION_STATE_ACTIVE, SESSION_STATE_ENDED, Session
from tests.doors.commands import PDP
from tests.doors.mcp.conversation import FILES
from tests.doors.mcp.doorprocess import DoorProcess, environment
from tests.machinery.servers.server_process import PATIENCE, ServerProcess

# Processes of several programs: `make doors` runs them.
pytestmark = pytest.mark.doors

WISH = ("--request", "to test", "--user", "alice", "--agent", "coder")


class Desk:
    """A server, and a person at it."""

    def __init__(self, server: ServerProcess, folder: Path, approver: Client) -> None:
        self.options = ("--address", server.address, "--data-dir", str(folder / "data"))
        self.approver = approver

    def approve(self, command: str) -> str:
        """Approve the session that a command names; return its id."""
        found = re.search(r"ses_\w+", command)
        assert found is not None
        session_id = found.group()
        digest = self.approver.get_session(session_id).request_digest
        self.approver.approve_session(session_id, request_digest=digest)
        return session_id

    def state(self, session_id: str) -> Session:
        """Return a session."""
        return self.approver.get_session(session_id)

    def ended(self, session_id: str) -> bool:
        """Say whether a session has been ended by its owner."""
        return bool(self.state(session_id).state == SESSION_STATE_ENDED)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Run a server."""
    write_folder(tmp_path / "policies", FILES)
    with ServerProcess(tmp_path, server_workers="1") as server, server.client(Role.APPROVER) as approver:
        yield Desk(server, tmp_path, approver)


def test_the_session_ends_with_the_proxy(desk: Desk, tmp_path: Path) -> None:
    """Of one that its client closes."""
    with DoorProcess(tmp_path / "door", *desk.options, *WISH) as door:
        session_id = desk.approve(door.asked_of_person())
        door.until("read", "ran read")
        assert door.end() == 0

    assert desk.ended(session_id)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_session_ends_with_a_signal(desk: Desk, tmp_path: Path, number: signal.Signals) -> None:
    """Before the process does, and the exit code names the signal."""
    with DoorProcess(tmp_path / "door", *desk.options, *WISH) as door:
        session_id = desk.approve(door.asked_of_person())
        door.process.send_signal(number)

        assert door.process.wait(PATIENCE) == 128 + number
        assert desk.ended(session_id)


def test_the_session_of_a_killed_proxy_ends(desk: Desk, tmp_path: Path) -> None:
    """Nobody cleans up: a guardian does, which a kill of the whole group does not reach."""
    with DoorProcess(tmp_path / "door", *desk.options, *WISH) as door:
        session_id = desk.approve(door.asked_of_person())
        door.until("read", "ran read")
        door.kill()

        wait_until(lambda: desk.ended(session_id), seconds=PATIENCE)


def test_a_task_ends_with_its_last_proxy(desk: Desk, tmp_path: Path) -> None:
    """Whether the others have ended or were killed."""
    task = (*desk.options, *WISH, "--task", "errand")
    with (
        DoorProcess(tmp_path / "one", *task) as one,
        DoorProcess(tmp_path / "two", *task) as two,
        DoorProcess(tmp_path / "three", *task) as three,
    ):
        session_id = desk.approve(one.asked_of_person())
        for door in (one, two, three):
            door.until("read", "ran read")
        assert [session_id] == [one.session_id for one in desk.approver.list_sessions()]
        one.kill()
        assert two.end() == 0
        three.until("read", "ran read")
        assert desk.state(session_id).state == SESSION_STATE_ACTIVE
        assert three.end() == 0

    assert desk.ended(session_id)


def test_a_task_that_was_killed_as_a_whole_begins_anew(desk: Desk, tmp_path: Path) -> None:
    """Who comes later gets none of its authority."""
    task = (*desk.options, *WISH, "--task", "errand")
    with DoorProcess(tmp_path / "one", *task) as one:
        session_id = desk.approve(one.asked_of_person())
        one.until("read", "ran read")
    with DoorProcess(tmp_path / "two", *task) as two:
        assert session_id not in two.asked_of_person()

    wait_until(lambda: desk.ended(session_id), seconds=PATIENCE)


def test_a_task_is_of_one_user_and_agent(desk: Desk, tmp_path: Path) -> None:
    """Another one's proxy gets no session of it."""
    task = (*desk.options, "--task", "errand")
    with DoorProcess(tmp_path / "one", *task, *WISH) as one:
        one.asked_of_person()
        with DoorProcess(tmp_path / "two", *task, "--request", "x", "--user", "bob", "--agent", "coder") as two:
            assert "the task is one of agent `coder` for user `alice`" in two.call("read", path="a")


def test_nothing_of_the_session_reaches_the_tool_server(desk: Desk, tmp_path: Path) -> None:
    """Neither variables of ours, nor open files, nor the handle in whatever it can read of the proxy."""
    probe = tmp_path / "probe.py"
    probe.write_text(
        "import json, os, sys\n"
        "from pathlib import Path\n"
        f"found = Path({str(tmp_path / 'found')!r})\n"
        "found.write_text(json.dumps([sorted(os.environ), sorted(os.listdir('/proc/self/fd'))]))\n"
        "sys.stdin.read()\n"
    )
    environ = environment() | {"PDP_SESSION_HANDLE": "pdps_secret", "PDP_LOG__LEVEL": "warning", "KEPT": "1"}
    with subprocess.Popen(
        [*PDP, "mcp", *desk.options, "--server", "files", "--", "python3", str(probe)],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_until((tmp_path / "found").exists, seconds=PATIENCE)
        _, said = process.communicate(timeout=PATIENCE)
    names, files = _read(tmp_path / "found")

    assert "warning: PDP_SESSION_HANDLE can be read" in said
    assert "pdps_secret" not in said
    assert "KEPT" in names
    assert [] == [name for name in names if name.startswith("PDP_")]
    # The three of every process, and the one that lists them.
    assert len(files) == 4


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a process as another user")
def test_a_server_can_run_as_another_user(desk: Desk) -> None:
    """With no group of the proxy's user."""
    found = Path("/tmp") / f"pdp-run-as-{os.getpid()}"  # noqa: S108 - the other user must reach it
    command = f"id -u > {found}; id -G >> {found}; cat"
    environ = environment() | {"PDP_SESSION_HANDLE": "pdps_secret"}
    try:
        found.touch()
        found.chmod(0o666)
        with subprocess.Popen(
            [*PDP, "mcp", *desk.options, "--server", "files", "--run-as", "nobody", "--", "sh", "-c", command],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            wait_until(lambda: len(found.read_text().split()) == 2, seconds=PATIENCE)
            process.communicate(timeout=PATIENCE)
        user, group = map(int, found.read_text().split())
    finally:
        found.unlink(missing_ok=True)

    assert 0 not in (user, group)


def test_a_user_that_does_not_exist_is_named(desk: Desk) -> None:
    """Before anything runs."""
    done = subprocess.run(
        [*PDP, "mcp", *desk.options, "--server", "files", "--run-as", "nowhere", "--", "true"],
        env=environment() | {"PDP_SESSION_HANDLE": "pdps_secret"},
        stdin=subprocess.PIPE,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )

    assert (done.returncode, "no user of this machine: `nowhere`" in done.stderr) == (2, True)


def _read(path: Path) -> tuple[list[str], list[str]]:
    names, files = json.loads(path.read_text())
    return names, files
