"""`pdp mcp --upstream` and other programs as processes of their own, until a block ends."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pdp.testing.inprocess import RunningServer
from tests.doors.commands import PDP
from tests.doors.mcp.conversation import PATIENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program that runs, and the first line that it has said on stderr."""

    process: asyncio.subprocess.Process
    said: str

    @property
    def last_word(self) -> str:
        """Return the last word of the line."""
        return self.said.split()[-1]


@asynccontextmanager
async def program(
    *words: str, variables: Mapping[str, str] | None = None, cwd: Path | None = None
) -> AsyncIterator[Program]:
    """Run a program, and provide it as soon as it has said something on stderr."""
    process = await asyncio.create_subprocess_exec(
        *words,
        env={name: value for name, value in os.environ.items() if not name.startswith("PDP_")} | dict(variables or {}),
        cwd=cwd,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    rest: asyncio.Future[bytes] | None = None
    try:
        async with asyncio.timeout(PATIENCE):
            said = (await process.stderr.readline()).decode()
        # What is not read would stop it in the end.
        rest = asyncio.ensure_future(process.stderr.read())
        yield Program(process=process, said=said)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if rest is not None:
            await rest


@asynccontextmanager
async def web_door(
    pdp: RunningServer,
    server: str,
    upstream: str,
    folder: Path,
    *words: str,
    variables: Mapping[str, str] | None = None,
) -> AsyncIterator[Program]:
    """Run `pdp mcp` before a server at a URL; the last word that it says is its own URL."""
    token = folder / "token"
    token.write_text(pdp.token("pep"), encoding="ascii")
    token.chmod(0o600)
    async with program(
        *(*PDP, "mcp", "--server", server, "--upstream", upstream),
        *("--listen", "127.0.0.1:0", "--address", pdp.address, "--token-file", str(token), "--plaintext", *words),
        variables=variables,
    ) as door:
        assert door.said.startswith("serving"), door.said
        yield door
