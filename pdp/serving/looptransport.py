"""The transport by a loop over libnghttp2: one thread for all connections, and the lanes for what calls do."""

from __future__ import annotations

import logging
import socket
import threading
from functools import partial

from grpc import StatusCode

from pdp.limits import Limits
from pdp.serving.boundary import Boundary
from pdp.serving.http2.bounds import Bounds, Times
from pdp.serving.http2.connection import GRPCConnection
from pdp.serving.http2.link import Link
from pdp.serving.http2.listening import listening
from pdp.serving.http2.loop import Loop
from pdp.serving.http2.loopcall import LoopCall
from pdp.serving.http2.nghttp2 import NGHTTP2Engine
from pdp.serving.http2.tls import TLSContexts, proved
from pdp.serving.http2.tlssocket import TLSSocket
from pdp.serving.listener import Listener
from pdp.serving.rpc import Shape

_LOG = logging.getLogger("pdp.server")

# What all callers together may leave unread.
WAITING_BYTES = 64 * 1024 * 1024
_SINGLE = frozenset({Shape.UNARY, Shape.FEED, Shape.WATCH})


class LoopTransport:
    """A server for the calls of a boundary. `share_port` lets several worker processes listen on one port."""

    def __init__(
        self,
        listener: Listener,
        boundary: Boundary,
        limits: Limits,
        *,
        share_port: bool,
        most_waiting: int = WAITING_BYTES,
    ) -> None:
        self._listener, self._boundary, self._limits = listener, boundary, limits
        self._share_port, self._most_waiting = share_port, most_waiting
        self._bounds = Bounds(
            message_bytes=limits.message_bytes,
            header_bytes=limits.metadata_bytes,
            streams=limits.connection_calls,
        )
        self._times = Times(age=limits.connection_age_seconds, idle=limits.connection_idle_seconds)
        self._paths = {path: route.rpc.shape in _SINGLE for path, route in boundary.routes.items()}
        self._contexts: TLSContexts | None = None
        self._listening: list[socket.socket] = []
        self._file: tuple[int, int] | None = None
        self._loop: Loop | None = None
        self._stopped = threading.Event()

    def bind(self) -> int:
        """Take the address; return the port, or 1 for a Unix socket. Raise `ConfigurationError` when it cannot."""
        self._contexts = TLSContexts(self._listener.tls) if self._listener.tls else None
        self._listening, port = listening(self._listener, share_port=self._share_port)
        self._file = self._listener.file
        return port

    def start(self) -> None:
        """Serve."""
        self._loop = Loop(
            self._listening,
            self._open,
            turn_over=self._boundary.turn_over,
            answers_left=self._boundary.turn_left,
            most_links=self._limits.connections,
            most_waiting=self._most_waiting,
        )
        self._loop.start()

    def stop(self, grace: float) -> None:
        """Take no new calls, give open ones `grace` seconds, and wait until all have ended. Harmless when repeated."""
        if self._loop is not None:
            self._loop.stop(grace)
        for sock in self._listening:
            sock.close()
        self._listening = []
        self._listener.remove(self._file)
        self._stopped.set()

    def wait(self, timeout: float | None) -> bool:
        """Wait until the server has stopped; return False after `timeout` seconds."""
        return self._stopped.wait(timeout)

    @property
    def open_calls(self) -> int:
        """Return how many calls are open."""
        return self._loop.open_calls if self._loop is not None else 0

    def _open(self, sock: socket.socket, address: str, loop: Loop, now: float) -> Link:
        return Link(
            sock if self._contexts is None else TLSSocket(sock, self._contexts.current()),
            address,
            keeper=loop,
            connection=partial(GRPCConnection, NGHTTP2Engine, self._paths, self._bounds),
            enter=self._enter,
            proved=proved,
            bounds=self._bounds,
            times=self._times,
            now=now,
        )

    def _enter(self, path: str, call: LoopCall) -> None:
        try:
            self._boundary.enter(self._boundary.routes[path], call)
        except Exception:  # noqa: BLE001 - an error of one call or connection must not end the loop, and with it the server
            _LOG.exception("a call could not be accepted")
            call.refuse(StatusCode.INTERNAL, "internal error")
