"""The real Envoy before a server that says what it got, configured as the page of the door shows."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pdp.bench import frames
from tests.machinery.pages import blocks
from tests.machinery.ports import free_port
from tests.machinery.servers.http2frames import USUAL, data
from tests.machinery.servers.http2frames import headers as head

ROOT = Path(__file__).parents[4]
PROGRAM = ROOT / ".venv-doors" / "envoy" / "envoy" / "_bin" / "envoy"
PAGE = ROOT / "pdp" / "doors" / "ENVOY.md"
SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Got:
    """A request as the server behind Envoy got it."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


class Backend:
    """A server that keeps what it got, and answers every POST with a result, and with `status`."""

    def __init__(self, status: int = 200) -> None:
        self.got: list[Got] = []
        backend = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def __getattr__(self, name: str) -> Any:
                if name.startswith("do_"):
                    return self._answer
                raise AttributeError(name)

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                if self.headers.get("transfer-encoding") == "chunked":
                    while size := int(self.rfile.readline(), 16):
                        body += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                headers = {name.lower(): value for name, value in self.headers.items()}
                backend.got.append(Got(method=self.command, target=self.path, headers=headers, body=body))
                said = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"ran"}]}}'
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What Envoy answered."""

    status: int
    headers: Mapping[str, str]
    text: str = field(repr=False)

    @property
    def body(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.text)

    @property
    def shown(self) -> str:
        """Return what a model sees of the result."""
        assert 200 == self.status
        return str(self.body["result"]["content"][0]["text"])


@dataclass(frozen=True, kw_only=True)
class Envoy:
    """An Envoy that runs. `log` is what it has written: its access log."""

    port: int
    log: Path

    def send(self, method: str, target: str, body: Any = None, headers: Any = (), *, chunked: bool = False) -> Reply:
        """Send a request as it is; `headers` are pairs, and one name may be there twice."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        connection.putrequest(method, target, skip_accept_encoding=True)
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
        if chunked:
            pairs.append(("transfer-encoding", "chunked"))
        elif body is not None:
            pairs.append(("content-length", str(len(body))))
        for name, value in pairs:
            connection.putheader(name, value)
        parts = (body[at : at + 1000] for at in range(0, len(body), 1000)) if chunked else body
        with suppress(BrokenPipeError, ConnectionResetError):  # it has answered before it has read all
            connection.endheaders(parts, encode_chunked=chunked)
        with connection.getresponse() as answer:
            text = answer.read().decode("utf-8", "replace")
            found = {name.lower(): value for name, value in answer.getheaders()}
        connection.close()
        return Reply(status=answer.status, headers=found, text=text)

    def send_frames(self, target: bytes, fields: Iterable[tuple[str, bytes]], body: bytes = b"") -> None:
        """Send a request over HTTP/2, of which any byte can be in a field, and wait until it is answered.

        It is a POST with a body, and a GET without.
        """
        asked = {":method": b"POST" if body else b"GET", ":scheme": b"http", ":authority": b"desk", ":path": target}
        last = 0 if body else frames.END_STREAM
        sent = head(1, dict.fromkeys(USUAL, ""), more=(*asked.items(), *fields), flags=frames.END_HEADERS | last)
        if body:
            sent += data(1, body)
        with socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS) as connection:
            connection.sendall(frames.PREFACE + frames.settings_frame({}) + sent)
            reader = frames.FrameReader()
            while read := connection.recv(65536):
                if any(one.stream == 1 and one.flags & frames.END_STREAM for one in reader.read(read)):
                    return
        pytest.fail("Envoy has closed the connection")


# A busy machine needs longer for a decision than the page has Envoy wait.
PATIENT = {"timeout: 2s": f"timeout: {SECONDS}s"}
MCP = {"context_extensions: {server: git}": "context_extensions: {server: desk}"}
HTTP = {
    "match: {path: /mcp}": "match: {prefix: /}",
    "context_extensions: {server: git}": "context_extensions: {table: desk}",
}


# What an Envoy needs to make spans of its own.
_TRACING = """\
                stat_prefix: agents
                tracing:
                  provider:
                    name: envoy.tracers.opentelemetry
                    typed_config:
                      "@type": type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig
                      service_name: envoy
                      grpc_service: {envoy_grpc: {cluster_name: receiver}}
"""
_RECEIVER = """\
  clusters:
    - name: receiver
      load_assignment:
        cluster_name: receiver
        endpoints:
          - lb_endpoints:
              - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: PORT}}}
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {http2_protocol_options: {}}
"""


def tracing(receiver: int) -> Mapping[str, str]:
    """Return the changes by which Envoy makes spans, and sends them to a port."""
    sends = {
        "                stat_prefix: agents\n": _TRACING,
        "  clusters:\n": _RECEIVER.replace("PORT", str(receiver)),
    }
    return {**MCP, **sends}


def configuration(changes: Mapping[str, str], *, door: int, backend: int, listener: int) -> str:
    """Return the configuration of the page with other ports, and for what the tests have."""
    (text,) = blocks(PAGE, "yaml envoy")
    for shown, port in ((10000, listener), (9191, door), (9000, backend)):
        assert f"port_value: {shown}}}" in text
        text = text.replace(f"port_value: {shown}}}", f"port_value: {port}}}")
    for old, new in {**PATIENT, **changes}.items():
        assert old in text
        text = text.replace(old, new)
    return text


@contextmanager
def running_envoy(folder: Path, *, door: int, backend: int, changes: Mapping[str, str] = MCP) -> Iterator[Envoy]:
    """Run Envoy while the `with` block runs, with changes to the configuration of the page."""
    port = free_port()
    with running_program(folder, configuration(changes, door=door, backend=backend, listener=port)) as log:
        yield Envoy(port=port, log=log)


@contextmanager
def running_program(folder: Path, text: str) -> Iterator[Path]:
    """Run Envoy on a configuration while the `with` block runs; return what it writes."""
    if not PROGRAM.exists():
        pytest.fail("Envoy is absent: run `make doors`")
    written, log = folder / "envoy.yaml", folder / "envoy.log"
    written.write_text(text, encoding="utf-8")
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [PROGRAM, "-c", written, "--concurrency", "1", "--use-dynamic-base-id"],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stderr is not None
        said = []
        try:
            for line in process.stderr:
                said.append(line)
                if "starting main dispatch loop" in line:
                    break
            else:
                pytest.fail("".join(said))
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield log
        finally:
            process.terminate()
