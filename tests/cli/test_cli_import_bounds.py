"""`pdp tools import --upstream` from servers of other kinds: nothing fills the memory, and each mistake is named."""

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
STATUSES = {"401": 401, "403": 403, "404": 404, "503": 503}
JSON, EVENTS = "application/json", "text/event-stream"


class Hostile(BaseHTTPRequestHandler):
    """Shakes hands as an MCP server does, and answers `tools/list` in its own way."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        """Answer one message."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked["method"])
        if self.server.kind in STATUSES:
            self.answer(b"", STATUSES[self.server.kind])
        elif self.server.kind == "a web page":
            self.answer(b"<html>", Content_Type="text/html; charset=utf-8")
        elif self.server.kind == "a text":
            self.answer(b"hello", Content_Type="text/plain")
        elif asked["method"] != "initialize" and "Mcp-Session-Id" not in self.headers:
            self.answer(json.dumps({"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": "no"}}), 400)
        elif self.server.kind == "redirect":
            self.answer(b"", 307, Location=f"{self.path}x")
        elif self.server.kind == "elsewhere":
            self.answer(b"", 307, Location="http://127.0.0.2:1/mcp")
        elif "id" not in asked:
            self.answer(b"", 202)
        elif asked["method"] == "initialize":
            version = asked["params"]["protocolVersion"]
            about = {"capabilities": {"tools": {}}, "serverInfo": {"name": "x", "version": "1"}}
            self.result(asked, {"protocolVersion": version, **about}, Mcp_Session_Id="s1")
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
            case "two pages":
                cursor = asked.get("params", {}).get("cursor", "1")
                named = {"name": f"get_{cursor}", "description": None, "inputSchema": {"type": "object"}}
                self.result(asked, {"tools": [named], **({"nextCursor": "2"} if cursor == "1" else {})})
            case "an error":
                self.answer(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": {"code": 1, "message": "a\nb"}}))
            case "no list":
                self.result(asked, {"tools": "none"})
            case "many pages":
                self.result(asked, {"tools": [], "nextCursor": "again", "_meta": {"x": "x" * MEBIBYTE}})

    def do_DELETE(self) -> None:
        """End the session."""
        self.server.asked.append(f"DELETE {self.headers['Mcp-Session-Id']}")
        self.answer(b"", 200)

    def result(self, asked: dict[str, Any], result: object, **headers: str) -> None:
        """Answer with a result."""
        self.answer(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), 200, **headers)

    def answer(self, body: str | bytes, status: int = 200, **headers: str) -> None:
        """Answer with a body of known length."""
        content = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        said = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {"Content-Type": JSON, "Content-Length": str(len(content)), **said}.items():
            self.send_header(name, value)
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
        ("elsewhere", "it redirects to `http://127.0.0.2:1/mcp`, which is not followed: name that URL if it is the"),
        ("redirect", "it redirects to `/mcpx`, which is not followed"),
        ("401", "it wants credentials (status 401): give them in a file of headers"),
        ("403", "it refuses to list its tools for this client or these credentials (status 403)"),
        ("404", "it answers with the status 404: the URL of a server often ends in `/mcp`"),
        ("503", "it answers with the status 503"),
        ("a web page", "it answers with a web page, so no MCP server is at this URL"),
        ("a text", "it does not answer as an MCP server does"),
        ("an error", "it answers with an error: a b"),
        ("no list", "it answers `tools/list` wrongly: the server lists no tools"),
    ],
)
def test_what_a_server_answers_is_bounded(run: Run, kind: str, expected: str) -> None:
    """However it answers, the command ends with one line that names the mistake or the bound, and reads no more."""
    with hostile(kind) as (server, url):
        done = run("tools", "import", "x", "--upstream", url, "--timeout", "5m")

    assert 2 == done.exit_code
    assert done.stderr.startswith(f"error: cannot list the tools of `{url}`: {expected}")
    assert 1 == done.stderr.count("\n")
    assert server.poured < MORE_THAN_IS_READ
    assert len(server.asked) < 40
    assert [] == list(Path().iterdir())


def test_a_server_that_never_answers_is_given_up(run: Run) -> None:
    """The bound on time is for the whole conversation, not for one answer."""
    with hostile("silent") as (_, url):
        done = run("tools", "import", "x", "--upstream", url, "--timeout", "3s")

    assert (2, f"error: cannot list the tools of `{url}`: no answer in 3 s\n") == (done.exit_code, done.stderr)


def test_a_server_with_a_handshake_is_read_to_its_last_page(run: Run) -> None:
    """It is asked again with one, in a session that is ended afterwards."""
    with hostile("two pages") as (server, url):
        done = run("tools", "import", "x", "--upstream", url)

    assert 0 == done.exit_code, done.output
    assert ["  + get_1", "  + get_2"] == done.stdout.splitlines()[1:3]
    assert [
        *("tools/list", "initialize", "notifications/initialized"),
        *("tools/list", "tools/list", "DELETE s1"),
    ] == server.asked
