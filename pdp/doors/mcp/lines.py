"""Messages as lines on pipes, as MCP sends them over stdin and stdout."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

from pdp.doors.mcp.messages import MOST_BYTES

_CHUNK = 64 * 1024
# Enough for a method and an id.
_KEPT = 4 * 1024
# Of a line that is refused. A value takes much more memory than it has bytes.
_MOST_READ = 1024 * 1024


class TooLong(NamedTuple):
    """What is kept of a line that is longer than a message may be."""

    begin: bytes
    end: bytes


def ends_of(line: bytes | TooLong) -> TooLong:
    """Return what is read of a line that is refused: its two ends, or of a shorter one all."""
    if isinstance(line, TooLong):
        return line
    return TooLong(line, b"") if len(line) <= _MOST_READ else TooLong(line[:_KEPT], line[-_KEPT:])


async def lines(source: asyncio.StreamReader) -> AsyncIterator[bytes | TooLong]:
    """Yield each line without its end. Of one that is longer than a message may be, only its two ends are kept."""
    held, long = bytearray(), None
    while chunk := await source.read(_CHUNK):
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            long = _longer(long, held, part)
            yield long or bytes(held + part)
            held, long = bytearray(), None
        if long := _longer(long, held, rest):
            held.clear()
        else:
            held += rest
    if held or long:
        yield long or bytes(held)


def _longer(long: TooLong | None, held: bytearray, part: bytes) -> TooLong | None:
    if long is not None:
        return long._replace(end=(long.end + part)[-_KEPT:])
    if len(held) + len(part) <= MOST_BYTES:
        return None
    return TooLong(bytes((held + part)[:_KEPT]), bytes((held[-_KEPT:] + part)[-_KEPT:]))


class Sender:
    """Writes messages to a pipe, each whole; the pipe sets the pace.

    What is sent is in the pipe, not in this process, which may end at once.
    """

    def __init__(self, pipe: asyncio.StreamWriter) -> None:
        self._pipe = pipe
        pipe.transport.set_write_buffer_limits(0)
        self._turn = asyncio.Lock()

    async def send(self, message: bytes | str) -> None:
        """Write one message. Raise `ConnectionError` when nobody reads any more."""
        line = message.encode("utf-8") if isinstance(message, str) else message
        async with self._turn:
            self._pipe.write(line + b"\n")
            await self._pipe.drain()

    def close(self) -> None:
        """Say that nothing more comes."""
        self._pipe.close()
