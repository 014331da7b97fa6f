"""What runs while doors are measured: our server, one of a tool, and clients of MCP with one call at a time."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from pdp.client import Client, PDPClientError
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.inprocess import write_folder
from tests.machinery.ports import free_port

PDP = (sys.executable, "-m", "pdp.cli")
_TOOLS = (sys.executable, "-m", "pdp.bench.toolserver")
_META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "small", "version": "1"},
}
_CALL = {"name": "echo", "arguments": {"text": "the same"}}
_PATIENCE = 60.0

# Makes one call, the numbered one, and ends the program if it is not answered well.
Call = Callable[[int], None]


class World:
    """Everything that runs: the PDP, and a server over HTTP."""

    def __init__(self, folder: Path, opened: ExitStack, *, reports: bool) -> None:
        self.folder = folder
        self.opened = opened
        _write_policies(folder / "policies", reports=reports)
        tools = (*_TOOLS, str(folder / "policies" / "tools"))
        # What is started over pipes, for the one tool.
        self.server = (*tools, "echo")
        self.address = self._listening_at(*PDP, "serve", "--server-address", "127.0.0.1:0", "--server-workers", "1")
        address = self._listening_at(*tools)
        self.backend = int(address.rpartition(":")[2])
        self.url = f"http://{address}/echo/mcp"
        with Client(self.address, data_dir=self.data, token_file=self.data / "tokens" / "pep.token") as gateway:
            wish = gateway.request_session(user="alice", agent="coder", purpose="to measure", tools=["echo/*"])
            self.handle = wish.session_handle
        approve(self.address, self.data)

    @property
    def data(self) -> Path:
        """Return the data folder of the PDP."""
        return self.folder / ".pdp"

    def pipes(self, *command: str) -> Pipes:
        """Return a conversation over pipes with a program."""
        return Pipes(self.opened.enter_context(running(*command, folder=self.folder)))

    def listening(self, *command: str) -> int:
        """Run a program of ours or of others that is told its port, and return the port."""
        port = free_port()
        words = [word.replace("PORT", str(port)) for word in command]
        self.opened.enter_context(running(*words, folder=self.folder))
        return port

    def asked(self) -> tuple[str, ...]:
        """Return how a door reaches the PDP."""
        return ("--address", self.address)

    def _listening_at(self, *command: str) -> str:
        """Run a program that says its address in its first line, and return the address."""
        process = self.opened.enter_context(running(*command, folder=self.folder))
        found = re.search(rb"listening on (\S+)", pipe(process.stdout).readline())
        if found is None:
            sys.exit("a server does not listen")
        return found[1].decode()


class Pipes:
    """One conversation over pipes with a server of MCP, in the era of the handshake."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "small", "version": "1"}}
        self._exchange({"id": 0, "method": "initialize", "params": hello})
        self._send({"method": "notifications/initialized"})

    def call(self, number: int) -> None:
        """Call the tool."""
        self._ask(number, "tools/call", _CALL)

    def ping(self, number: int) -> None:
        """Ask for nothing, about which no door asks."""
        self._ask(number, "ping", {})

    def _ask(self, number: int, method: str, params: Mapping[str, Any]) -> None:
        said = self._exchange({"id": number, "method": method, "params": params})
        if said["id"] != number or said["result"].get("isError"):
            sys.exit(f"a wrong answer: {said}")

    def _exchange(self, message: Mapping[str, Any]) -> dict[str, Any]:
        self._send(message)
        said: dict[str, Any] = json.loads(pipe(self._process.stdout).readline())
        return said

    def _send(self, message: Mapping[str, Any]) -> None:
        to = pipe(self._process.stdin)
        to.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        to.flush()


class Posts:
    """One connection by HTTP to a server of MCP, in the era without a handshake."""

    def __init__(self, port: int, handle: str = "", path: str = "/mcp") -> None:
        _wait_for(port)
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
        self._path = path
        self._headers = {
            "accept": "application/json, text/event-stream",
            "content-type": "application/json",
            "mcp-protocol-version": "2026-07-28",
            "mcp-method": "tools/call",
            "mcp-name": "echo",
            "x-pdp-session": handle,
        }

    def call(self, number: int) -> None:
        """Call the tool."""
        said = self.send({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {**_CALL, "_meta": _META}})
        if said["id"] != number or said["result"].get("isError"):
            sys.exit(f"a wrong answer: {said}")

    def send(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send JSON, and return the JSON of the answer, which may be an event."""
        try:
            answer = self._exchange(json.dumps(body))
        except (BrokenPipeError, ConnectionResetError):
            # While other ways were measured, the server has closed the connection.
            self._connection.close()
            answer = self._exchange(json.dumps(body))
        text = answer.read().decode()
        if answer.status != http.client.OK:
            sys.exit(f"a wrong answer: {answer.status} {text}")
        if not text.startswith("{"):
            text = next(line for line in text.splitlines() if line.startswith("data: {"))[len("data: ") :]
        said: dict[str, Any] = json.loads(text)
        return said

    def _exchange(self, body: str) -> http.client.HTTPResponse:
        self._connection.request("POST", self._path, body, self._headers)
        return self._connection.getresponse()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    sys.exit(f"nothing listens at port {port}")


def pipe(stream: IO[bytes] | None) -> IO[bytes]:
    """Return a pipe of a process."""
    if stream is None:
        raise AssertionError("the process was started with pipes")
    return stream


@contextmanager
def running(*command: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in a folder, without variables of ours, while the `with` block runs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PDP_")}
    with subprocess.Popen(
        command, cwd=folder, env=kept, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def approve(address: str, data: Path) -> None:
    """Approve the one session that waits, as soon as there is one."""
    deadline = time.monotonic() + _PATIENCE
    with Client(address, data_dir=data, token_file=data / "tokens" / "approver.token") as approver:
        while time.monotonic() < deadline:
            with suppress(PDPClientError):
                for session in approver.list_sessions(state="requested"):
                    approver.approve_session(session.session_id, request_digest=session.request_digest)
                    return
            time.sleep(0.1)
    sys.exit("no session asks for approval")


def _write_policies(folder: Path, *, reports: bool) -> None:
    """Write policies that permit the one tool; with a label, what came of calls is to be reported."""
    files = bundle_files(
        policies={"echo": '@id("echo/all") permit (principal, action == Action::"echo/echo", resource);'},
        tools={"echo": [tool("echo", {"text": {"type": "string"}})]},
        overlays={"echo": "tools: {echo: {risk: read_only}}\n"},
        directory='users: {alice: {}, approver: {}}\nagents: {coder: {ceiling: ["echo/*"]}}\n',
        labels=("tainted",) if reports else (),
    )
    write_folder(folder, files)
