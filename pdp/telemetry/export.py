"""Send traces and metrics where the standard `OTEL_*` variables say."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self, cast

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from pdp import __version__
from pdp.errors import ConfigurationError
from pdp.telemetry.observer import Telemetry

Exporter = Literal["otlp", "console", "none"]
OTLPProtocol = Literal["grpc", "http/protobuf"]

_EXPORTERS = ("otlp", "console", "none")
_PROTOCOLS = ("grpc", "http/protobuf")


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySettings:
    """Where traces and metrics go. Endpoints, headers and intervals stay in the standard `OTEL_*` variables."""

    traces: Exporter = "none"
    metrics: Exporter = "none"
    protocol: OTLPProtocol = "grpc"
    service_name: str = "pdp"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], *, exporter: str = "") -> Self:
        """Read the standard `OTEL_*` variables; `exporter` overrules them for traces and metrics.

        Without a word about exporters, a signal is sent by OTLP when an endpoint for it is set.
        `OTEL_SDK_DISABLED=true` overrules everything. Raise `ConfigurationError` for a value that is not known.
        """
        if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return cls()
        return cls(
            traces=cast("Exporter", _exporter(environ, "TRACES", exporter)),
            metrics=cast("Exporter", _exporter(environ, "METRICS", exporter)),
            protocol=cast("OTLPProtocol", _one_of(_PROTOCOLS, environ, "OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")),
        )


def build_telemetry(settings: TelemetrySettings, *, digest_key: bytes = b"") -> Telemetry:
    """Build telemetry with providers of its own; call it in each process, after forking."""
    resource = _resource(settings.service_name)
    tracer_provider = meter_provider = None
    if settings.traces != "none":
        tracer_provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
        tracer_provider.add_span_processor(_span_processor(settings))
    if settings.metrics != "none":
        reader = PeriodicExportingMetricReader(_metric_exporter(settings))
        meter_provider = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
    return Telemetry(tracer_provider, meter_provider, digest_key=digest_key)


def _exporter(environ: Mapping[str, str], signal: str, chosen: str) -> str:
    if chosen:
        return _one_of(_EXPORTERS, {"telemetry.exporter": chosen}, "telemetry.exporter", "none")
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    default = "otlp" if any(environ.get(endpoint) for endpoint in endpoints) else "none"
    return _one_of(_EXPORTERS, environ, f"OTEL_{signal}_EXPORTER", default)


def _one_of(known: tuple[str, ...], environ: Mapping[str, str], name: str, default: str) -> str:
    value = environ.get(name, "").strip() or default
    if value not in known:
        choices = ", ".join(f"`{choice}`" for choice in known)
        raise ConfigurationError(f"`{name}` cannot be `{value}`; it is one of {choices}")
    return value


def _resource(service_name: str) -> Resource:
    ours = {
        "service.name": service_name,
        "service.version": __version__,
        "service.instance.id": str(uuid.uuid4()),
    }
    # What the operator set in OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES wins.
    return Resource.create({**ours, **OTELResourceDetector().detect().attributes})


# The exporters are imported where they are chosen: they bring gRPC, which the embedded mode does without.


def _span_processor(settings: TelemetrySettings) -> SpanProcessor:
    if settings.traces == "console":
        return SimpleSpanProcessor(
            ConsoleSpanExporter(out=sys.stderr, formatter=lambda span: f"{span.to_json(indent=None)}\n")
        )
    if settings.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415 - see above
            OTLPSpanExporter as GRPCSpanExporter,
        )

        return BatchSpanProcessor(GRPCSpanExporter())
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - see above

    return BatchSpanProcessor(OTLPSpanExporter())


def _metric_exporter(settings: TelemetrySettings) -> MetricExporter:
    if settings.metrics == "console":
        return ConsoleMetricExporter(out=sys.stderr, formatter=lambda found: f"{found.to_json(indent=None)}\n")
    if settings.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import (  # noqa: PLC0415 - see above
            OTLPMetricExporter as GRPCMetricExporter,
        )

        return GRPCMetricExporter()
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415 - see above

    return OTLPMetricExporter()
