"""Measure a brokered call beside a direct one: `python -m benchmarks.broker`.

One client makes one call at a time of an upstream on loopback that answers at once: itself with the key, and through
`pdp-broker`, which builds the request (`connector`) or passes it on (`proxy`). The server that says whether call tokens
still count, the broker and the upstream are processes of their own. The tokens are got before, and not measured: a
gateway asks anyway. All ways are measured in turns within each round, and what is added is the difference to the direct
call of the same round. Each opens a connection to the upstream for itself. A first round warms up and does not count.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import grpc

from benchmarks.mcpproxy import approve, pipe, running, served
from pdp.broker.opening import make_broker, opened_vault
from pdp.broker.serving import USES_FILE
from pdp.broker.v1 import broker_pb2, broker_pb2_grpc
from pdp.broker.words import Connection, Mode
from pdp.calltokens.uses import FileUses
from pdp.client import CallTokenRequest, Client
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.inprocess import write_folder

_ISSUER, _AUDIENCE, _KEY = "https://pdp.example", "https://broker.example", "a-key-of-the-upstream"
_ARGUMENTS = {"path": "n"}
_UPSTREAM = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        good = self.headers["Authorization"] == "Bearer a-key-of-the-upstream"
        self.send_response(200 if good else 401)
        self.send_header("Content-Length", "13")
        self.end_headers()
        self.wfile.write(b'{"done":true}')
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
print(server.server_address[1], flush=True)
server.serve_forever()
"""
_RULES = """
notes:
  kind: notes
  proxy: {methods: [GET], paths: [/v1/]}
  tools: {read: {method: GET, path: "/v1/{path}"}}
"""

_OVERLAY = f"audiences: [{_AUDIENCE}]\nconnection: {{kind: notes}}\ntools: {{read: {{risk: read_only}}}}\n"

# Makes one call with a call token, and ends the program if it is not answered well.
Call = Callable[[str], None]


class World:
    """Everything that runs."""

    def __init__(self, folder: Path, opened: ExitStack) -> None:
        self._folder, self._opened = folder, opened
        upstream = opened.enter_context(running(sys.executable, "-c", _UPSTREAM, folder=folder))
        self._port = int(pipe(upstream.stdout).readline())
        self._address = self._serve_pdp()
        self._serve_broker()
        data = folder / ".pdp"
        self._gateway = opened.enter_context(
            Client(self._address, data_dir=data, token_file=data / "tokens" / "pep.token")
        )
        wish = self._gateway.request_session(user="alice", agent="coder", purpose="to measure", tools=["notes/*"])
        self._handle = wish.session_handle
        approve(self._address, data)
        self._stub = broker_pb2_grpc.BrokerServiceStub(  # type: ignore[no-untyped-call]  # generated
            opened.enter_context(grpc.insecure_channel(f"unix:{folder}/calls.sock"))
        )

    @property
    def ways(self) -> dict[str, Call]:
        """Return the ways to make the call; the first is the control."""
        return {"direct, with the key": self._direct, "`connector`": self._connector, "`proxy`": self._proxy}

    def token(self) -> str:
        """Return a call token, of an allow."""
        wanted = CallTokenRequest(audience=_AUDIENCE)
        return (
            self._gateway.authorize(self._handle, "notes", "read", _ARGUMENTS, call_tokens=(wanted,))
            .call_tokens[0]
            .token
        )

    def _direct(self, _: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        _good(connection, "/v1/n", {"Authorization": f"Bearer {_KEY}"})

    def _connector(self, token: str) -> None:
        arguments = json.dumps(_ARGUMENTS).encode()
        asked = broker_pb2.CallRequest(call_token=token, server="notes", tool="read", arguments_json=arguments)
        if (status := self._stub.Call(asked).status) != http.client.OK:
            sys.exit(f"a wrong answer: {status}")

    def _proxy(self, token: str) -> None:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(f"{self._folder}/http.sock")
        _good(connection, "/notes/v1/n", {"pdp-call-token": token})

    def _serve_pdp(self) -> str:
        files = bundle_files(
            policies={"notes": '@id("notes/all") permit (principal, action, resource);'},
            tools={"notes": [tool("read", {"path": {"type": "string"}})]},
            overlays={"notes": _OVERLAY},
            directory='users: {alice: {}, approver: {}}\nagents: {coder: {ceiling: ["notes/*"]}}\n',
        )
        write_folder(self._folder / "policies", files)
        return served(self._folder, self._opened, "--call-tokens-issuer", _ISSUER)

    def _serve_broker(self) -> None:
        make_broker(self._folder)
        # What was used before the memory of uses began is not known, so younger tokens alone are good.
        FileUses(self._folder / USES_FILE, wall=lambda: time.time() - 60).close()
        with opened_vault(self._folder, lambda _: None) as vault:
            row = Connection(
                id="notes-1",
                tenant="default",
                compartment="",
                kind="notes",
                upstream=f"http://127.0.0.1:{self._port}",
                modes=(Mode.CONNECTOR, Mode.PROXY),
            )
            vault.add(row, by="benchmark")
            vault.put("notes-1", _KEY.encode(), by="benchmark")
        settings = {
            "issuer": _ISSUER,
            "audience": _AUDIENCE,
            "calls": "unix:calls.sock",
            "http": "unix:http.sock",
            "pdp": {
                "address": self._address,
                "token_file": ".pdp/tokens/broker.token",
                "tls_roots": ".pdp/tls/ca.pem",
            },
        }
        for name, text in (("broker.yaml", json.dumps(settings)), ("rules.yaml", _RULES)):
            (self._folder / name).write_text(text)
            (self._folder / name).chmod(0o600)
        broker = self._opened.enter_context(
            running(sys.executable, "-m", "pdp.broker.cli", "serve", folder=self._folder)
        )
        if not all(pipe(broker.stdout).readline().startswith(b"listening") for _ in range(2)):
            sys.exit("the broker does not listen")


def _good(connection: http.client.HTTPConnection, path: str, headers: dict[str, str]) -> None:
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    if (answer.status, answer.read()) != (http.client.OK, b'{"done":true}'):
        sys.exit(f"a wrong answer: {answer.status}")
    connection.close()


def measured(world: World, rounds: int, count: int) -> list[dict[str, float]]:
    """Return the median of each way in each round, in milliseconds."""
    ways, found = list(world.ways.items()), []
    for number in range(rounds + 1):
        first = number % len(ways)
        one = {}
        for name, call in (*ways[first:], *ways[:first]):
            took = []
            for token in [world.token() for _ in range(count)]:
                start = time.perf_counter()
                call(token)
                took.append(time.perf_counter() - start)
            one[name] = 1e3 * statistics.median(took)
        found.append(one)
    return found[1:]


def table(ways: list[str], rounds: list[dict[str, float]]) -> str:
    """Return the medians over all rounds; what is added is paired."""
    lines = ["| | ms | more than direct | ratio |", "|---|---|---|---|"]
    for way in ways:
        took = statistics.median(one[way] for one in rounds)
        more = statistics.median(one[way] - one[ways[0]] for one in rounds)
        ratio = statistics.median(one[way] / one[ways[0]] for one in rounds)
        lines.append(f"| {way} | {took:.2f} | " + ("| |" if way == ways[0] else f"{more:.2f} | {ratio:.1f} |"))
    return "\n".join(lines)


def main() -> None:
    """Measure in turns, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.broker", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=60, help="by each way, in each round")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as opened:
        world = World(Path(name), opened)
        rounds = measured(world, arguments.rounds, arguments.requests)
        print(table(list(world.ways), rounds))


if __name__ == "__main__":
    main()
