"""`pdp tools import --url` from a server that means ill: nothing fills the memory, and nothing hangs."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run

pytest.importorskip("mcp")

MEBIBYTE = 1024 * 1024
MORE_THAN_IS_READ = 64 * MEBIBYTE
TOO_MUCH = "it answers more than 16777216 bytes"
JSON, EVENTS = "application/json", "text/event-stream"


class Hostile(BaseHTTPRequestHandler):
    """Shakes hands as an MCP server does, and answers `tools/list` in its own way."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        """Answer one message."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked["method"])
        if self.server.kind == "redirect":
            self.answer(b"", 307, Location=f"{self.path}x")
        elif self.server.kind == "elsewhere":
            self.answer(b"", 307, Location="http://127.0.0.2:1/mcp")
        elif "id" not in asked:
            self.answer(b"", 202)
        elif asked["method"] == "initialize":
            version = asked["params"]["protocolVersion"]
            about = {"capabilities": {"tools": {}}, "serverInfo": {"name": "x", "version": "1"}}
            self.result(asked, {"protocolVersion": version, **about})
        elif asked["method"] == "tools/list":
            self.list_tools(asked)
        else:
            self.answer(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32601, "message": "no"}}))

    def do_GET(self) -> None:
        """Have nothing to say by itself."""
        self.answer(b"", 405)

    def list_tools(self, asked: dict[str, Any]) -> None:
        """Answer as the server's kind does."""
        match self.server.kind:
            case "packed":
                self.answer(gzip.compress(b" " * MORE_THAN_IS_READ), Content_Encoding="gzip")
            case "one long answer":
                self.pour(b" " * MEBIBYTE, JSON)
            case "one long event":
                self.pour(b" " * MEBIBYTE, EVENTS)
            case "endless comments":
                self.pour(b": x\n" * (MEBIBYTE // 4), EVENTS)
            case "silent":
                self.server.over.wait()
            case "many pages":
                self.result(asked, {"tools": [], "nextCursor": "again", "_meta": {"x": "x" * MEBIBYTE}})

    def result(self, asked: dict[str, Any], result: object) -> None:
        """Answer with a result."""
        self.answer(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}))

    def answer(self, body: str | bytes, status: int = 200, **headers: str) -> None:
        """Answer with a body of known length."""
        content = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in {"Content-Type": JSON, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.pass_on(content)

    def pour(self, piece: bytes, kind: str) -> None:
        """Answer until the other side has closed, or has taken far more than it should."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while self.server.poured < MORE_THAN_IS_READ and self.pass_on(b"%x\r\n%s\r\n" % (len(piece), piece)):
            self.server.poured += len(piece)

    def pass_on(self, content: bytes) -> bool:
        """Send bytes, and say whether the other side still takes them."""
        try:
            self.wfile.write(content)
        except ConnectionError:
            self.close_connection = True
            return False
        return True

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """A server of one kind, with what it was asked and how much it poured out."""

    daemon_threads = True
    # A handler that waits ends with the test, not before it.
    block_on_close = False

    def handle_error(self, *_: Any) -> None:
        """Say nothing: the command closes the connection when it has had enough."""

    def __init__(self, kind: str) -> None:
        super().__init__(("127.0.0.1", 0), Hostile)
        self.kind = kind
        self.asked: list[str] = []
        self.poured = 0
        self.over = threading.Event()


@contextmanager
def hostile(kind: str) -> Iterator[tuple[Server, str]]:
    """Run a server, and give its URL."""
    with Server(kind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server, f"http://127.0.0.1:{server.server_port}/mcp"
        finally:
            server.over.set()
            server.shutdown()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("one long answer", TOO_MUCH),
        ("one long event", TOO_MUCH),
        ("endless comments", TOO_MUCH),
        ("many pages", TOO_MUCH),
        ("packed", "it answers in the encoding `gzip`, which was not requested"),
        ("elsewhere", "redirect to http://127.0.0.2:1/mcp not followed"),
        ("redirect", "redirect to http://127.0.0.1:"),
    ],
)
def test_what_a_server_answers_is_bounded(run: Run, kind: str, expected: str) -> None:
    """However it answers, the command ends with one line that names the bound, and has read no more."""
    with hostile(kind) as (server, url):
        done = run("tools", "import", "x", "--url", url, "--timeout", "5m")

    assert 2 == done.exit_code
    assert done.stderr.startswith(f"error: cannot list the tools of `{url}`: {expected}")
    assert 1 == done.stderr.count("\n")
    assert server.poured < MORE_THAN_IS_READ
    assert len(server.asked) < 40
    assert [] == list(Path().iterdir())


def test_a_server_that_never_answers_is_given_up(run: Run) -> None:
    """The bound on time is for the whole conversation, not for one answer."""
    with hostile("silent") as (_, url):
        done = run("tools", "import", "x", "--url", url, "--timeout", "3s")

    assert (2, f"error: cannot list the tools of `{url}`: no answer in 3 s\n") == (done.exit_code, done.stderr)
