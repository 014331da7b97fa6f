"""Calls over HTTP/1.1, by prepared requests on connections that stay open; each answer is checked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from itertools import count
from typing import Self

from pdp.bench.callids import digits_of, traceparent
from pdp.bench.dialects import Dialect
from pdp.bench.exchanges import supplied
from pdp.bench.failure import WrongAnswerError
from pdp.bench.load import Answered, Ask
from pdp.bench.plan import Measurement
from pdp.bench.questions import Workload

_END, _UNIX = b"\r\n\r\n", "unix:"
_PATIENCE_SECONDS = 30.0


@asynccontextmanager
async def over_http(address: str, dialect: Dialect, measurement: Measurement, workload: Workload) -> AsyncIterator[Ask]:
    """Yield the function that asks the server at an address. It raises `WrongAnswerError` for every error, too."""
    shape, numbers = measurement.shape, count(1)
    supply = supplied(workload, measurement.misses, lambda questions: dialect.encode(shape, questions), size=1)
    async with HTTPConnections(address) as connections:

        async def ask() -> Answered:
            asked, digits = next(supply), digits_of(next(numbers))
            answer = await connections.exchange(asked.wire, digits)
            return asked.answered(dialect.check(shape, answer, asked.questions))

        yield ask


def request(method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """Return a request."""
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"content-length: {len(body)}"]).encode() + _END + body


class HTTPConnections:
    """Connections to one server, each with one call at a time: a call takes one that is idle, or opens one."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for writer in self._writers:
            writer.close()

    async def exchange(self, prepared: bytes, digits: bytes) -> bytes:
        """Send a request in a trace of its own; return the body of the answer.

        Raise `WrongAnswerError` for another status than 200, and when there is no answer.
        """
        first, end, rest = prepared.partition(b"\r\n")
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                reader, writer = self._idle.pop() if self._idle else await self._opened()
                writer.write(b"%b%btraceparent: %b%b%b" % (first, end, traceparent(digits), end, rest))
                status, body = await _answer(reader)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            raise WrongAnswerError(f"no answer: {str(error) or 'it took too long'}") from None
        if status != HTTPStatus.OK:
            raise WrongAnswerError(f"no answer: status {status}, {body.decode(errors='replace')}")
        self._idle.append((reader, writer))
        return body

    async def _opened(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._address.startswith(_UNIX):
            reader, writer = await asyncio.open_unix_connection(self._address.removeprefix(_UNIX))
        else:
            host, _, port = self._address.rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
        self._writers.append(writer)
        return reader, writer


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Return status and body of the next answer."""
    head = (await reader.readuntil(_END)).decode("latin-1").lower()
    status, length = int(head.split(" ", 2)[1]), head.partition("\r\ncontent-length:")[2].partition("\r\n")[0]
    if "\r\ntransfer-encoding: chunked\r\n" not in head:
        return status, await reader.readexactly(int(length or 0))
    body = b""
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:size]
    await reader.readline()
    return status, body
