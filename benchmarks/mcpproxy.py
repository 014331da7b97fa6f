"""Measure what the MCP proxy adds to a call over pipes: `python -m benchmarks.mcpproxy`.

One client writes one call at a time to a server that answers at once: directly, through `pdp mcp` before a server of
its own (`pdp serve`), and through `pdp mcp --embedded`, in turns within each round. A ping, about which nobody is
asked, shows what handing on costs. CPU is that of the proxy's process. Figures are medians over rounds; what is added
is the difference to "direct" in the same round. A first round warms up and does not count.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from benchmarks.echoserver import TOOL
from pdp.bench.processes import cpu_seconds
from pdp.client import Client, PDPClientError
from pdp.testing.bundles import bundle_files
from pdp.testing.inprocess import write_folder

DIRECT, SERVED, EMBEDDED = "direct", "pdp mcp, pdp serve", "pdp mcp --embedded"
_PATIENCE = 60.0
SERVER = (sys.executable, str(Path(__file__).parent / "echoserver.py"))
PDP = (sys.executable, "-m", "pdp.cli")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one way took for one kind of request in one round: milliseconds of each, and of CPU for each."""

    median: float
    most: float
    cpu: float


class Pipes:
    """One conversation with a server, one request at a time."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._numbers = itertools.count(1)

    def measure(self, count: int, method: str, params: Callable[[int], dict[str, Any]]) -> Figures:
        """Make some requests, each when the one before is answered well."""
        began, took = cpu_seconds(self._process.pid), []
        for _ in range(count):
            number = next(self._numbers)
            line = json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params(number)}).encode()
            start = time.perf_counter()
            answer = self._exchange(line)
            took.append(time.perf_counter() - start)
            value = json.loads(answer)
            if value["id"] != number or value["result"].get("isError"):
                sys.exit(f"a wrong answer: {answer.decode()}")
        took.sort()
        spent = (cpu_seconds(self._process.pid) - began) / count
        return Figures(median=1e3 * statistics.median(took), most=1e3 * took[int(len(took) * 0.95)], cpu=1e3 * spent)

    def greet(self) -> None:
        """Begin as a client of the era with a handshake does."""
        hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "small", "version": "1"}}
        line = {"jsonrpc": "2.0", "id": next(self._numbers), "method": "initialize", "params": hello}
        self._exchange(json.dumps(line).encode())
        to = pipe(self._process.stdin)
        to.write(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
        to.flush()

    def call_the_same(self) -> None:
        """Call, with the same arguments each time. Ends the program if that is not answered well."""
        self.measure(1, "tools/call", lambda _: _call("the same"))

    def called(self) -> bool:
        """Call once; say whether that was allowed."""
        line = {"jsonrpc": "2.0", "id": next(self._numbers), "method": "tools/call", "params": _call("first")}
        return json.loads(self._exchange(json.dumps(line).encode()))["result"]["isError"] is False

    def _exchange(self, line: bytes) -> bytes:
        to, back = pipe(self._process.stdin), pipe(self._process.stdout)
        to.write(line + b"\n")
        to.flush()
        return back.readline()


def pipe(stream: IO[bytes] | None) -> IO[bytes]:
    """Return a pipe of a process."""
    if stream is None:
        raise AssertionError("the process was started with pipes")
    return stream


def _call(text: str) -> dict[str, Any]:
    return {"name": TOOL["name"], "arguments": {"text": text}}


KINDS: dict[str, tuple[str, Callable[[int], dict[str, Any]]]] = {
    "a ping, which is not asked about": ("ping", lambda _: {}),
    "a call, its decision remembered": ("tools/call", lambda _: _call("the same")),
    "a call, its decision new": ("tools/call", lambda number: _call(f"number {number}")),
}


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


def write_policies(folder: Path, *, reports: bool) -> None:
    """Write policies that permit the tool of the server."""
    files = bundle_files(
        # The text is read, so that an answer is remembered for one text alone.
        policies={
            "echo": '@id("echo/all")\npermit (principal, action == Action::"echo/echo", resource)\n'
            'when { context.input has text && context.input.text != "" };\n'
        },
        tools={"echo": [TOOL]},
        overlays={"echo": "tools: {echo: {risk: read_only}}\n"},
        directory='users: {alice: {}, approver: {}}\nagents: {coder: {ceiling: ["echo/*"]}}\n',
        labels=("tainted",) if reports else (),
    )
    write_folder(folder, files)


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


def served(folder: Path, opened: ExitStack, *more: str) -> str:
    """Serve the policies of a folder until the stack is closed, with more flags; return the address."""
    words = ("serve", "--server-address", "127.0.0.1:0", "--server-workers", "1")
    serving = opened.enter_context(running(*PDP, *words, *more, folder=folder))
    found = re.search(rb"listening on (\S+)", pipe(serving.stdout).readline())
    if found is None:
        sys.exit("the server does not listen")
    return found[1].decode()


def _ways(folder: Path, opened: ExitStack, *, reports: bool) -> dict[str, Pipes]:
    """Start everything, and return a conversation for each way."""
    write_policies(folder / "policies", reports=reports)

    def start(*command: str) -> subprocess.Popen[bytes]:
        return opened.enter_context(running(*command, folder=folder))

    request = ("--request", "to measure", "--user", "alice", "--agent", "coder", "--server", "echo")
    address, data = served(folder, opened), folder / ".pdp"
    asking = Pipes(start(*PDP, "mcp", *request, "--address", address, "--", *SERVER))
    approve(address, data)
    own = folder / "embedded"
    embedded = Pipes(start(*PDP, "mcp", *request, "--embedded", "--data-dir", str(own), "--", *SERVER))
    while not (own / "tokens" / "approver.token").exists():
        time.sleep(0.1)
    approve(f"unix:{own / 'server.sock'}", own)
    for pipes in (asking, embedded):
        while not pipes.called():
            time.sleep(0.1)
    return {DIRECT: Pipes(start(*SERVER)), SERVED: asking, EMBEDDED: embedded}


def _table(rounds: list[dict[str, dict[str, Figures]]]) -> str:
    lines = ["| | direct | through | more | p95 through | CPU of the proxy |", "|---|---|---|---|---|---|"]
    for way in (SERVED, EMBEDDED):
        for kind in KINDS:
            direct = [one[DIRECT][kind] for one in rounds]
            through = [one[way][kind] for one in rounds]
            more = [after.median - before.median for before, after in zip(direct, through, strict=True)]
            cells = (
                statistics.median(one.median for one in direct),
                statistics.median(one.median for one in through),
                statistics.median(more),
                statistics.median(one.most for one in through),
                statistics.median(one.cpu for one in through),
            )
            lines.append(f"| `{way}`: {kind} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure in turns, and print the table, in milliseconds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mcpproxy", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=100, help="of each kind, in each round")
    parser.add_argument("--reports", action="store_true", help="with a bundle that wants to know what came of calls")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as opened:
        ways = _ways(Path(name), opened, reports=arguments.reports)
        rounds = []
        for number in range(arguments.rounds + 1):
            order = [*ways][number % len(ways) :] + [*ways][: number % len(ways)]
            rounds.append(
                {
                    way: {kind: ways[way].measure(arguments.requests, *asked) for kind, asked in KINDS.items()}
                    for way in order
                }
            )
    print(_table(rounds[1:]))


if __name__ == "__main__":
    main()
