"""A server of HTTP/1.1 for the systems behind doors and brokers: it answers at once, with JSON, from one function."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple


class Request(NamedTuple):
    """A request; the names of its headers are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


# Returns status and body.
Answering = Callable[[Request], tuple[HTTPStatus, bytes]]


def serve(answering: Answering) -> None:
    """Print the address, and serve until standard input ends."""
    asyncio.run(_serve(answering))


async def _serve(answering: Answering) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await _read(reader):
            status, body = answering(request)
            head = f"HTTP/1.1 {status} {status.phrase}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
            writer.write(f"{head}\r\n\r\n".encode() + body)
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print(f"listening on 127.0.0.1:{port}", flush=True)  # noqa: T201 - how whoever started it learns the port
    await asyncio.to_thread(sys.stdin.read)


async def _read(reader: asyncio.StreamReader) -> Request | None:
    """Return the next request; None when there is none any more."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head.decode("latin-1").rstrip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Request(method, path, headers, await reader.readexactly(int(headers.get("content-length", "0"))))
