"""One attempt to send an export request over gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # its stubs come without a py.typed marker

from pdp.telemetry.attempt import Answer, taken
from pdp.telemetry.settings import Endpoint, Signal, read_certificate

_SERVICES: Mapping[Signal, str] = {
    "traces": "trace.v1.TraceService",
    "metrics": "metrics.v1.MetricsService",
    "logs": "logs.v1.LogsService",
}
# https://opentelemetry.io/docs/specs/otlp/#failures
_TRANSIENT = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
_RETRY_INFO = "google.rpc.retryinfo-bin"
# By default gRPC waits for up to two minutes before it tries to connect again.
_OPTIONS = (("grpc.max_reconnect_backoff_ms", 5000), ("grpc.primary_user_agent", "pdp"))


class GRPCAttempt:
    """A channel to one receiver. Raise `ConfigurationError` for certificates that cannot be read."""

    def __init__(self, endpoint: Endpoint) -> None:
        gzip = grpc.Compression.Gzip if endpoint.compression == "gzip" else grpc.Compression.NoCompression
        if endpoint.secure:
            credentials = grpc.ssl_channel_credentials(
                root_certificates=read_certificate(endpoint.certificate),
                private_key=read_certificate(endpoint.client_key),
                certificate_chain=read_certificate(endpoint.client_certificate),
            )
            self._channel = grpc.secure_channel(endpoint.target, credentials, options=_OPTIONS, compression=gzip)
        else:
            self._channel = grpc.insecure_channel(endpoint.target, options=_OPTIONS, compression=gzip)
        # Requests are already bytes.
        self._export = self._channel.unary_unary(f"/opentelemetry.proto.collector.{_SERVICES[endpoint.signal]}/Export")
        self._metadata = tuple(endpoint.headers.items())
        self._signal = endpoint.signal
        self._closed = False

    def attempt(self, request: bytes, timeout: float) -> Answer:
        """Send a request once and wait for `timeout` seconds at most. Never raises."""
        if self._closed:
            return Answer(problem="closed")
        try:
            body = self._export(request, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            return _answer(error)
        except ValueError:
            return Answer(problem="closed")  # gRPC raises this when the channel is closed in between
        return taken(self._signal, body)

    def close(self) -> None:
        """Abort the request that is being sent."""
        self._closed = True
        self._channel.close()


def _answer(error: Any) -> Answer:  # noqa: ANN401 - gRPC has no types
    code = error.code()
    return Answer(problem=code.name, transient=code in _TRANSIENT, pause=_pause(error.trailing_metadata() or ()))


def _pause(metadata: Any) -> float | None:  # noqa: ANN401 - gRPC has no types
    for name, value in metadata:
        if name == _RETRY_INFO:
            try:
                return float(RetryInfo.FromString(value).retry_delay.ToTimedelta().total_seconds())
            except (DecodeError, OverflowError):
                return None
    return None
