"""`pdp mcp` as a process between a client and a server: what it hands to the server, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pdp.testing.inprocess import RunningServer
from pdp.testing.waiting import wait_until
from tests.doors.commands import PDP, PDP_THAT_WAITS
from tests.doors.mcp import oddserver, toolserver
from tests.doors.mcp.conversation import approved

# Processes of several programs: `make doors` runs them.
pytestmark = pytest.mark.doors

PATIENCE = 60
GREETING = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "small", "version": "1"}}
CALL = {"jsonrpc": "2.0", "id": "call", "method": "tools/call", "params": {"name": "read", "arguments": {"n": 1.0}}}
# The usual server, which nobody reads; and those that do not end by themselves.
UNREAD = "unread"
OBSTINATE = (UNREAD, "stubborn", "obedient", "floods", "endless", "deaf")
# What a server can make the proxy hold at most, beside itself: messages of 16 MiB.
MOST_MEMORY_KIB = 400 * 1024
_LOOKS = 100


class Door:
    """A client of `pdp mcp`, with the process, its session and the file in which the server writes."""

    def __init__(self, pdp: RunningServer, folder: Path, way: str, *options: str) -> None:
        self.opened = approved(pdp)
        self.kept = folder / "kept"
        self.handle_file = folder / "handle"
        self.handle_file.write_text(self.opened.session_handle, encoding="ascii")
        token = folder / "token"
        token.write_text(pdp.token("pep"), encoding="ascii")
        for file in (self.handle_file, token):
            file.chmod(0o600)
        odd = way not in ("", UNREAD)
        program = [oddserver.__name__, str(self.kept), way] if odd else [toolserver.__name__, str(self.kept)]
        own = PDP if way in OBSTINATE else PDP_THAT_WAITS
        session = () if "--session-handle-fd" in options else ("--session-handle-file", str(self.handle_file))
        self.command = [
            *(*own, "mcp", "--server", "files", "--address", pdp.address, "--plaintext"),
            *("--token-file", str(token), *session, *options, "--", sys.executable, "-m", *program),
        ]
        self.process: subprocess.Popen[bytes]

    def start(self, **more: Any) -> Door:
        """Start it."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(self.command, **{**pipes, **more})
        return self

    def say(self, message: Any) -> None:
        """Write a line."""
        assert self.process.stdin is not None
        line = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def ask(self, method: str, params: Any) -> Any:
        """Ask, and return the answer."""
        self.say({"jsonrpc": "2.0", "id": method, "method": method, "params": params})
        return self.hear()

    def hear(self) -> Any:
        """Return the next line."""
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def end(self) -> tuple[int, str, str]:
        """Close its stdin; return its exit code and what else it has written."""
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out.decode(), err.decode()


@pytest.fixture
def door(pdp: RunningServer, tmp_path: Path) -> Iterator[Callable[..., Door]]:
    """Return what makes the proxy before a server of a way; what is left of it ends with the test."""
    made: list[Door] = []

    def make(way: str = "", *options: str) -> Door:
        made.append(Door(pdp, tmp_path, way, *options))
        return made[-1]

    yield make
    for process in (one.process for one in made if hasattr(one, "process")):
        process.kill()
        process.wait(PATIENCE)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def resident_kib(process: subprocess.Popen[bytes]) -> int:
    """Return the most memory that a process has had."""
    lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def test_the_proxy_is_a_server_to_its_client(door: Callable[..., Door]) -> None:
    """It greets, lists, runs what is allowed with the very bytes, denies the rest, and ends as the server does."""
    it = door().start()
    greeted = it.ask("initialize", GREETING)
    it.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
    listed = it.ask("tools/list", {})
    line = b'{"method":"tools/call","jsonrpc":"2.0" ,"params":{"name":"read","arguments":{ "path":"\\u00e9"}},"id":1}'
    it.say(line)
    allowed = it.hear()
    denied = it.ask("tools/call", {"name": "hidden"})
    code, out, err = it.end()

    assert "small" == greeted["result"]["serverInfo"]["name"]
    assert ["read", "people", "large", "reset"] == [one["name"] for one in listed["result"]["tools"]]
    assert [False, True] == [one["result"]["isError"] for one in (allowed, denied)]
    assert (0, "", "") == (code, out, err)
    assert [line] == [one for one in it.kept.read_bytes().splitlines() if b"tools/call" in one]


def test_a_line_that_ends_as_on_windows_is_read(door: Callable[..., Door]) -> None:
    """A blank line is none."""
    it = door().start()
    it.say(b"")
    it.say(b"\r")
    it.say(json.dumps(CALL).encode() + b"\r")
    said = it.hear()
    it.end()

    assert said["result"]["isError"] is False


@pytest.mark.parametrize("by", ["file", "descriptor", "environment"])
def test_the_server_gets_nothing_of_the_proxy(door: Callable[..., Door], by: str, tmp_path: Path) -> None:
    """No variable of it, no open file, and no word of the session, however it was given."""
    environment = {**os.environ, "PDP_LOG__LEVEL": "warning", "PDP_TOKEN_FILE": "/nonexistent", "OTHER": "stays"}
    options: tuple[str, ...] = ()
    more: dict[str, Any] = {}
    if by == "descriptor":
        (tmp_path / "open").write_bytes(b"")
        descriptor = os.open(tmp_path / "handle", os.O_RDWR | os.O_CREAT, 0o600)
        options, more = ("--session-handle-fd", str(descriptor)), {"pass_fds": (descriptor,)}
    it = door("nosy", *options)
    if by == "environment":
        at = it.command.index("--session-handle-file")
        del it.command[at : at + 2]
        environment["PDP_SESSION_HANDLE"] = it.opened.session_handle
    it.start(env=environment, **more)
    it.say(CALL)
    said = it.hear()
    _, out, err = it.end()
    seen = it.kept.read_text(encoding="utf-8")

    assert said["result"]["isError"] is False
    kept = {name: value for name, value in environment.items() if not name.startswith("PDP_")}
    # The interpreter of the server itself can set this one.
    assert kept == {name: value for name, value in json.loads(seen)["environment"].items() if name != "LC_CTYPE"}
    assert {"0", "1", "2"} == set(json.loads(seen)["files"])
    lines = it.kept.with_suffix(".lines").read_text(encoding="utf-8")
    assert it.opened.session_handle not in seen + lines + out + err + json.dumps(said)


def test_a_server_that_dies_ends_the_proxy(door: Callable[..., Door], pdp: RunningServer) -> None:
    """The client sees the end, the exit code is the server's, and the call is reported as failed."""
    it = door("dies").start()
    it.say(CALL)
    it.process.wait(PATIENCE)
    code, out, err = it.end()

    assert (7, "", "") == (code, out, err)
    reports = [one for one in pdp.evidence.records if one["kind"] == "call.reported"]
    assert ["failed"] == [
        one["facts"]["status"] for one in reports if one["session_id"] == it.opened.session.session_id
    ]


def test_what_the_server_says_at_the_end_arrives(door: Callable[..., Door]) -> None:
    """Also when it is more than a pipe holds and the client reads it late."""
    it = door("answers_at_the_end").start()
    it.say({"jsonrpc": "2.0", "id": 1, "method": "ping"})
    assert it.process.stdin is not None
    it.process.stdin.close()
    assert it.process.stdout is not None
    wait_until(it.kept.exists, seconds=PATIENCE)
    said = it.process.stdout.read()

    assert 300_000 == len(json.loads(said)["result"]["text"])
    assert 0 == it.process.wait(PATIENCE)


def gone(process_id: int) -> bool:
    """Say whether a process is no more."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(
    ("way", "code", "told"), [("stubborn", 128 + signal.SIGKILL, b"SIGTERM\n"), ("obedient", 128 + signal.SIGTERM, b"")]
)
def test_a_server_that_ignores_the_end_is_ended(door: Callable[..., Door], way: str, code: int, told: bytes) -> None:
    """First it is asked to end, then it is killed; the proxy ends as it did."""
    it = door(way).start()
    wait_until(lambda: it.kept.exists() and it.kept.read_bytes().endswith(b"\n"), seconds=PATIENCE)
    ended, _, err = it.end()

    server = int(it.kept.read_bytes().split(b"\n")[0])
    assert (code, "") == (ended, err)
    assert b"%d\n" % server + told == it.kept.read_bytes()
    assert gone(server)


@pytest.mark.parametrize("stdin", ["open", "closed"])
@pytest.mark.parametrize("way", ["stubborn", "obedient"])
def test_a_signal_ends_server_and_proxy(door: Callable[..., Door], way: str, stdin: str) -> None:
    """Also while the proxy already waits for the server's end: clients send one when that takes too long."""
    it = door(way).start()
    wait_until(lambda: it.kept.exists() and it.kept.read_bytes().endswith(b"\n"), seconds=PATIENCE)
    assert it.process.stdin is not None
    if stdin == "closed":
        it.process.stdin.close()
    it.process.terminate()
    code = it.process.wait(PATIENCE)

    assert 128 + signal.SIGTERM == code
    assert gone(int(it.kept.read_bytes().split(b"\n")[0]))


def test_a_client_that_reads_nothing_more_does_not_keep_the_proxy(door: Callable[..., Door]) -> None:
    """Answers that nobody takes are lost, and the proxy ends."""
    it = door(UNREAD).start()
    for number in range(200):
        it.say({**CALL, "id": number, "params": {"name": "read", "arguments": {"path": "x" * 1_000}}})
    assert it.process.stdin is not None
    it.process.stdin.close()

    # A server that still writes by then is ended by a signal.
    assert it.process.wait(PATIENCE) in {0, 128 + signal.SIGTERM}


def test_a_flood_of_the_server_is_not_kept(door: Callable[..., Door]) -> None:
    """The client's pace is that of the server: what nobody reads stays with it."""
    it = door("floods").start()
    seen: list[str] = []

    def waits() -> bool:
        """Say whether the server has written no more for a while."""
        seen.append(it.kept.read_text(encoding="ascii") if it.kept.exists() else "")
        return seen[-1] != "" and len(seen) > _LOOKS and {seen[-1]} == set(seen[-_LOOKS:])

    wait_until(waits, seconds=PATIENCE)

    assert resident_kib(it.process) < MOST_MEMORY_KIB
    assert int(seen[-1]) < 50


def test_a_line_without_an_end_is_not_kept(door: Callable[..., Door]) -> None:
    """It is dropped as it comes."""
    it = door("endless").start()
    wait_until(lambda: it.kept.exists() and int(it.kept.read_text(encoding="ascii") or 0) > 200, seconds=PATIENCE)

    assert resident_kib(it.process) < MOST_MEMORY_KIB


def test_a_server_that_reads_nothing_costs_no_memory(door: Callable[..., Door]) -> None:
    """The client's lines wait in the client, and the proxy still ends."""
    it = door("deaf").start()
    wait_until(it.kept.exists, seconds=PATIENCE)
    writing = threading.Thread(target=lambda: _write_until_broken(it), daemon=True)
    writing.start()
    writing.join(2.0)
    memory = resident_kib(it.process)
    it.process.terminate()

    assert memory < MOST_MEMORY_KIB
    assert 128 + signal.SIGTERM == it.process.wait(PATIENCE)


def _write_until_broken(it: Door) -> None:
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"x": "x" * 1_000_000}}).encode()
    try:
        for number in range(1_000):
            it.say(line.replace(b'"id": 1', b'"id": %d' % number))
    except (OSError, ValueError):
        return


def test_a_line_of_the_client_that_is_too_long_is_refused(door: Callable[..., Door]) -> None:
    """The next one is read."""
    it = door().start()
    it.say(b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"' + b"x" * 17_000_000 + b'"}}')
    refused = it.hear()
    it.say(CALL)
    allowed = it.hear()
    it.end()

    assert "the message is too large" == refused["error"]["message"]
    assert allowed["result"]["isError"] is False


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["/nonexistent/server"], "the server `/nonexistent/server` cannot be started: no such file or directory"),
        ([""], "cannot be started"),
    ],
)
def test_a_server_that_cannot_be_started_is_named(door: Callable[..., Door], command: list[str], message: str) -> None:
    """The proxy ends at once, with the code for a mistake."""
    it = door()
    it.command = [*it.command[: it.command.index("--") + 1], *command]
    code, out, err = it.start().end()

    assert (2, "") == (code, out)
    assert message in err


def test_a_terminal_or_a_file_is_no_client(door: Callable[..., Door]) -> None:
    """An MCP client starts this command, with pipes."""
    with Path("/dev/null").open("rb") as nothing, Path(__file__).open("rb") as file:
        for stdin in (file, nothing):
            code, out, err = door().start(stdin=stdin).end()

            assert (2, "") == (code, out)
            assert "stdin and stdout must be pipes: an MCP client starts this command" in err
