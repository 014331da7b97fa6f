"""Measure what each door adds to a call: `python -m benchmarks.doors`.

One client makes one call at a time of a server that answers at once: without a door, through each door of ours, and
through the proxies of the `mcp` SDK and of FastMCP, which ask nobody. All ways are measured in turns within each round,
and what is added is the difference to the control of the same round. A first round warms up and does not count.

It needs what `make .venv-doors/ready .venv-doors/envoy/ready` installs, and takes minutes.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.mcpproxy import PDP, SERVER, Pipes, approve, pipe, running, served, write_policies
from pdp.client import Client
from tests.doors.envoy.real.world import running_envoy
from tests.machinery.ports import free_port

_ROOT = Path(__file__).parents[1]
_OTHERS = (str(_ROOT / ".venv-doors" / "bin" / "python"), str(Path(__file__).parent / "otherproxies.py"))
_META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "small", "version": "1"},
}
_PATIENCE = 60.0
_ENVOY_ROUTE = "check_settings:\n                                context_extensions: {server: git}"

# Makes one call, the numbered one, and ends the program if it is not answered well.
Call = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The ways to make the same call, by their names; the first is the control."""

    name: str
    ways: Mapping[str, Call]


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
        params = {"name": "echo", "arguments": {"text": "the same"}, "_meta": _META}
        said = self.send({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})
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


class World:
    """Everything that runs: the PDP, and a server over HTTP."""

    def __init__(self, folder: Path, opened: ExitStack) -> None:
        self.folder = folder
        self.opened = opened
        write_policies(folder / "policies", reports=False)
        self.address = served(folder, opened)
        backend = opened.enter_context(running(*SERVER, "--http", folder=folder))
        self.backend = int(pipe(backend.stdout).readline())
        self.url = f"http://127.0.0.1:{self.backend}/mcp"
        with Client(self.address, data_dir=self.data, token_file=self.data / "tokens" / "pep.token") as gateway:
            wish = gateway.request_session(user="alice", agent="coder", purpose="to measure", tools=["echo/*"])
            self.handle = wish.session_handle
        approve(self.address, self.data)

    @property
    def data(self) -> Path:
        """Return the data folder of the PDP."""
        return self.folder / ".pdp"

    def pipes(self, *command: str) -> Call:
        """Return calls over pipes, after the greeting."""
        conversation = Pipes(self.opened.enter_context(running(*command, folder=self.folder)))
        conversation.greet()
        return lambda _: conversation.call_the_same()

    def listening(self, *command: str) -> int:
        """Run a program of ours or of others that is told its port, and return the port."""
        port = free_port()
        words = [word.replace("PORT", str(port)) for word in command]
        self.opened.enter_context(running(*words, folder=self.folder))
        return port

    def asked(self) -> tuple[str, ...]:
        """Return how a door reaches the PDP."""
        return ("--address", self.address)


def over_pipes(world: World) -> Group:
    """Return the ways over pipes. A person approves the sessions of both proxies of ours."""
    wish = ("--request", "to measure", "--user", "alice", "--agent", "coder", "--server", "echo")
    own = world.folder / "embedded"
    asking = world.pipes(*PDP, "mcp", *wish, *world.asked(), "--", *SERVER)
    approve(world.address, world.data)
    embedded = world.pipes(*PDP, "mcp", *wish, "--embedded", "--data-dir", str(own), "--", *SERVER)
    approve(f"unix:{own / 'server.sock'}", own)
    return Group(
        name="over pipes",
        ways={
            "no door": world.pipes(*SERVER),
            "`pdp mcp`": asking,
            "`pdp mcp --embedded`": embedded,
            "`mcp` SDK, asks nobody": world.pipes(*_OTHERS, "sdk", "pipes", *SERVER),
            "FastMCP, asks nobody": world.pipes(*_OTHERS, "fastmcp", "pipes", *SERVER),
        },
    )


def over_http(world: World) -> Group:
    """Return the ways over HTTP."""
    door = world.listening(
        *(*PDP, "mcp", "--server", "echo", "--upstream", world.url, "--listen", "127.0.0.1:PORT"), *world.asked()
    )
    return Group(
        name="over HTTP",
        ways={
            "no door": Posts(world.backend).call,
            "`pdp mcp --listen`": Posts(door, world.handle).call,
            "`mcp` SDK, asks nobody": Posts(world.listening(*_OTHERS, "sdk", "PORT", world.url)).call,
            "FastMCP, asks nobody": Posts(world.listening(*_OTHERS, "fastmcp", "PORT", world.url)).call,
        },
    )


def with_envoy(world: World) -> Group:
    """Return Envoy as its page configures it, without and with the question."""
    door = world.listening(*PDP, "door", "envoy", "--listen", "127.0.0.1:PORT", *world.asked())
    ports = []
    for name, route in (
        ("alone", "disabled: true"),
        ("asking", _ENVOY_ROUTE.replace("git", "echo")),
    ):
        folder = world.folder / name
        folder.mkdir()
        envoy = running_envoy(folder, door=door, backend=world.backend, changes={_ENVOY_ROUTE: route})
        ports.append(world.opened.enter_context(envoy).port)
    alone, asking = (Posts(port, world.handle).call for port in ports)
    return Group(name="Envoy", ways={"Envoy alone": alone, "`pdp door envoy`": asking})


def with_authzen(world: World) -> Group:
    """Return a gateway that asks before its call, in the words of AuthZEN."""
    door = world.listening(*PDP, "door", "authzen", "--listen", "127.0.0.1:PORT", "--own-caller", *world.asked())
    asking, direct = Posts(door, world.handle, "/access/v1/evaluation"), Posts(world.backend)
    question = {
        "subject": {"type": "user", "id": "alice"},
        "action": {"name": "tools/call"},
        "resource": {"type": "tool", "id": "echo/echo"},
        "context": {"arguments": {"text": "the same"}},
    }

    def asked(number: int) -> None:
        said = asking.send(question)
        if said["decision"] is not True:
            sys.exit(f"a wrong answer: {said}")
        direct.call(number)

    return Group(name="a gateway", ways={"no question": Posts(world.backend).call, "`pdp door authzen`": asked})


def _median(call: Call, count: int, numbers: itertools.count[int]) -> float:
    """Return milliseconds."""
    took = []
    call(next(numbers))  # opens a connection again, if need be
    for _ in range(count):
        number, start = next(numbers), time.perf_counter()
        call(number)
        took.append(time.perf_counter() - start)
    return 1e3 * statistics.median(took)


def measured(groups: list[Group], rounds: int, count: int) -> list[dict[tuple[str, str], float]]:
    """Return the median of each way in each round."""
    ways = [((group.name, way), call) for group in groups for way, call in group.ways.items()]
    numbers = itertools.count(1)
    found = []
    for number in range(rounds + 1):
        first = number % len(ways)
        found.append({name: _median(call, count, numbers) for name, call in (*ways[first:], *ways[:first])})
    return found[1:]


def table(groups: list[Group], rounds: list[dict[tuple[str, str], float]]) -> str:
    """Return the medians over all rounds; what is added is paired."""
    lines = ["| | ms | more than without | ratio |", "|---|---|---|---|"]
    for group in groups:
        control = next(iter(group.ways))
        for way in group.ways:
            pairs = [(one[group.name, control], one[group.name, way]) for one in rounds]
            took = statistics.median(after for _, after in pairs)
            more = statistics.median(after - before for before, after in pairs)
            ratio = statistics.median(after / before for before, after in pairs)
            cells = ("", "") if way == control else (f"{more:.2f}", f"{ratio:.1f}")
            lines.append(f"| {group.name}: {way} | {took:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure in turns, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.doors", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=60, help="by each way, in each round")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as opened:
        world = World(Path(name), opened)
        groups = [over_pipes(world), over_http(world), with_envoy(world), with_authzen(world)]
        rounds = measured(groups, arguments.rounds, arguments.requests)
    print(table(groups, rounds))


if __name__ == "__main__":
    main()
