"""Call tokens for a tool server that is an ASGI application: `app = CallTokenMiddleware(app, guard)`."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from pdp.calltokens.claims import HEADER, Presenter
from pdp.calltokens.requests import MOST_BYTES, Guard, too_large

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_FORBIDDEN, _TOO_LARGE = 403, 413


class CallTokenMiddleware:
    """Stands before an application, and lets a call of a tool pass only with a call token.

    A body has at most `most_bytes`. `presenter` says who presents a token; by default whoever `presenter_of` finds.
    """

    def __init__(
        self,
        app: Application,
        guard: Guard,
        *,
        most_bytes: int = MOST_BYTES,
        presenter: Callable[[Scope], Presenter | None] | None = None,
    ) -> None:
        self._app = app
        self._guard = guard
        self._most_bytes = most_bytes
        self._presenter = presenter or presenter_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            # A WebSocket could carry calls that nothing here reads.
            await send({"type": "websocket.close", "code": 1008})
            return
        body = await whole_body(receive, self._most_bytes)
        if body is None:
            await _answer(send, _TOO_LARGE, too_large(self._most_bytes))
            return
        tokens = [value for name, value in scope["headers"] if name == HEADER.encode()]
        token = tokens[0].decode("latin-1") if len(tokens) == 1 else ""
        kinds = [value.decode("latin-1") for name, value in scope["headers"] if name == b"content-type"]
        request = scope["method"], scope["path"], body, token, self._presenter(scope), ", ".join(kinds)
        # It can ask for keys, or whether the token still counts.
        refusal = await asyncio.to_thread(self._guard.refusal, *request)
        if refusal is not None:
            await _answer(send, _FORBIDDEN, refusal)
            return
        await self._app(scope, _again(body, receive), send)


def presenter_of(scope: Scope) -> Presenter | None:
    """Return the presenter by the client's certificate (the ASGI extension `tls`), or a process on the same machine."""
    chain = (scope.get("extensions") or {}).get("tls", {}).get("client_cert_chain") or ()
    for certificate in chain:
        return Presenter.of_certificate(ssl.PEM_cert_to_DER_cert(certificate))
    # A Unix socket has a path and no port.
    server = scope.get("server")
    return Presenter() if server and server[1] is None else None


async def whole_body(receive: Receive, most: int) -> bytes | None:
    """Return the whole body; None when it is too large, or when the client has left."""
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            return None
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """Return what gives an application the body that was read, and then what comes after it."""
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def receiving() -> Message:
        return left.pop() if left else await receive()

    return receiving


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
