"""The connections of a listener over HTTP: one that waits for its client holds no place that another one needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest

from pdp.serving import webconnections
from pdp.serving.web import ClientGoneError, read_body
from pdp.serving.weblistener import Listener, serve

pytestmark = pytest.mark.anyio

MOST = 6
HEAD = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n"
# More than the system takes of what nobody reads.
LARGE = b" " * 8 * 1024 * 1024
GET_LARGE = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
PATIENCE = 30.0


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the body of a request; with a large one when it has none."""
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    with suppress(ClientGoneError):
        body = await read_body(headers, receive, most=4) or LARGE
        length = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": body})


class Clients:
    """Clients of one port."""

    def __init__(self, port: int, opened: AsyncExitStack) -> None:
        self._port = port
        self._opened = opened

    async def begin(self, sent: bytes, host: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection from a host, and send something."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, local_addr=(host, 0))
        self._opened.callback(writer.close)
        writer.write(sent)
        await writer.drain()
        # The listener has its turn.
        await asyncio.sleep(0.01)
        return reader, writer

    async def answer(self) -> bytes:
        """Return the first line of the answer to a request that is all there."""
        reader, _ = await self.begin(HEAD + b"body")
        return await reader.readline()


@asynccontextmanager
async def clients(monkeypatch: pytest.MonkeyPatch, most: int = MOST) -> AsyncIterator[Clients]:
    """Serve so many connections."""
    monkeypatch.setattr(webconnections, "MOST_CONNECTIONS", most)
    with Listener("127.0.0.1:0") as listener:
        serving = asyncio.ensure_future(serve(echo, listener))
        async with asyncio.timeout(PATIENCE), AsyncExitStack() as opened:
            yield Clients(listener.port, opened)
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving


@pytest.mark.parametrize("sent", [b"", HEAD, HEAD + b"bod", GET_LARGE, GET_LARGE * 20])
async def test_a_connection_that_waits_for_its_client_makes_room(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the client owes a request, the rest of a body, or takes no answer: one more is served."""
    async with clients(monkeypatch) as here:
        for _ in range(3 * MOST):
            await here.begin(sent)

        assert b"HTTP/1.1 200 OK\r\n" == await here.answer()


async def test_the_host_that_holds_most_connections_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """And there the one that has waited longest: a flood from one host ends nothing of another."""
    async with clients(monkeypatch) as here:
        reader, writer = await here.begin(HEAD + b"bo")
        for _ in range(3 * MOST):
            await here.begin(HEAD, "127.0.0.2")
        writer.write(b"dy")

        assert b"HTTP/1.1 200 OK\r\n" == await reader.readline()


async def test_an_answer_that_is_not_taken_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it would hold its connection for ever."""
    monkeypatch.setattr(webconnections, "_TAKING_SECONDS", 0.2)
    async with clients(monkeypatch) as here:
        reader, _ = await here.begin(GET_LARGE)
        await asyncio.sleep(1)
        with suppress(ConnectionResetError):
            taken = await reader.read(-1)

            assert len(LARGE) > len(taken)


async def test_an_answer_that_is_taken_slowly_is_sent_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts is that the client takes some of it."""
    monkeypatch.setattr(webconnections, "_TAKING_SECONDS", 1.0)
    async with clients(monkeypatch) as here:
        reader, _ = await here.begin(GET_LARGE)
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(16):
            await asyncio.sleep(0.1)
            await reader.readexactly(len(LARGE) // 16)
