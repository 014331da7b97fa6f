"""A real OTLP receiver in this process, for tests of sent telemetry."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Condition
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # its stubs come without a py.typed marker
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

_RETRY_INFO = "google.rpc.retryinfo-bin"

Value = str | int | float | bool | tuple[Any, ...]


class OTLPReceiver:
    """Receive traces, metrics and logs over gRPC on loopback while the `with` block runs.

    `requests` holds every export unchanged, in order; the other properties read from them. While `refusals` is not
    empty, each export takes the first entry and is refused with it: a status, and the seconds to wait before a retry.
    """

    def __init__(self) -> None:
        self.refusals: list[tuple[grpc.StatusCode, float | None]] = []
        self.attempts = 0
        self.requests: list[ExportTraceServiceRequest | ExportMetricsServiceRequest | ExportLogsServiceRequest] = []
        self._arrived = Condition()
        self._server = grpc.server(ThreadPoolExecutor(max_workers=4))
        self._server.add_generic_rpc_handlers(
            (
                self._service("trace.v1.TraceService", ExportTraceServiceRequest, ExportTraceServiceResponse),
                self._service("metrics.v1.MetricsService", ExportMetricsServiceRequest, ExportMetricsServiceResponse),
                self._service("logs.v1.LogsService", ExportLogsServiceRequest, ExportLogsServiceResponse),
            )
        )
        self._port = self._server.add_insecure_port("127.0.0.1:0")

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop(grace=None).wait()

    @property
    def endpoint(self) -> str:
        """Return the value for `OTEL_EXPORTER_OTLP_ENDPOINT`."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def spans(self) -> list[Span]:
        """Return all spans that arrived."""
        return [
            span
            for request in self.requests
            if isinstance(request, ExportTraceServiceRequest)
            for resource_spans in request.resource_spans
            for scope_spans in resource_spans.scope_spans
            for span in scope_spans.spans
        ]

    @property
    def metrics(self) -> dict[str, Metric]:
        """Return the latest arrival of each metric, by name."""
        return {
            metric.name: metric
            for request in self.requests
            if isinstance(request, ExportMetricsServiceRequest)
            for resource_metrics in request.resource_metrics
            for scope_metrics in resource_metrics.scope_metrics
            for metric in scope_metrics.metrics
        }

    @property
    def logs(self) -> list[LogRecord]:
        """Return all log records that arrived."""
        return [
            record
            for request in self.requests
            if isinstance(request, ExportLogsServiceRequest)
            for resource_logs in request.resource_logs
            for scope_logs in resource_logs.scope_logs
            for record in scope_logs.log_records
        ]

    @property
    def resource(self) -> dict[str, Value]:
        """Return the resource attributes of the latest export of traces or metrics."""
        for request in reversed(self.requests):
            if isinstance(request, ExportTraceServiceRequest):
                return attributes_of(request.resource_spans[0].resource)
            if isinstance(request, ExportMetricsServiceRequest):
                return attributes_of(request.resource_metrics[0].resource)
        return {}

    def wait_for(self, condition: Callable[[], bool], timeout: float = 30.0) -> bool:
        """Wait until `condition` holds after an arrival; return False after `timeout` s."""
        with self._arrived:
            return self._arrived.wait_for(condition, timeout)

    def _service(self, name: str, request: Any, response: Any) -> Any:  # noqa: ANN401 - generated and gRPC's types
        def export(arrival: Any, context: grpc.ServicerContext) -> Any:  # noqa: ANN401 - generated types
            with self._arrived:
                self.attempts += 1
                refusal = self.refusals.pop(0) if self.refusals else None
                if refusal is None:
                    self.requests.append(arrival)
                self._arrived.notify_all()
            if refusal is not None:
                code, seconds = refusal
                if seconds is not None:
                    delay = Duration(seconds=int(seconds), nanos=round(seconds % 1 * 1_000_000_000))
                    context.set_trailing_metadata(((_RETRY_INFO, RetryInfo(retry_delay=delay).SerializeToString()),))
                context.abort(code, "refused by the test")
            return response()

        method = grpc.unary_unary_rpc_method_handler(
            export, request_deserializer=request.FromString, response_serializer=response.SerializeToString
        )
        return grpc.method_handlers_generic_handler(f"opentelemetry.proto.collector.{name}", {"Export": method})


def attributes_of(part: Any) -> dict[str, Value]:  # noqa: ANN401 - spans, data points, resources and log records
    """Return the attributes of a span, data point, resource or log record as plain values."""
    attributes: list[KeyValue] = part.attributes
    return {attribute.key: _value(attribute.value) for attribute in attributes}


def _value(value: AnyValue) -> Value:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(_value(item) for item in value.array_value.values)
    plain: Value = getattr(value, kind) if kind else ""
    return plain
