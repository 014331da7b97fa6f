"""The transport by gRPC's own server."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc

from pdp.limits import Limits
from pdp.serving.boundary import Boundary
from pdp.serving.grpcoptions import Options, server_options
from pdp.serving.incoming import entered_by
from pdp.serving.listener import Listener
from pdp.serving.rpc import Shape

_HANDLERS = {
    Shape.UNARY: grpc.unary_unary_rpc_method_handler,
    Shape.EXCHANGE: grpc.stream_stream_rpc_method_handler,
    Shape.FEED: grpc.unary_stream_rpc_method_handler,
    Shape.UPLOAD: grpc.stream_unary_rpc_method_handler,
    Shape.WATCH: grpc.unary_stream_rpc_method_handler,
}

# Calls that wait in gRPC for its thread; gRPC drops those beyond this limit, as `CANCELLED`. By default it drops some
# at random when a thousand wait: under a flood, a third of the honest calls.
_UNTAKEN_CALLS = 3000
# How long a connection that has reached its maximum age goes on with its open calls and streams.
_CONNECTION_GRACE_MS = 60 * 1000
_PING_INTERVAL_MS = 10 * 1000


class GRPCTransport:
    """A gRPC server for the calls of a boundary. `share_port` lets several worker processes listen on one port."""

    def __init__(self, listener: Listener, boundary: Boundary, limits: Limits, *, share_port: bool) -> None:
        self._listener = listener
        self._file: tuple[int, int] | None = None
        # Every call is counted in its lane, and none reaches the executor that gRPC requires.
        self._server = grpc.server(
            ThreadPoolExecutor(max_workers=1),
            handlers=(_Handlers(boundary),),
            options=_options(limits, share_port=share_port),
        )

    def bind(self) -> int:
        """Take the address; return the port, or 1 for a Unix socket. Raise `ConfigurationError` when it cannot."""
        port = self._listener.bind(self._server)
        self._file = self._listener.file
        return port

    def start(self) -> None:
        """Serve."""
        self._server.start()

    def stop(self, grace: float) -> None:
        """Take no new calls, give open ones `grace` seconds, and wait until all have ended. Harmless when repeated."""
        # What arrives before its client knows of the end, gRPC itself answers as `CANCELLED`: no handler sees it.
        self._server.stop(grace).wait()
        self._listener.remove(self._file)

    def wait(self, timeout: float | None) -> bool:
        """Wait until the server has stopped; return False after `timeout` seconds."""
        return not self._server.wait_for_termination(timeout)


class _Handlers:
    """The generic handler for gRPC: knows what the boundary serves, and nothing else."""

    def __init__(self, boundary: Boundary) -> None:
        self._handlers: Mapping[str, Any] = {
            path: entered_by(_HANDLERS[route.rpc.shape], partial(boundary.enter, route))
            for path, route in boundary.routes.items()
        }

    def service(self, call: Any) -> Any:  # noqa: ANN401 - gRPC has no types
        """Return the gRPC handler of a call; None for a path that is not served."""
        return self._handlers.get(call.method)


def _options(limits: Limits, *, share_port: bool) -> Options:
    return (
        *server_options(message_bytes=limits.message_bytes, connections=limits.connections, share_port=share_port),
        ("grpc.max_metadata_size", limits.metadata_bytes),
        ("grpc.absolute_max_metadata_size", limits.metadata_bytes),
        # gRPC counts a call until its thread has let go of it; who has the answer may have asked again by then.
        ("grpc.max_concurrent_streams", 2 * limits.connection_calls),
        ("grpc.server.max_pending_requests", _UNTAKEN_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", _UNTAKEN_CALLS),
        # Certificates and routes change: clients must reconnect from time to time.
        ("grpc.max_connection_age_ms", round(limits.connection_age_seconds * 1000)),
        ("grpc.max_connection_age_grace_ms", _CONNECTION_GRACE_MS),
        ("grpc.max_connection_idle_ms", round(limits.connection_idle_seconds * 1000)),
        ("grpc.http2.min_ping_interval_without_data_ms", _PING_INTERVAL_MS),
    )
