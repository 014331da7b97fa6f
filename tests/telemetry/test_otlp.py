"""What leaves the process: settings, exporters, and a receiver that is away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from pdp import __version__
from pdp.model import Basis, Outcome, TraceParent
from pdp.observer import Event, EventKind
from pdp.telemetry.build import build_telemetry
from pdp.telemetry.observer import Telemetry
from pdp.telemetry.settings import TelemetrySettings
from pdp.testing.decisions import a_decision
from pdp.testing.otlp import OTLPReceiver, attributes_of
from tests.machinery.servers.running import PATIENCE

NO_PARENT = TraceParent()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[OTLPReceiver]:
    """Yield a receiver to which the environment points."""
    with OTLPReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        yield receiver


def _telemetry() -> Telemetry:
    return build_telemetry(TelemetrySettings.from_environment(os.environ))


def _parent(number: int) -> TraceParent:
    return TraceParent(traceparent=f"00-{number + 1:032x}-{number + 1:016x}-00")


def test_every_decision_arrives_as_a_span(receiver: OTLPReceiver) -> None:
    """As many spans arrive as decisions were made, each below its caller's span and with the ids of the answer."""
    telemetry = _telemetry()

    answers = [telemetry.decision(a_decision(id=f"dec_{number}"), _parent(number)) for number in range(700)]

    assert telemetry.shutdown(timeout=30.0)
    arrived = {attributes_of(span)["pdp.decision.id"]: span for span in receiver.spans}
    assert len(receiver.spans) == len(arrived) == 700
    for number, answer in enumerate(answers):
        span = arrived[answer.id]
        assert (span.trace_id.hex(), span.span_id.hex()) == (answer.trace_id, answer.span_id)
        assert (answer.trace_id, span.parent_span_id.hex()) == (f"{number + 1:032x}", f"{number + 1:016x}")


def test_spans_arrive_while_the_server_runs(receiver: OTLPReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans are sent in the background; nobody has to shut down."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    telemetry = _telemetry()

    telemetry.decision(a_decision(), NO_PARENT)

    assert receiver.wait_for(lambda: len(receiver.spans) == 1, PATIENCE)
    telemetry.shutdown()


def test_metrics_arrive(receiver: OTLPReceiver) -> None:
    """Counts and the histogram arrive under their names."""
    telemetry = _telemetry()

    telemetry.decision(a_decision(), NO_PARENT)

    assert telemetry.shutdown(timeout=30.0)
    (point,) = receiver.metrics["pdp.decisions"].sum.data_points
    assert (point.as_int, attributes_of(point)) == (1, {"pdp.outcome": "allow", "pdp.basis": "permit"})
    assert receiver.metrics["pdp.decisions"].sum.is_monotonic
    assert receiver.metrics["pdp.decision.duration"].histogram.data_points[0].count == 1


def test_the_resource_names_the_service(receiver: OTLPReceiver) -> None:
    """Spans say which service, version and instance made them."""
    telemetry = _telemetry()

    telemetry.decision(a_decision(), NO_PARENT)

    assert telemetry.shutdown(timeout=30.0)
    assert (receiver.resource["service.name"], receiver.resource["service.version"]) == ("pdp", __version__)
    assert receiver.resource["service.instance.id"]


def test_the_operator_names_the_service(receiver: OTLPReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """`OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` win over our own words."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "pdp-berlin")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=one,deployment.environment.name=test")
    telemetry = _telemetry()

    telemetry.decision(a_decision(), NO_PARENT)

    assert telemetry.shutdown(timeout=30.0)
    wanted = {"service.name": "pdp-berlin", "service.instance.id": "one", "deployment.environment.name": "test"}
    assert wanted.items() <= receiver.resource.items()


def test_log_records_arrive(receiver: OTLPReceiver) -> None:
    """Each decision is a log record too, with the ids of its span."""
    telemetry = _telemetry()

    answers = [telemetry.decision(a_decision(id=f"dec_{number}"), NO_PARENT) for number in range(700)]

    assert telemetry.shutdown(timeout=30.0)
    assert [(record.trace_id.hex(), record.span_id.hex()) for record in receiver.logs] == [
        (answer.trace_id, answer.span_id) for answer in answers
    ]
    assert {(record.event_name, record.severity_text) for record in receiver.logs} == {("pdp.decision", "INFO")}
    assert receiver.logs[0].body.string_value == "allow github/create_issue: permit"


@pytest.mark.parametrize(
    ("basis", "severity"),
    [(Basis.FORBID, "INFO"), (Basis.POLICY_ERROR, "WARN"), (Basis.RECORD_UNAVAILABLE, "WARN")],
)
def test_severity(receiver: OTLPReceiver, basis: Basis, severity: str) -> None:
    """A deny is an answer; what could not be judged or recorded needs somebody's attention."""
    telemetry = _telemetry()

    telemetry.decision(a_decision(outcome=Outcome.DENY, basis=basis), NO_PARENT)

    assert telemetry.shutdown(timeout=30.0)
    assert [record.severity_text for record in receiver.logs] == [severity]


class _TraceSink(BaseHTTPRequestHandler):
    """Receive OTLP over HTTP."""

    arrived: ClassVar[list[tuple[str, bytes]]] = []

    def do_POST(self) -> None:
        """Keep the body and answer with success."""
        self.arrived.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_http_protobuf(monkeypatch: pytest.MonkeyPatch) -> None:
    """`OTEL_EXPORTER_OTLP_PROTOCOL` picks HTTP."""
    _TraceSink.arrived.clear()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    with HTTPServer(("127.0.0.1", 0), _TraceSink) as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        telemetry = _telemetry()

        telemetry.decision(a_decision(), NO_PARENT)

        assert telemetry.shutdown(timeout=30.0)
        server.shutdown()
    assert {path for path, _ in _TraceSink.arrived} == {"/v1/traces", "/v1/metrics", "/v1/logs"}
    (body,) = [body for path, body in _TraceSink.arrived if path == "/v1/traces"]
    spans = ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans
    assert [span.name for span in spans] == ["pdp.authorize"]


def test_the_console_shows_one_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    """For development, spans, log records and metrics are written to standard error as JSON, one line each."""
    telemetry = build_telemetry(TelemetrySettings(traces="console", logs="console", metrics="console"))

    telemetry.decision(a_decision(), NO_PARENT)
    telemetry.event(Event(kind=EventKind.REQUEST_REFUSED, at=1.0, facts={"rpc": "a/b", "status": "INTERNAL"}))
    telemetry.shutdown()

    span, record, refused, metrics = map(json.loads, capsys.readouterr().err.splitlines())
    assert span["attributes"]["pdp.decision.id"] == "dec_aaaaaaaaaaaaaaaaaaaaaaaaaa"
    assert (record["event"], record["span_id"]) == ("pdp.decision", span["context"]["span_id"].removeprefix("0x"))
    assert (refused["name"], refused["status"]["status_code"]) == ("pdp.request.refused", "ERROR")
    assert metrics["resource_metrics"]


def test_telemetry_needs_no_grpc() -> None:
    """Importing telemetry does not import gRPC, so that the embedded mode does without."""
    script = "import sys, pdp.telemetry; sys.exit('grpc' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
