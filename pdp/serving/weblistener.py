"""Listening for HTTP as doors and the console do it: within bounds, and under TLS beyond loopback."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import uvicorn

from pdp.errors import CannotListenError, ConfigurationError, reason_of
from pdp.foundation.loopback import host_and_port, is_loopback
from pdp.foundation.ownership import require_own
from pdp.serving import webconnections
from pdp.serving.portcertificate import PortCertificate
from pdp.serving.tlsbeginning import Beginning
from pdp.serving.webconnections import BoundedProtocol, ClosingProtocol
from pdp.serving.webrequests import Seldom

_BACKLOG = 128
_IDLE_SECONDS, _END_SECONDS = 5, 3
# How often a port is sought that is free on both addresses, and what says that there is no `::1`.
_TRIES = 8
_NO_IPV6 = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
# Uvicorn's, and what keeps it quiet.
_LOG, _SELDOM = logging.getLogger("uvicorn.error"), Seldom()
_LOOPBACK_NAMES = ("127.0.0.1", "[::1]", "localhost")


class Listener:
    """A port that is open, and not yet served. Use it with `with`.

    With `client_roots` clients need a certificate that one of them has signed; applications get it as the ASGI
    extension `tls`. Raise `ConfigurationError` for an address that cannot be opened, or that others reach without TLS.
    """

    def __init__(
        self,
        address: str,
        *,
        certificate: Path | None = None,
        key: Path | None = None,
        client_roots: Path | None = None,
    ) -> None:
        found = host_and_port(address)
        if found is None:
            raise ConfigurationError(f"not an address such as `127.0.0.1:8080`: `{address}`")
        self.host, port = found
        self.tls = _tls(certificate, key, client_roots)
        if not is_loopback(self.host) and self.tls is None:
            raise ConfigurationError(f"others can reach `{address}`: it needs a certificate and its key")
        try:
            self.socket = _open(self.host, port)
        except OSError as error:
            raise CannotListenError(f"cannot listen on `{address}`: {reason_of(error)}") from None
        self.port: int = self.socket.getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """Return what is to be served."""
        return (self.socket,)

    @property
    def url(self) -> str:
        """Return the beginning of this listener's URLs."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self._scheme}://{host}:{self.port}"

    @property
    def hosts(self) -> frozenset[str]:
        """Return the hosts by which clients on this machine call; none beyond loopback."""
        return frozenset(f"{name}:{self.port}" for name in _LOOPBACK_NAMES if is_loopback(self.host))

    @property
    def origins(self) -> frozenset[str]:
        """Return the origins of pages that this listener could have sent; none beyond loopback."""
        return frozenset(f"{self._scheme}://{host}" for host in self.hosts)

    @property
    def _scheme(self) -> str:
        return "http" if self.tls is None else "https"


class LoopbackListener:
    """A port that is open on every loopback address of `localhost`, and not yet served. Use it with `with`.

    A browser may try `::1` first, where another user could else wait for it at the same port.
    Raise `CannotListenError` when it cannot be opened.
    """

    tls: ssl.SSLContext | None = None

    def __init__(self, port: int = 0) -> None:
        try:
            self.sockets = _open_both(port)
        except OSError as error:
            raise CannotListenError(f"cannot listen on port `{port}` of this machine: {reason_of(error)}") from None
        self.port: int = self.sockets[0].getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for opened in self.sockets:
            opened.close()


class SocketListener:
    """A Unix socket that is open to this user alone, and not yet served. Use it with `with`.

    A socket that nobody serves any more is replaced. Raise `ConfigurationError` when it cannot be opened.
    """

    tls: ssl.SSLContext | None = None
    port: int = 0

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            require_own(path.parent, "anyone could impersonate what listens there")
            self.sockets = (_open_socket(path),)
        except OSError as error:
            raise CannotListenError(f"cannot listen on `{path}`: {reason_of(error)}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sockets[0].close()
        self._path.unlink(missing_ok=True)


async def serve(
    app: Any,  # noqa: ANN401 - an ASGI application
    listener: Listener | LoopbackListener | SocketListener,
    *,
    close_streams: bool = False,
) -> None:
    """Serve an ASGI application until this is cancelled, and what has begun a moment longer.

    Then it cancels what still streams, which the application has to end. With `close_streams` the connection is closed
    before that, and clients see that the stream is not whole.
    """
    tls = listener.tls
    _LOG.addFilter(_SELDOM)
    server = _Server(
        uvicorn.Config(
            app,
            http=ClosingProtocol if close_streams else BoundedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            # Requests: those whose connections were just ended are among them.
            limit_concurrency=2 * webconnections.MOST_CONNECTIONS,
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=_END_SECONDS,
            h11_max_incomplete_event_size=webconnections.MOST_HEAD_BYTES,
            ssl_context_factory=None if tls is None else lambda *_: tls,
        )
    )
    serving = asyncio.ensure_future(server.serve(sockets=list(listener.sockets)))
    try:
        await asyncio.shield(serving)
    finally:
        server.should_exit = True
        await serving


class _Server(uvicorn.Server):
    """Uvicorn's server, which leaves signals to others: what follows it must still run.

    Under TLS, it bounds how many clients are about to begin, and how long one may take: asyncio would wait for a
    minute, and counts no connection before.
    """

    _beginning: dict[Beginning, None]

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        tls = self.config.ssl
        await super().startup(sockets if tls is None else [])
        self._beginning = {}
        if tls is None:
            return
        begin = partial(Beginning, tls, self._protocol, self._beginning, webconnections.HEAD_SECONDS)
        for opened in sockets or ():
            loop = asyncio.get_running_loop()
            self.servers.append(await loop.create_server(begin, sock=opened, backlog=self.config.backlog))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End to serve."""
        for one in tuple(self._beginning):
            one.abort()
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        kind: Any = self.config.http_protocol_class
        made: asyncio.Protocol = kind(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        return made


def _open_socket(path: Path) -> socket.socket:
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            _require_left(path)
            path.unlink()
        # It must never be open to others, not even for the moment between its creation and a chmod.
        before = os.umask(0o177)
        try:
            opened.bind(str(path))
        finally:
            os.umask(before)
        opened.listen(_BACKLOG)
    except OSError:
        opened.close()
        raise
    return opened


def _require_left(path: Path) -> None:
    """Raise when another process serves a socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        if asking.connect_ex(str(path)) == 0:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _open(host: str, port: int) -> socket.socket:
    # With the protocol by name asyncio turns off the collecting of small pieces: it costs 40 ms for each answer.
    opened = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
        opened.listen(_BACKLOG)
    except OSError:
        opened.close()
        raise
    return opened


def _open_both(port: int) -> tuple[socket.socket, ...]:
    """Open a port on `127.0.0.1` and, where the machine has it, on `::1`; for port 0 one that is free on both."""
    for left in reversed(range(_TRIES)):
        first = _open("127.0.0.1", port)
        try:
            return first, _open("::1", first.getsockname()[1])
        except OSError as error:
            if error.errno in _NO_IPV6:
                return (first,)
            first.close()
            if port or not left:
                raise
    raise AssertionError("the last try returns or raises")


def _tls(certificate: Path | None, key: Path | None, client_roots: Path | None) -> ssl.SSLContext | None:
    if certificate is None and key is None and client_roots is None:
        return None
    if certificate is None or key is None:
        raise ConfigurationError("a certificate needs its key, and a key its certificate")
    return PortCertificate(certificate, key, client_roots).context
