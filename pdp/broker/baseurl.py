"""The base URL of a server over pipes: its requests go on to the broker, with the token of the call that is made."""

from __future__ import annotations

import asyncio
import http.client
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from secrets import compare_digest
from typing import Final

from pdp.broker.headers import never_passes
from pdp.broker.replies import ClientGoneError, Reply
from pdp.broker.sending import Answer
from pdp.calltokens.asgi import Receive, Scope, Send, whole_body
from pdp.calltokens.claims import HEADER
from pdp.foundation.egress import EgressError, pieces_of

_MOST_BODY_BYTES: Final = 4 * 1024 * 1024
_SECONDS: Final = 120.0
_BAD, _UNAUTHORIZED, _FORBIDDEN, _TOO_LARGE, _UNAVAILABLE = 400, 401, 403, 413, 503


class BaseURL:
    """Sends requests with the placeholder on to the broker's socket, as an ASGI application.

    `token` returns the call token that may be used now, or an empty text. `server` is the server's name in the
    catalogue.
    """

    def __init__(self, server: str, *, broker: Path, placeholder: str, token: Callable[[], str]) -> None:
        self._server = server
        self._broker = broker
        self._placeholder = placeholder
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        reply = Reply(send)
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        held = [name for name, value in headers if self._holds(value)]
        token = self._token()
        if not held:
            await reply.problem(_UNAUTHORIZED, "no header holds the placeholder")
        elif not token:
            await reply.problem(_FORBIDDEN, "no call is under way that was allowed")
        elif (body := await whole_body(receive, _MOST_BODY_BYTES)) is None:
            await reply.problem(_TOO_LARGE, f"the body has more than {_MOST_BODY_BYTES} bytes")
        else:
            kept = {name: value for name, value in headers if name not in held and not never_passes(name)}
            query = scope["query_string"].decode("latin-1")
            target = f"/{self._server}{scope['raw_path'].decode('latin-1')}{'?' if query else ''}{query}"
            ask = partial(self._ask, scope["method"], target, {**kept, HEADER: token}, body)
            loop = asyncio.get_running_loop()
            try:
                await asyncio.to_thread(ask, partial(reply.stream, loop))
            except ClientGoneError:
                return
            except (UnicodeEncodeError, http.client.InvalidURL):
                await reply.problem(_BAD, "the path holds a character that must be escaped")
            except (OSError, http.client.HTTPException, EgressError):
                await reply.problem(_UNAVAILABLE, "the broker does not answer")

    def _holds(self, value: str) -> bool:
        # As bytes: of texts, only those in ASCII can be compared.
        return compare_digest(value.rsplit(" ", maxsplit=1)[-1].encode(), self._placeholder.encode())

    def _ask(
        self, method: str, target: str, headers: dict[str, str], body: bytes, take: Callable[[Answer], None]
    ) -> None:
        connection = _Connection(self._broker)
        try:
            connection.request(method, target, body=body or None, headers=headers)
            got = connection.getresponse()
            shown = [(name.lower(), value) for name, value in got.getheaders() if not never_passes(name.lower())]
            take(Answer(status=got.status, headers=shown, pieces=pieces_of(got)))
        finally:
            connection.close()


class _Connection(http.client.HTTPConnection):
    """A connection to a socket of this machine."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
