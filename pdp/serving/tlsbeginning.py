"""Connections of clients on which TLS has not begun yet: bounded, since nothing else counts them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

# They take files of the process, and a beginning takes milliseconds.
_MOST = 128


class Beginning(asyncio.Protocol):
    """A connection until TLS has begun, which then gets a `protocol`; closed if that takes longer than `seconds`.

    It is in `beginning` until then. Of too many there the oldest is closed.
    """

    _transport: asyncio.Transport
    _task: asyncio.Task[None]

    def __init__(
        self,
        tls: ssl.SSLContext,
        protocol: Callable[[], asyncio.Protocol],
        beginning: dict[Beginning, None],
        seconds: float,
    ) -> None:
        self._tls = tls
        self._protocol = protocol
        self._beginning = beginning
        self._seconds = seconds
        # What comes behind the last word of TLS, in the same piece.
        self._early = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)
        self._beginning[self] = None
        if len(self._beginning) > _MOST:
            next(iter(self._beginning)).abort()
        self._task = asyncio.ensure_future(self._begin())

    def data_received(self, data: bytes) -> None:
        """Keep what the protocol gets as soon as there is one."""
        self._early += data

    def abort(self) -> None:
        """End the connection."""
        self._beginning.pop(self, None)
        self._task.cancel()
        self._transport.abort()

    async def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            encrypted = await loop.start_tls(
                self._transport, self, self._tls, server_side=True, ssl_handshake_timeout=self._seconds
            )
        except OSError:
            # Whoever speaks no TLS, or has no certificate.
            self._transport.abort()
            return
        finally:
            self._beginning.pop(self, None)
        if encrypted is None or encrypted.is_closing():
            return
        protocol = self._protocol()
        encrypted.set_protocol(protocol)
        protocol.connection_made(encrypted)
        if self._early:
            protocol.data_received(bytes(self._early))
