"""One attempt to send an export request, and what the receiver answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from pdp.telemetry.settings import Signal

_ANSWERS: Mapping[Signal, Any] = {
    "traces": ExportTraceServiceResponse,
    "metrics": ExportMetricsServiceResponse,
    "logs": ExportLogsServiceResponse,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The result of one attempt. `problem` is empty for success; `pause` is what the receiver asks for, in seconds.

    `rejected` is how many items of a request the receiver did not accept.
    """

    problem: str = ""
    rejected: int = 0
    transient: bool = False
    pause: float | None = None


def taken(signal: Signal, body: bytes) -> Answer:
    """Return the answer of a receiver that accepted a request, at least in part."""
    if not body:
        return Answer()
    try:
        partial = _ANSWERS[signal].FromString(body).partial_success
    except DecodeError:
        return Answer()
    # Its only number: the rejected spans, log records or data points.
    rejected = next((value for field, value in partial.ListFields() if field.number == 1), 0)
    return Answer(rejected=max(0, int(rejected)))


class Attempt(Protocol):
    """One way of sending a request."""

    def attempt(self, request: bytes, timeout: float) -> Answer:
        """Send a request once and wait for `timeout` seconds at most. Never raises."""
        ...

    def close(self) -> None:
        """Abort the request that is being sent."""
        ...
