"""Connections to the server behind the proxy: none is used again on which the server has said more than its answer.

What is left would be taken for the answer to the next request, which can be that of another session. `httpcore2` alone
looks only at what the system still holds, so the streams here know of each byte that has come.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import httpcore2

_OK = 200
# Headers before those of an answer (1xx) that a server may send.
_MOST_INTERIM = 16
# Of what has come and is not read; what one look at the system brings is beside it.
_MOST_HELD = 64 * 1024
# Between tries of the addresses of a host (RFC 8305).
_NEXT_ADDRESS_SECONDS = 0.25


class Connections(httpcore2.AsyncConnectionPool):
    """As many as are needed at one time, each of which is used again for a while."""

    def create_connection(self, origin: httpcore2.Origin) -> httpcore2.AsyncConnectionInterface:
        """Return a connection that is not open yet."""
        return _Route(origin, self._ssl_context, self._keepalive_expiry, network_backend=_Network())


class _Route(httpcore2.AsyncHTTPConnection):
    """Connects as that of `httpcore2` does, with a connection of this module."""

    async def handle_async_request(self, request: httpcore2.Request) -> httpcore2.Response:
        async with self._request_lock:
            if self._connection is None:
                try:
                    stream = await self._connect(request)
                except BaseException:
                    self._connect_failed = True
                    raise
                self._connection = _Connection(self._origin, stream, self._keepalive_expiry)
        return await self._connection.handle_async_request(request)


class _Connection(httpcore2.AsyncHTTP11Connection):
    """One of HTTP/1.1."""

    _interim = 0

    def has_expired(self) -> bool:
        """Say that it must not be used again. The pool asks before each use."""
        return super().has_expired() or bool(self._h11_state.trailing_data[0])

    async def handle_async_request(self, request: httpcore2.Request) -> httpcore2.Response:
        self._interim = 0
        return await super().handle_async_request(request)

    async def _receive_event(self, timeout: float | None = None) -> Any:  # noqa: ANN401, ASYNC109 - of h11, and as there
        event = await super()._receive_event(timeout)
        if getattr(event, "status_code", _OK) < _OK:
            self._interim += 1
            if self._interim > _MOST_INTERIM:
                raise httpcore2.RemoteProtocolError("too many headers before those of the answer")
        return event


class _Network(httpcore2.AsyncNetworkBackend):
    """Opens streams over TCP."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - as there
        local_address: str | None = None,  # noqa: ARG002 - never given
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002 - never given
    ) -> httpcore2.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        with _told_as(httpcore2.ConnectTimeout, httpcore2.ConnectError):
            async with asyncio.timeout(timeout):
                _, stream = await loop.create_connection(
                    _Stream, host, port, happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS
                )
        return stream


class _Stream(asyncio.Protocol, httpcore2.AsyncNetworkStream):
    """A stream that takes what comes at once."""

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._held = bytearray()
        self._over = False
        # Set while there is something to read, or no more will come; and while the system takes what is written.
        self._come, self._taken = asyncio.Event(), asyncio.Event()
        self._taken.set()

    def _begin(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        # What is written has left, then, but for a byte. With a bound of 0, that of TLS in asyncio pauses for ever.
        transport.set_write_buffer_limits(high=1, low=0)

    # From the loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._begin(cast(asyncio.Transport, transport))

    def data_received(self, data: bytes) -> None:
        self._held += data
        self._come.set()
        if len(self._held) > _MOST_HELD:
            self._transport.pause_reading()

    def eof_received(self) -> None:
        self._over = True
        self._come.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - all that has come can still be read
        self._over = True
        self._come.set()
        self._taken.set()

    def pause_writing(self) -> None:
        self._taken.clear()

    def resume_writing(self) -> None:
        self._taken.set()

    # For the connection.

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - as there
        with _told_as(httpcore2.ReadTimeout, httpcore2.ReadError):
            async with asyncio.timeout(timeout):
                await self._come.wait()
        data = bytes(self._held[:max_bytes])
        del self._held[:max_bytes]
        if not self._held and not self._over:
            self._come.clear()
            self._transport.resume_reading()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as there
        if not self._over:
            self._transport.write(buffer)
        with _told_as(httpcore2.WriteTimeout, httpcore2.WriteError):
            async with asyncio.timeout(timeout):
                await self._taken.wait()
            if self._over:
                raise ConnectionResetError

    async def aclose(self) -> None:
        self._transport.abort()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as there
    ) -> httpcore2.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        with _told_as(httpcore2.ConnectTimeout, httpcore2.ConnectError):
            try:
                if self._held:
                    # Whoever is in between could have said it.
                    raise ConnectionResetError("the server speaks before TLS has begun")
                async with asyncio.timeout(timeout):
                    encrypted = await loop.start_tls(
                        self._transport, self, ssl_context, server_hostname=server_hostname
                    )
            except BaseException:
                self._transport.abort()
                raise
        if encrypted is None:
            raise httpcore2.ConnectError("the server ends the connection")
        self._begin(encrypted)
        return self

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - as there
        if info == "is_readable":
            return bool(self._held) or self._over or _readable(self._transport.get_extra_info("socket").fileno())
        return self._transport.get_extra_info(info)


@contextmanager
def _told_as(late: type[Exception], failed: type[Exception]) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise late from error
    except OSError as error:
        raise failed(str(error)) from error


def _readable(descriptor: int) -> bool:
    """Say whether the system holds anything to read, or the end, that the loop has not seen yet."""
    if descriptor < 0:
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
