"""Sending by OTLP: trying again, giving up, and what is on the wire."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsPartialSuccess, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from pdp.telemetry.attempt import Answer, taken
from pdp.telemetry.pipeline import Sent
from pdp.telemetry.settings import Endpoint, Signal, read_endpoint
from pdp.telemetry.transport import RetryingSender, open_sender
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

    assert problem == RetryingSender(way, timeout).send(REQUEST).problem
    assert attempts == way.attempts


def test_hurrying_tries_once() -> None:
    """At the end of the process nobody waits for a receiver to come back."""
    way = Way(Answer(problem="UNAVAILABLE", transient=True, pause=5.0))
    sender = RetryingSender(way, 10.0)
    sender.hurry()

    assert "UNAVAILABLE" == sender.send(REQUEST).problem
    assert 1 == way.attempts


def test_grpc_takes_headers_and_tries_again() -> None:
    """A receiver that refuses for a moment, and says for how long, gets the same bytes again."""
    with OTLPReceiver() as receiver:
        receiver.refusals = [(grpc.StatusCode.UNAVAILABLE, 0.01), (grpc.StatusCode.RESOURCE_EXHAUSTED, 0.01)]
        sender = open_sender(
            read_endpoint({f"{OTLP}ENDPOINT": receiver.endpoint, f"{OTLP}COMPRESSION": "gzip"}, "traces")
        )

        problem = sender.send(REQUEST).problem
        sender.close()

    assert ("", 3, [ExportTraceServiceRequest()]) == (problem, receiver.attempts, receiver.requests)


def test_grpc_gives_up_on_what_will_not_pass() -> None:
    """A refusal for good is not repeated."""
    with OTLPReceiver() as receiver:
        receiver.refusals = [(grpc.StatusCode.PERMISSION_DENIED, None)]
        sender = open_sender(read_endpoint({f"{OTLP}ENDPOINT": receiver.endpoint}, "traces"))

        problem = sender.send(REQUEST).problem
        sender.close()

    assert ("PERMISSION_DENIED", 1) == (problem, receiver.attempts)


@pytest.mark.parametrize(
    ("signal", "partial"),
    [
        ("traces", ExportTraceServiceResponse(partial_success=ExportTracePartialSuccess(rejected_spans=3))),
        ("metrics", ExportMetricsServiceResponse(partial_success=ExportMetricsPartialSuccess(rejected_data_points=3))),
        ("logs", ExportLogsServiceResponse(partial_success=ExportLogsPartialSuccess(rejected_log_records=3))),
    ],
)
def test_what_was_not_wanted(signal: Signal, partial: Message) -> None:
    """A receiver that took a request says how much of it it did not want; a word of warning alone is no rejection."""
    assert 3 == taken(signal, partial.SerializeToString()).rejected
    assert Answer() == taken(signal, b"")
    assert Answer() == taken(signal, b"\xff")
    partial.ClearField("partial_success")
    assert Answer() == taken(signal, partial.SerializeToString())


def test_both_protocols_say_what_was_not_wanted() -> None:
    """Over HTTP the answer's body is read, over gRPC the answer."""
    partial = ExportTraceServiceResponse(
        partial_success=ExportTracePartialSuccess(rejected_spans=3)
    ).SerializeToString()
    with _site() as site, _grpc_receiver(partial) as port:
        site.body = partial
        senders = [open_sender(_endpoint("http/protobuf", site.server_port)), open_sender(_endpoint("grpc", port))]

        sent = [sender.send(REQUEST) for sender in senders]
        for sender in senders:
            sender.close()

    assert [Sent(rejected=3)] * 2 == sent


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_certificates(tmp_path: Path, protocol: str) -> None:
    """With the certificates of the variables, sender and receiver know each other; without them nothing is sent."""
    certificate, key = _certificate(tmp_path)
    known = {"certificate": certificate, "client_certificate": certificate, "client_key": key}
    with _site(certificate, key) as site, _grpc_receiver(b"", certificate, key) as port:
        address = f"https://localhost:{site.server_port if protocol == 'http/protobuf' else port}"
        senders = [
            open_sender(_endpoint(protocol, address, timeout=timeout, **more))
            for timeout, more in ((60_000, known), (2000, {}))
        ]

        problems = [sender.send(REQUEST).problem for sender in senders]
        for sender in senders:
            sender.close()

    assert "" == problems[0]
    assert problems[1] in {"UNAVAILABLE", "DEADLINE_EXCEEDED", "unreachable"}


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_nobody_listens(protocol: str) -> None:
    """A receiver that is not there is a problem with a name, and no exception."""
    # It is bound, so that no other process gets the port meanwhile.
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        sender = open_sender(_endpoint(protocol, unused.getsockname()[1], timeout=300))

        problem = sender.send(REQUEST).problem
        sender.close()

    assert problem in {"UNAVAILABLE", "unreachable", "DEADLINE_EXCEEDED"}


@pytest.mark.parametrize(("protocol", "problem"), [("grpc", "DEADLINE_EXCEEDED"), ("http/protobuf", "timeout")])
def test_nobody_answers(protocol: str, problem: str) -> None:
    """A receiver that accepts and never answers costs the timeout and no more."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sender = open_sender(_endpoint(protocol, silent.getsockname()[1], timeout=100))

        found = sender.send(REQUEST).problem
        sender.close()

    assert problem == found


def test_closing_ends_what_is_being_sent() -> None:
    """Over gRPC, even a receiver that hangs is let go of at once."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sender = open_sender(_endpoint("grpc", silent.getsockname()[1], timeout=60_000))
        problems: list[str] = []
        sending = threading.Thread(target=lambda: problems.append(sender.send(REQUEST).problem))
        sending.start()
        connection, _ = silent.accept()
        sender.close()
        sending.join(60.0)
        connection.close()

    assert problems in (["CANCELLED"], ["closed"])


def test_a_proxy_that_is_no_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment says wrongly is a problem with a name, and no exception."""
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)

    sender = open_sender(_endpoint("http/protobuf", 1))
    # Once is enough: each further attempt has the same end.
    sender.hurry()

    assert sender.send(REQUEST).problem in {"unusable", "unreachable"}


class _Site(ThreadingHTTPServer):
    """Answers POSTs as it was told and keeps what came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Page)
        self.body = b""
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
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def _site(certificate: Path | None = None, key: Path | None = None) -> Iterator[_Site]:
    with _Site() as site:
        if certificate:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificate)
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_cert_chain(certificate, key)
            site.socket = context.wrap_socket(site.socket, server_side=True)
        thread = threading.Thread(target=site.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield site
        finally:
            site.shutdown()
            thread.join()


@contextmanager
def _grpc_receiver(answer: bytes, certificate: Path | None = None, key: Path | None = None) -> Iterator[int]:
    """Answer every export with the same bytes; yield the port."""
    handler = grpc.unary_unary_rpc_method_handler(lambda _, __: answer)
    services = grpc.method_handlers_generic_handler(
        "opentelemetry.proto.collector.trace.v1.TraceService", {"Export": handler}
    )
    server = grpc.server(ThreadPoolExecutor(1), handlers=(services,))
    if certificate and key:
        pair, roots = (key.read_bytes(), certificate.read_bytes()), certificate.read_bytes()
        credentials = grpc.ssl_server_credentials([pair], root_certificates=roots, require_client_auth=True)
        port = server.add_secure_port("localhost:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def _certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for `localhost` that signs itself, good for both sides; return its file and its key's."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(Encoding.PEM))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "key.pem").write_bytes(private)
    return folder / "cert.pem", folder / "key.pem"


def _endpoint(protocol: str, place: int | str, **more: Any) -> Endpoint:
    url = f"http://127.0.0.1:{place}" if isinstance(place, int) else place
    environ = {f"{OTLP}PROTOCOL": protocol, f"{OTLP}ENDPOINT": url, f"{OTLP}TIMEOUT": "60000"}
    return read_endpoint(environ | {f"{OTLP}{name.upper()}": str(value) for name, value in more.items()}, "traces")


def test_http_posts_protobuf() -> None:
    """Path, type, compression and headers are those of OTLP over HTTP."""
    with _site() as site:
        sender = open_sender(_endpoint("http/protobuf", site.server_port, headers="api-key=a", compression="gzip"))

        problem = sender.send(b"some spans").problem

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
        site.answers = [*answers]
        sender = open_sender(_endpoint("http/protobuf", site.server_port))

        found = sender.send(REQUEST).problem

    assert (problem, attempts) == (found, len(site.arrived))
