"""A connection to the PDP that a test can cut, stall and mend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.machinery.ports import free_port


class Relay:
    """Passes bytes on to a server; `open` and `flowing` say whether it listens, and whether bytes come through."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._listener: asyncio.Server | None = None
        self._passing: set[asyncio.Task[None]] = set()
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.address = ""

    async def open(self) -> None:
        """Listen, at the same address each time."""
        port = int(self.address.rpartition(":")[2] or free_port())
        self._listener = await asyncio.start_server(self._pass, "127.0.0.1", port)
        self.address = f"127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Listen no more, and cut all connections."""
        if self._listener is not None:
            self._listener.close()
        for passing in self._passing:
            passing.cancel()
        if self._passing:
            await asyncio.wait(self._passing)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._listener is None or not self._listener.is_serving():
            # Taken just before the listener was closed.
            writer.transport.abort()
            return
        task = asyncio.ensure_future(self._both(reader, writer))
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)

    async def _both(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            there, back = await asyncio.open_connection(self._host, self._port)
            ends.append(back)
            await asyncio.gather(self._carry(reader, back), self._carry(there, writer))
        finally:
            for end in ends:
                end.transport.abort()

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                await self.flowing.wait()
                target.write(data)
                await target.drain()
        target.transport.abort()


@asynccontextmanager
async def relay(target: str) -> AsyncIterator[Relay]:
    """Put a relay before a server; it is open."""
    it = Relay(target)
    await it.open()
    try:
        yield it
    finally:
        it.flowing.set()
        await it.close()
