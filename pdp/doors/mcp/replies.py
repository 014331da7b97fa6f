"""What a client gets over HTTP, as ASGI sends it: one JSON text, or a stream of events, each sent at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from pdp.doors.mcp.events import KEEP_ALIVE, written
from pdp.serving.web import ClientGoneError, Send

_PIECE_BYTES, _TAKING_SECONDS = 64 * 1024, 30.0

# Ends an event of which a part alone has been sent as one that holds no message: no reader takes it for an answer.
_DROPPED = b"\r\nevent: dropped\r\n\r\n"

# An answer belongs to one session: nothing between keeps it, or changes it.
_PRIVATE = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
_STREAM = {"content-type": "text/event-stream", "cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}


class Reply:
    """The answer to one HTTP request. It begins once, and ends once."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False
        self.ended = False
        self._turn = asyncio.Lock()
        # Whether a part alone of an event has been sent.
        self._cut = False

    async def message(self, text: str, *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Send one message, as an event if the answer is a stream already, and end."""
        if self.begun:
            await self.event(text)
            await self.end()
            return
        body = text.encode("utf-8")
        await self._begin(status, {**_PRIVATE, **(headers or {}), "content-type": "application/json"}, len(body))
        await self._last(body)

    async def nothing(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        """Send a status alone, and end."""
        await self._begin(status, {**_PRIVATE, **(headers or {})}, 0)
        await self._last(b"")

    async def stream(self, headers: Mapping[str, str]) -> None:
        """Begin a stream of events."""
        await self._begin(200, {**_PRIVATE, **_STREAM, **headers}, None)

    async def event(self, text: str) -> None:
        """Send a message as an event."""
        await self._pieces(written(text), more=True)

    async def keep_alive(self) -> None:
        """Send a line that says no more than that the stream is open."""
        await self._pieces(KEEP_ALIVE, more=True)

    async def end(self) -> None:
        """End a stream."""
        await self._last(b"")

    async def _begin(self, status: int, headers: Mapping[str, str], length: int | None) -> None:
        self.begun = True
        whole = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        if length is not None:
            whole.append((b"content-length", str(length).encode("ascii")))
        await self._send({"type": "http.response.start", "status": status, "headers": whole})

    async def _last(self, body: bytes) -> None:
        self.ended = True
        await self._pieces(body, more=False)

    async def _pieces(self, body: bytes, *, more: bool) -> None:
        """Send a part of the body. Raise `ClientGoneError` when the client does not take it.

        The server waits for the client before each piece, and never within one: what it took would be held by nobody.
        """
        async with self._turn:
            if more and self._cut:
                body = _DROPPED + body
            last = max(len(body) - 1, 0) // _PIECE_BYTES * _PIECE_BYTES
            try:
                for at in range(0, last + 1, _PIECE_BYTES):
                    piece = {"body": body[at : at + _PIECE_BYTES], "more_body": more or at < last}
                    async with asyncio.timeout(_TAKING_SECONDS):
                        await self._send({"type": "http.response.body", **piece})
                    self._cut = at < last
            except TimeoutError:
                raise ClientGoneError from None
