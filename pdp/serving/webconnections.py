"""The connections of a listener over HTTP, within bounds: what a client owes is waited for only so long."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from pdp.serving.webrequests import StrictConnection

MOST_CONNECTIONS = 512
# For the headers of a request, from the first moment of the connection.
HEAD_SECONDS, MOST_HEAD_BYTES = 10.0, 64 * 1024
# Within which a client takes something of an answer.
_TAKING_SECONDS = 30.0
_MORE_SECONDS = 2


class BoundedProtocol(H11Protocol):
    """Uvicorn's protocol, with bounds on the time that a client may take to send headers and to take an answer.

    Of more connections than are served, it ends one that waits for its client; else the new one is answered with 503.
    """

    # What ends it, unless the rest of the headers comes, or some of the answer is taken.
    _waiting: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    # Since when it is as it is: without a request, with the headers of one, or with an answer that is not taken; and
    # whether it was ended for another one, and only has not heard of it.
    since, made_room = 0.0, False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, if need be in place of another connection."""
        super().connection_made(transport)
        self.conn = StrictConnection(h11.SERVER, MOST_HEAD_BYTES)
        self.since = self.loop.time()
        if not self._find_room():
            # What uvicorn answers when there are more than so many.
            self.limit_concurrency = 0
        encrypted = transport.get_extra_info("ssl_object")
        if encrypted is not None and (der := encrypted.getpeercert(binary_form=True)):
            self.app = _presented(self.app, ssl.DER_cert_to_PEM_cert(der))
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take what the client sends."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self.since = self.loop.time()
        if self.cycle is not None and not self.cycle.response_complete:
            self._rest()
            return
        self._wait()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self.since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Watch whether the client takes something of its answer."""
        super().pause_writing()
        self.since = self.loop.time()
        self._watch_taking()

    def resume_writing(self) -> None:
        """Watch no more."""
        super().resume_writing()
        self._end_watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._rest()
        self._end_watch()
        super().connection_lost(exc)

    @property
    def waits(self) -> bool:
        """Say whether it waits for its client: for a request, for the rest of one, or until an answer is taken."""
        if self.cycle is None or self.cycle.response_complete or self.transport.is_closing():
            return True
        return self.cycle.more_body or self._stalled is not None

    def _find_room(self) -> bool:
        """Say whether there is room for this connection, if need be in place of one that waits for its client.

        Else anyone who connects and asks nothing, or does not end what is asked, could keep out all others. It is the
        one that has waited for longest of the host that has most of them.
        """
        if len(self.connections) <= MOST_CONNECTIONS:
            return True
        others = [one for one in self.connections if isinstance(one, BoundedProtocol) and one is not self]
        waiting = [one for one in others if one.waits and not one.made_room]
        if not waiting:
            return False
        of_host = Counter(one.host for one in waiting)
        chosen = max(waiting, key=lambda one: (of_host[one.host], -one.since))
        chosen.made_room = True
        chosen.transport.abort()
        return True

    @property
    def host(self) -> str:
        """Return the address of its client; empty for a Unix socket."""
        return self.client[0] if self.client else ""

    def _wait(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _rest(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _watch_taking(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._stalled = self.loop.call_later(_TAKING_SECONDS, self._look_taken, left)

    def _look_taken(self, left: int) -> None:
        """End it if nothing has been taken since so much was left."""
        if self.transport.get_write_buffer_size() < left:
            self._watch_taking()
        else:
            self.transport.abort()

    def _end_watch(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


class ClosingProtocol(BoundedProtocol):
    """The same, which closes what still streams when the server ends.

    Uvicorn would cancel it, and log that as an error.
    """

    def shutdown(self) -> None:
        """End what has no request, and soon all else."""
        super().shutdown()
        self.loop.call_later(_MORE_SECONDS, self.transport.close)


def _presented(app: Any, pem: str) -> Any:  # noqa: ANN401 - an ASGI application
    """Return an application that is told of the certificate which its client has proved."""

    async def told(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - of ASGI
        extensions = {**(scope.get("extensions") or {}), "tls": {"client_cert_chain": [pem]}}
        await app({**scope, "extensions": extensions}, receive, send)

    return told
