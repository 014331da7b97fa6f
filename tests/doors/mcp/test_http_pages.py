"""A page of another site in a real browser, and a name of its own that leads here, get nothing from the proxy."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pdp.testing.inprocess import RunningServer
from tests.doors.mcp.conversation import MODERN, PATIENCE, STATED
from tests.doors.mcp.webworld import World, world

pytestmark = [pytest.mark.anyio, pytest.mark.doors]

_PAGE = Path(__file__).parent / "attack.html"
# The name of the other site, and the address to which it leads before it leads to the proxy.
_SITE, _THERE = "attacker.test", "127.0.0.2"


# All that a page may find out about the proxy: nothing, that something has been loaded or queued, or that its host is
# not the proxy's.
_NOTHING = re.compile(
    r'error: .*|opaque 0 |true|loaded |(?:basic 403|loaded) \{"jsonrpc":"2\.0","id":null,"error":\{"code":-32600,'
    r'"message":"the header `host` names no host of this door: see --allowed-host"\}\}'
)
_ATTEMPTS = 23


async def test_a_page_of_another_site_gets_nothing(desk_pdp: RunningServer, tmp_path: Path) -> None:
    """Whatever it tries, and even with a valid handle: no tool runs, no session begins, and no answer can be read.

    The same page gets them from a proxy that is told to let it.
    """
    async with AsyncExitStack() as opened:
        closed = await opened.enter_async_context(world(desk_pdp))
        letting = await opened.enter_async_context(world(desk_pdp, name=_SITE))
        _, handle = closed.session()
        sessions = _sessions(desk_pdp)
        reports: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        report = await opened.enter_async_context(_served("127.0.0.1", 0, _noting(reports)))
        told = {"handle": handle, "report": f"http://127.0.0.1:{report}/"}
        urls = [f"http://{_SITE}:{here.listener.port}/" for here in (closed, letting)]
        for here, after in ((closed, urls[1]), (letting, "")):
            page = _page(here.listener.port, {**told, "next": after})
            await opened.enter_async_context(_served(_THERE, here.listener.port, _rebinding(page, here)))
        await opened.enter_async_context(_browser(urls[0], tmp_path))
        async with asyncio.timeout(3 * PATIENCE):
            refused, let = await reports.get(), await reports.get()

        assert 3 * _ATTEMPTS == len(refused)
        assert [] == [text for text in refused.values() if not _NOTHING.fullmatch(text)]
        assert ({}, {}, sessions) == (closed.desk.headers, closed.desk.ran, _sessions(desk_pdp))
        assert '"attacked"' in let[f"{urls[1]}mcp preflighted, with a handle"]
        assert letting.desk.ran["echo"] > 0


def _sessions(pdp: RunningServer) -> list[str]:
    return sorted(one.session_id for one in pdp.client("approver").list_sessions())


def _page(port: int, told: dict[str, str]) -> bytes:
    """Return the page against the proxy at a port."""
    params = {"name": "echo", "arguments": {"text": "attacked"}, "_meta": STATED}
    greeting = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "page", "version": "1"},
    }
    plan = {
        **told,
        "doors": [f"http://{host}:{port}/mcp" for host in (_SITE, "127.0.0.1", "localhost")],
        "call": {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params},
        "headers": {"mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": "echo"},
        "begin": {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": greeting},
    }
    return _PAGE.read_bytes().replace(b"PLAN", json.dumps(plan).encode(), 1)


@asynccontextmanager
async def _served(host: str, port: int, answer: Callable[..., Any]) -> AsyncIterator[int]:
    """Serve connections, and provide the port."""
    server = await asyncio.start_server(answer, host, port)
    async with server:
        yield server.sockets[0].getsockname()[1]


def _noting(reports: asyncio.Queue[dict[str, str]]) -> Callable[..., Any]:
    """Return what takes the reports of pages."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        reports.put_nowait(json.loads(await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
        writer.close()

    return answer


def _rebinding(page: bytes, door: World) -> Callable[..., Any]:
    """Return the other site: it serves its page, and then its name leads to the proxy.

    Here the address stays and the bytes go on to the proxy, which is the same to the browser and to the proxy.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET / "):
            said = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
            writer.write(said % len(page) + page)
            writer.close()
            return
        there, sending = await asyncio.open_connection("127.0.0.1", door.listener.port)
        sending.write(head)
        await asyncio.gather(_carry(reader, sending), _carry(there, writer), return_exceptions=True)

    return answer


async def _carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while piece := await source.read(65536):
            target.write(piece)
            await target.drain()
    finally:
        target.close()


@asynccontextmanager
async def _browser(url: str, folder: Path) -> AsyncIterator[None]:
    """Open a page in Chromium."""
    program = shutil.which("chromium")
    assert program is not None, "the browser is absent: install the package `chromium`"
    process = await asyncio.create_subprocess_exec(
        *(program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--no-proxy-server"),
        *("--disable-background-networking", "--disable-component-update", f"--user-data-dir={folder / 'profile'}"),
        *(f"--host-resolver-rules=MAP {_SITE} {_THERE}", url),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()
