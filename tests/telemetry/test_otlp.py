"""What leaves the process: settings, exporters, and a receiver that is away."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from pdp import __version__
from pdp.errors import ConfigurationError
from pdp.model import TraceParent
from pdp.telemetry import Telemetry, TelemetrySettings, build_telemetry
from pdp.testing.decisions import a_decision
from pdp.testing.otlp import OTLPReceiver, attributes_of

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

    assert receiver.wait_for(lambda: len(receiver.spans) == 1)
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


def test_a_dead_receiver_changes_no_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nobody listening, decisions are made and have their ids, also when the queue runs over."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    telemetry = _telemetry()

    answers = [telemetry.decision(a_decision(id=f"dec_{number}"), _parent(number)) for number in range(3000)]

    assert [answer.id for answer in answers] == [f"dec_{number}" for number in range(3000)]
    assert all(answer.span_id for answer in answers)
    telemetry.shutdown(timeout=10.0)


def test_shutdown_gives_up_on_a_silent_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver that accepts and never answers cannot hold the process back."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "5")
        telemetry = _telemetry()
        telemetry.decision(a_decision(), NO_PARENT)

        assert not telemetry.shutdown(timeout=0.05)


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
    assert {path for path, _ in _TraceSink.arrived} == {"/v1/traces", "/v1/metrics"}
    (body,) = [body for path, body in _TraceSink.arrived if path == "/v1/traces"]
    spans = ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans
    assert [span.name for span in spans] == ["pdp.authorize"]


def test_the_console_shows_one_line_per_span(capsys: pytest.CaptureFixture[str]) -> None:
    """For development, spans are written to standard error as JSON, one line each."""
    telemetry = build_telemetry(TelemetrySettings(traces="console"))

    telemetry.decision(a_decision(), NO_PARENT)

    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["attributes"]["pdp.decision.id"] == "dec_aaaaaaaaaaaaaaaaaaaaaaaaaa"
    telemetry.shutdown()


@pytest.mark.parametrize(
    ("environ", "exporter", "traces", "metrics"),
    [
        ({}, "", "none", "none"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4317"}, "", "otlp", "otlp"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x:4317"}, "", "otlp", "none"),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://x:4317"}, "", "none", "otlp"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "", "otlp", "none"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4317", "OTEL_METRICS_EXPORTER": "none"}, "", "otlp", "none"),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "console"}, "", "console", "console"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4317"}, "none", "none", "none"),
        ({}, "console", "console", "console"),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4317"}, "otlp", "none", "none"),
        ({"OTEL_SDK_DISABLED": "false", "OTEL_EXPORTER_OTLP_ENDPOINT": ""}, "", "none", "none"),
    ],
)
def test_settings(environ: dict[str, str], exporter: str, traces: str, metrics: str) -> None:
    """The standard variables and our own setting say where the signals go."""
    settings = TelemetrySettings.from_environment(environ, exporter=exporter)

    assert (settings.traces, settings.metrics) == (traces, metrics)


@pytest.mark.parametrize(
    ("environ", "exporter", "message"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "", "`OTEL_TRACES_EXPORTER` cannot be `zipkin`; it is one of"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "", "`OTEL_EXPORTER_OTLP_PROTOCOL` cannot be `http/json`"),
        ({}, "jaeger", "`telemetry.exporter` cannot be `jaeger`"),
    ],
)
def test_unknown_settings(environ: dict[str, str], exporter: str, message: str) -> None:
    """A value that is not known is an error that names the setting and its choices."""
    with pytest.raises(ConfigurationError) as refused:
        TelemetrySettings.from_environment(environ, exporter=exporter)

    assert message in str(refused.value)


def test_telemetry_needs_no_grpc() -> None:
    """Importing telemetry does not import gRPC, so that the embedded mode does without."""
    script = "import sys, pdp.telemetry; sys.exit('grpc' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
