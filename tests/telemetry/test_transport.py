"""Sending by OTLP: trying again, giving up, and what is on the wire."""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from pdp.telemetry.settings import Endpoint, read_endpoint
from pdp.telemetry.transport import Answer, RetryingSender, open_sender
from pdp.testing.otlp import OTLPReceiver

OTLP = "OTEL_EXPORTER_OTLP_"
REQUEST = ExportTraceServiceRequest().SerializeToString()
AGAIN = Answer(problem="UNAVAILABLE", transient=True, pause=0.0)


class Way:
    """Answers as it was told, then with success."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.attempts = 0

    def attempt(self, request: bytes, timeout: float) -> Answer:  # noqa: ARG002 - the protocol's signature
        """Answer."""
        self.attempts += 1
        return self.answers.pop(0) if self.answers else Answer()

    def close(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    ("answers", "timeout", "problem", "attempts"),
    [
        ((), 10.0, "", 1),
        ((AGAIN,), 10.0, "", 2),
        ((AGAIN,) * 9, 10.0, "UNAVAILABLE", 6),
        ((Answer(problem="INVALID_ARGUMENT"),), 10.0, "INVALID_ARGUMENT", 1),
        ((Answer(problem="timeout", transient=True, pause=11.0),), 10.0, "timeout", 1),
        ((Answer(problem="timeout", transient=True),), 0.5, "timeout", 1),
    ],
)
def test_trying_again(answers: tuple[Answer, ...], timeout: float, problem: str, attempts: int) -> None:
    """What may pass is tried six times at most, and never beyond the endpoint's timeout."""
    way = Way(*answers)

    assert problem == RetryingSender(way, timeout).send(REQUEST)
    assert attempts == way.attempts


def test_hurrying_tries_once() -> None:
    """At the end of the process nobody waits for a receiver to come back."""
    way = Way(Answer(problem="UNAVAILABLE", transient=True, pause=5.0))
    sender = RetryingSender(way, 10.0)
    sender.hurry()

    assert "UNAVAILABLE" == sender.send(REQUEST)
    assert 1 == way.attempts


def test_grpc_takes_headers_and_tries_again() -> None:
    """A receiver that refuses for a moment, and says for how long, gets the same bytes again."""
    with OTLPReceiver() as receiver:
        receiver.refusals = [(grpc.StatusCode.UNAVAILABLE, 0.01), (grpc.StatusCode.RESOURCE_EXHAUSTED, 0.01)]
        sender = open_sender(
            read_endpoint({f"{OTLP}ENDPOINT": receiver.endpoint, f"{OTLP}COMPRESSION": "gzip"}, "traces")
        )

        problem = sender.send(REQUEST)
        sender.close()

    assert ("", 3, [ExportTraceServiceRequest()]) == (problem, receiver.attempts, receiver.requests)


def test_grpc_gives_up_on_what_will_not_pass() -> None:
    """A refusal for good is not repeated."""
    with OTLPReceiver() as receiver:
        receiver.refusals = [(grpc.StatusCode.PERMISSION_DENIED, None)]
        sender = open_sender(read_endpoint({f"{OTLP}ENDPOINT": receiver.endpoint}, "traces"))

        problem = sender.send(REQUEST)
        sender.close()

    assert ("PERMISSION_DENIED", 1) == (problem, receiver.attempts)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_nobody_listens(protocol: str) -> None:
    """A receiver that is not there is a problem with a name, and no exception."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    sender = open_sender(_endpoint(protocol, port, timeout=300))

    problem = sender.send(REQUEST)
    sender.close()

    assert problem in {"UNAVAILABLE", "unreachable", "DEADLINE_EXCEEDED"}


@pytest.mark.parametrize(("protocol", "problem"), [("grpc", "DEADLINE_EXCEEDED"), ("http/protobuf", "timeout")])
def test_nobody_answers(protocol: str, problem: str) -> None:
    """A receiver that accepts and never answers costs the timeout and no more."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sender = open_sender(_endpoint(protocol, silent.getsockname()[1], timeout=100))

        found = sender.send(REQUEST)
        sender.close()

    assert problem == found


def test_closing_ends_what_is_being_sent() -> None:
    """Over gRPC, even a receiver that hangs is let go of at once."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sender = open_sender(_endpoint("grpc", silent.getsockname()[1], timeout=60_000))
        problems: list[str] = []
        sending = threading.Thread(target=lambda: problems.append(sender.send(REQUEST)))
        sending.start()
        connection, _ = silent.accept()
        sender.close()
        sending.join(20.0)
        connection.close()

    assert problems in (["CANCELLED"], ["closed"])


class _Site(ThreadingHTTPServer):
    """Answers POSTs as it was told and keeps what came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Page)
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.arrived: list[tuple[str, dict[str, str], bytes]] = []


class _Page(BaseHTTPRequestHandler):
    server: _Site

    def do_POST(self) -> None:
        """Keep what came, and answer."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.arrived.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        status, headers = self.server.answers.pop(0) if self.server.answers else (200, {})
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def _site() -> Iterator[_Site]:
    with _Site() as site:
        thread = threading.Thread(target=site.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield site
        finally:
            site.shutdown()
            thread.join()


def _endpoint(protocol: str, port: int, **more: Any) -> Endpoint:
    environ = {f"{OTLP}PROTOCOL": protocol, f"{OTLP}ENDPOINT": f"http://127.0.0.1:{port}"}
    return read_endpoint(environ | {f"{OTLP}{name.upper()}": str(value) for name, value in more.items()}, "traces")


def test_http_posts_protobuf() -> None:
    """Path, type, compression and headers are those of OTLP over HTTP."""
    with _site() as site:
        sender = open_sender(_endpoint("http/protobuf", site.server_port, headers="api-key=a", compression="gzip"))

        problem = sender.send(b"some spans")

    (path, headers, body) = site.arrived[0]
    assert ("", "/v1/traces", b"some spans") == (problem, path, gzip.decompress(body))
    assert ("application/x-protobuf", "gzip", "a") == (
        headers["content-type"],
        headers["content-encoding"],
        headers["api-key"],
    )


@pytest.mark.parametrize(
    ("answers", "problem", "attempts"),
    [
        ([(503, {"Retry-After": "0"}), (429, {"Retry-After": "0"})], "", 3),
        ([(400, {})], "400", 1),
        ([(404, {"Retry-After": "0"})], "404", 1),
        ([(302, {"Location": "http://127.0.0.1:1/"})], "302", 1),
    ],
)
def test_http_statuses(answers: list[tuple[int, dict[str, str]]], problem: str, attempts: int) -> None:
    """Only what OTLP names may pass is tried again, and no redirect is followed."""
    with _site() as site:
        site.answers = answers
        sender = open_sender(_endpoint("http/protobuf", site.server_port))

        found = sender.send(REQUEST)

    assert (problem, attempts) == (found, len(site.arrived))
