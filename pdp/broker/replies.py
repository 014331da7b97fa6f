"""Answers over HTTP, from the thread that reads them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from pdp.broker.sending import Answer
from pdp.calltokens.asgi import Send

# For one piece of an answer.
_TAKING_SECONDS: Final = 30.0


class ClientGoneError(Exception):
    """Nobody waits for the answer, or takes it."""


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
