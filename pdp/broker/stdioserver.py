"""Start a server of MCP over pipes with a placeholder and a base URL, and pass its lines on until it ends."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pdp.broker.baseurl import BaseURL
from pdp.broker.piping import Piping, new_placeholder
from pdp.errors import ConfigurationError, reason_of
from pdp.foundation.ownership import require_own_socket
from pdp.serving.weblistener import LoopbackListener, serve

_MOST_LINE_BYTES: Final = 4 * 1024 * 1024
_END_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StdioServer:
    """A command, and how it gets what stands for its key: the names of two variables.

    `server` is its name in the catalogue, `broker` the socket at which the broker takes requests, and `base_path` what
    its base URL ends with.
    """

    command: Sequence[str]
    server: str
    broker: Path
    key_variable: str
    url_variable: str
    base_path: str = ""

    async def run(self, environment: Mapping[str, str] = os.environ) -> int:
        """Run it on the pipes of this process, and return its exit status.

        Raise `ConfigurationError`, also for a message that is too long, of either side.
        """
        require_own_socket(self.broker, "anyone could take the call tokens")
        placeholder = new_placeholder()
        with LoopbackListener() as listener:
            url = f"http://127.0.0.1:{listener.port}{self.base_path}"
            process = await self._started({**environment, self.key_variable: placeholder, self.url_variable: url})
            piping = Piping(self.server, to_server=_writing(process), to_client=_to_client)
            app = BaseURL(self.server, broker=self.broker, placeholder=placeholder, token=lambda: piping.token)
            tasks = [
                asyncio.ensure_future(work)
                for work in (serve(app, listener), _from_client(piping, process), _from_server(piping, process))
            ]
            try:
                status = await process.wait()
                if tasks[1].done():
                    # It raises when a message of the client was too long.
                    tasks[1].result()
                return status
            finally:
                # What it said last is still on its way.
                with suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(tasks[2]), _END_SECONDS)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _started(self, environment: Mapping[str, str]) -> asyncio.subprocess.Process:
        kept = {name: value for name, value in environment.items() if not name.startswith("PDP_")}
        pipe = asyncio.subprocess.PIPE
        try:
            return await asyncio.create_subprocess_exec(
                *self.command, stdin=pipe, stdout=pipe, env=kept, limit=_MOST_LINE_BYTES
            )
        except OSError as error:
            raise ConfigurationError(f"cannot run `{self.command[0]}`: {reason_of(error)}") from None


def _writing(process: asyncio.subprocess.Process) -> Callable[[bytes], None]:
    def write(line: bytes) -> None:
        if process.stdin is not None:
            process.stdin.write(line)

    return write


def _to_client(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


async def _from_client(piping: Piping, process: asyncio.subprocess.Process) -> None:
    reader = asyncio.StreamReader(limit=_MOST_LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    while line := await _line(reader, process):
        piping.from_client(line)
    # The client has gone: a server over pipes ends with its input.
    if process.stdin is not None:
        process.stdin.close()


async def _from_server(piping: Piping, process: asyncio.subprocess.Process) -> None:
    while process.stdout is not None and (line := await _line(process.stdout, process)):
        piping.from_server(line)


async def _line(reader: asyncio.StreamReader, process: asyncio.subprocess.Process) -> bytes:
    """Return the next line, empty at the end. One that is too long ends the server: its rest could pass for another."""
    try:
        return await reader.readline()
    except ValueError:
        with suppress(ProcessLookupError):
            process.terminate()
        raise ConfigurationError(f"a message has more than {_MOST_LINE_BYTES} bytes, so the server is ended") from None
