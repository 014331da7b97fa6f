"""Where telemetry goes, by the standard variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from pdp.errors import ConfigurationError
from pdp.telemetry.limits import AttributeLimits
from pdp.telemetry.pipeline import QueueSettings
from pdp.telemetry.settings import Signal, TelemetrySettings, read_endpoint

OTLP = "OTEL_EXPORTER_OTLP_"


@pytest.mark.parametrize(
    ("environ", "exporter", "expected"),
    [
        ({}, "", ("none", "none", "none")),
        ({f"{OTLP}ENDPOINT": "http://x:4317"}, "", ("otlp", "otlp", "otlp")),
        ({f"{OTLP}TRACES_ENDPOINT": "http://x:4317"}, "", ("otlp", "none", "none")),
        ({f"{OTLP}METRICS_ENDPOINT": "http://x:4317"}, "", ("none", "otlp", "none")),
        ({f"{OTLP}LOGS_ENDPOINT": "http://x:4317"}, "", ("none", "none", "otlp")),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "", ("otlp", "none", "none")),
        ({f"{OTLP}ENDPOINT": "http://x:4317", "OTEL_METRICS_EXPORTER": "none"}, "", ("otlp", "none", "otlp")),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_LOGS_EXPORTER": "console"}, "", ("console", "none", "console")),
        ({f"{OTLP}ENDPOINT": "http://x:4317"}, "none", ("none", "none", "none")),
        ({}, "console", ("console", "console", "none")),
        ({}, "otlp", ("otlp", "otlp", "otlp")),
        ({"OTEL_SDK_DISABLED": "true", f"{OTLP}ENDPOINT": "http://x:4317"}, "otlp", ("none", "none", "none")),
        ({"OTEL_SDK_DISABLED": "false", f"{OTLP}ENDPOINT": ""}, "", ("none", "none", "none")),
    ],
)
def test_exporters(environ: dict[str, str], exporter: str, expected: tuple[str, str, str]) -> None:
    """The standard variables and our own setting say where the signals go."""
    settings = TelemetrySettings.from_environment(environ, exporter=exporter)

    assert expected == (settings.traces, settings.metrics, settings.logs)


@pytest.mark.parametrize(
    ("environ", "signal", "target", "secure"),
    [
        ({}, "traces", "localhost:4317", False),
        ({f"{OTLP}ENDPOINT": "http://collector:4317"}, "traces", "collector:4317", False),
        ({f"{OTLP}ENDPOINT": "https://collector"}, "logs", "collector:443", True),
        ({f"{OTLP}ENDPOINT": "collector:4317"}, "traces", "collector:4317", True),
        ({f"{OTLP}ENDPOINT": "collector", f"{OTLP}INSECURE": "true"}, "traces", "collector:4317", False),
        ({f"{OTLP}ENDPOINT": "http://[::1]:4317"}, "traces", "[::1]:4317", False),
        ({f"{OTLP}ENDPOINT": "http://a:1", f"{OTLP}LOGS_ENDPOINT": "http://b:2"}, "logs", "b:2", False),
        ({f"{OTLP}PROTOCOL": "http/protobuf"}, "logs", "http://localhost:4318/v1/logs", False),
        (
            {f"{OTLP}PROTOCOL": "http/protobuf", f"{OTLP}ENDPOINT": "https://x/otel/"},
            "metrics",
            "https://x/otel/v1/metrics",
            True,
        ),
        (
            {f"{OTLP}TRACES_PROTOCOL": "http/protobuf", f"{OTLP}TRACES_ENDPOINT": "http://x:8/in"},
            "traces",
            "http://x:8/in",
            False,
        ),
        (
            {f"{OTLP}TRACES_PROTOCOL": "http/protobuf", f"{OTLP}TRACES_ENDPOINT": "http://x:8"},
            "traces",
            "http://x:8/",
            False,
        ),
    ],
)
def test_endpoints(environ: dict[str, str], signal: Signal, target: str, secure: bool) -> None:  # noqa: FBT001 - a column of the table
    """A signal's own variable counts more than the common one; for HTTP the common one is the root of all signals."""
    endpoint = read_endpoint(environ, signal)

    assert (target, secure) == (endpoint.target, endpoint.secure)


def test_how_it_is_sent(tmp_path: Path) -> None:
    """Headers, timeout in milliseconds, compression and certificates are read, each also for one signal alone."""
    (tmp_path / "ca.pem").touch()
    environ = {
        f"{OTLP}HEADERS": "api-key=a%20b, X-Tenant=one",
        f"{OTLP}TIMEOUT": "2500",
        f"{OTLP}TRACES_TIMEOUT": "700",
        f"{OTLP}COMPRESSION": "gzip",
        f"{OTLP}CERTIFICATE": str(tmp_path / "ca.pem"),
    }

    traces, logs = read_endpoint(environ, "traces"), read_endpoint(environ, "logs")

    assert {"api-key": "a b", "x-tenant": "one"} == traces.headers
    assert (0.7, 2.5) == (traces.timeout, logs.timeout)
    assert ("gzip", str(tmp_path / "ca.pem")) == (traces.compression, traces.certificate)
    assert "a b" not in repr(traces)


def test_queues_intervals_and_limits() -> None:
    """The variables of the SDK's processors, readers and limits set ours."""
    settings = TelemetrySettings.from_environment(
        {
            "OTEL_BSP_MAX_QUEUE_SIZE": "100",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10",
            "OTEL_BSP_SCHEDULE_DELAY": "250",
            "OTEL_BLRP_MAX_QUEUE_SIZE": "7",
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "DELTA",
            "OTEL_METRICS_EXEMPLAR_FILTER": "always_off",
            "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "40",
            "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "9",
            "OTEL_SPAN_LINK_COUNT_LIMIT": "0",
        }
    )

    assert QueueSettings(capacity=100, batch=10, delay=0.25) == settings.span_queue
    assert 7 == settings.log_queue.capacity
    assert (0.5, "delta", False) == (settings.metric_interval, settings.temporality, settings.exemplars)
    assert AttributeLimits(attributes=9, characters=40, links=0) == settings.span_limits
    assert AttributeLimits(attributes=128, characters=40) == settings.log_limits


@pytest.mark.parametrize(
    ("environ", "exporter", "message"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "", "`OTEL_TRACES_EXPORTER` cannot be `zipkin`; it is one of"),
        ({f"{OTLP}PROTOCOL": "http/json"}, "otlp", f"`{OTLP}PROTOCOL` cannot be `http/json`"),
        ({f"{OTLP}COMPRESSION": "zstd"}, "otlp", f"`{OTLP}COMPRESSION` cannot be `zstd`; it is one of `none`, `gzip`"),
        ({}, "jaeger", "`telemetry.exporter` cannot be `jaeger`"),
        ({f"{OTLP}ENDPOINT": "tcp://x:4317"}, "", f"`{OTLP}ENDPOINT` must begin with `http://` or `https://`"),
        ({f"{OTLP}ENDPOINT": "http://"}, "", f"`{OTLP}ENDPOINT` names no receiver: `http://`"),
        ({f"{OTLP}ENDPOINT": "http://x:99999"}, "", f"`{OTLP}ENDPOINT` is no URL: `http://x:99999`"),
        ({f"{OTLP}ENDPOINT": "http://x:port"}, "", "write it like `http://localhost:4317`"),
        ({f"{OTLP}ENDPOINT": "http://x y:1"}, "", f"`{OTLP}ENDPOINT` names no receiver"),
        ({f"{OTLP}ENDPOINT": "http://x:4317/v1/traces"}, "", f"`{OTLP}ENDPOINT` has a path"),
        (
            {f"{OTLP}PROTOCOL": "http/protobuf", f"{OTLP}ENDPOINT": "x:4318"},
            "",
            f"`{OTLP}ENDPOINT` must begin with `http://` or `https://`",
        ),
        ({f"{OTLP}LOGS_ENDPOINT": "http://a:b@x"}, "", f"`{OTLP}LOGS_ENDPOINT` names no receiver: `http://…@x`"),
        (
            {f"{OTLP}TIMEOUT": "soon"},
            "otlp",
            f"`{OTLP}TIMEOUT` must be a whole number of at least 1 and below 10^12, not `soon`",
        ),
        ({f"{OTLP}HEADERS": "secret"}, "otlp", f"`{OTLP}HEADERS` must be `name=value` pairs"),
        ({f"{OTLP}CERTIFICATE": "/no/such.pem"}, "otlp", f"`{OTLP}CERTIFICATE` names no file: `/no/such.pem`"),
        (
            {"OTEL_BSP_SCHEDULE_DELAY": "1" * 13},
            "",
            "`OTEL_BSP_SCHEDULE_DELAY` must be a whole number of at least 1 and below",
        ),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "0"}, "", "`OTEL_BSP_MAX_QUEUE_SIZE` must be a whole number of at least 1"),
        ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "-1"}, "", "`OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT` must be a whole number"),
        ({"OTEL_METRICS_EXEMPLAR_FILTER": "some"}, "", "`OTEL_METRICS_EXEMPLAR_FILTER` cannot be `some`"),
    ],
)
def test_what_cannot_work_is_refused(environ: dict[str, str], exporter: str, message: str) -> None:
    """A value that cannot work is an error before the server starts; it names the variable and shows no secret."""
    with pytest.raises(ConfigurationError) as refused:
        TelemetrySettings.from_environment(environ, exporter=exporter)

    assert message in str(refused.value)


@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_variable_is_as_good_as_none(value: str) -> None:
    """The specification says so."""
    environ = dict.fromkeys((f"{OTLP}TIMEOUT", f"{OTLP}HEADERS", "OTEL_BSP_MAX_QUEUE_SIZE"), value or "")

    assert TelemetrySettings.from_environment({}, exporter="otlp") == TelemetrySettings.from_environment(
        environ, exporter="otlp"
    )
