"""Messages as lines on pipes, as MCP sends them over stdin and stdout."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from pdp.doors.mcp.messages import MOST_BYTES

_CHUNK = 64 * 1024


async def lines(source: asyncio.StreamReader) -> AsyncIterator[bytes | None]:
    """Yield each line without its end; None for one that is longer than a message may be. It is not kept."""
    held, too_long = bytearray(), False
    while chunk := await source.read(_CHUNK):
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            whole, long = bytes(held + part), too_long or len(held) + len(part) > MOST_BYTES
            held, too_long = bytearray(), False
            yield None if long else whole
        too_long = too_long or len(held) + len(rest) > MOST_BYTES
        if too_long:
            held.clear()
        else:
            held += rest
    if held or too_long:
        yield None if too_long else bytes(held)


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
