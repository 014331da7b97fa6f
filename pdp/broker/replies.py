"""Answers over HTTP, from the thread that reads them, and what ends it when nobody waits any more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from pdp.broker.sending import Answer
from pdp.calltokens.asgi import Receive, Send
from pdp.foundation.egress import Egress

# For one piece of an answer.
_TAKING_SECONDS: Final = 30.0


class ClientGoneError(Exception):
    """Nobody waits for the answer, or takes it."""


class Running:
    """What ends a request to an upstream when the client has gone."""

    def __init__(self) -> None:
        self._egress: Egress | None = None
        self._gone = False

    def opened(self, egress: Egress) -> None:
        """Remember what ends the request."""
        self._egress = egress
        # INVARIANT: either this code or `until_gone` sees what the other has done.
        if self._gone:
            egress.close()

    async def until_gone(self, receive: Receive) -> None:
        """Wait until the client has gone, and end the request."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        if self._egress is not None:
            self._egress.close()


class Reply:
    """The answer to one request."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._begun = False

    def stream(self, loop: asyncio.AbstractEventLoop, answer: Answer) -> None:
        """Hand on an answer as it comes, from the thread that reads it; a slow client slows it.

        Raise `ClientGoneError` when the client has gone, or does not take it: the thread is there for others too.
        """

        def put(message: Mapping[str, Any]) -> None:
            try:
                asyncio.run_coroutine_threadsafe(self._put(message), loop).result()
            except OSError:
                raise ClientGoneError from None

        headers = [(name.encode(), value.encode()) for name, value in answer.headers]
        put({"type": "http.response.start", "status": answer.status, "headers": headers})
        for piece in answer.pieces:
            put({"type": "http.response.body", "body": piece, "more_body": True})
        put({"type": "http.response.body", "body": b"", "more_body": False})

    async def problem(self, status: int, text: str, reason: str = "") -> None:
        """Answer with what is wrong. An answer that has begun is broken off instead: nobody takes it for whole."""
        if self._begun:
            raise ConnectionAbortedError("the answer broke off")
        body = json.dumps({"error": text, **({"reason": reason} if reason else {})}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        with suppress(OSError):
            await self._put({"type": "http.response.start", "status": status, "headers": headers})
            await self._put({"type": "http.response.body", "body": body, "more_body": False})

    async def _put(self, message: Mapping[str, Any]) -> None:
        self._begun = True
        async with asyncio.timeout(_TAKING_SECONDS):
            await self._send(dict(message))
