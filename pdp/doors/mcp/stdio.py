"""The proxy over pipes: between one client on stdin and stdout, and one server that the proxy starts."""

from __future__ import annotations

import asyncio
import os
import pwd
import stat
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pdp.client import CallTokenRequest
from pdp.doors.mcp.lines import Sender, TooLong, lines
from pdp.doors.mcp.proxy import Proxy
from pdp.doors.session import DoorSession
from pdp.errors import ConfigurationError, reason_of
from pdp.observer import DoorObserver

_OURS = "PDP_"
# How long a server may take to end when its stdin is closed, and again when it is asked to.
# MCP clients wait two seconds until they ask this process to end, and two more until they kill it.
_END_SECONDS = 1.5


async def serve_stdio(
    command: Sequence[str],
    *,
    server: str,
    session: DoorSession,
    pdp_command: Callable[[str], str],
    passes: frozenset[str] = frozenset(),
    run_as: str = "",
    call_token: CallTokenRequest | None = None,
    environment: Mapping[str, str] = os.environ,
    observer: DoorObserver | None = None,
) -> int:
    """Run a server, and stand between it and the client until one of them ends. Return the server's exit code.

    The server gets neither variables whose names begin with `PDP_` nor open files of this process. `pdp_command`
    returns a whole command of `pdp` for its words, as a person must type it. `run_as` is the user of the machine as
    whom the server runs, `call_token` is that of `Gate`, and `observer` is told of calls. Raise
    `ConfigurationError` when the server cannot be started.
    """
    reader, writer = await _standard_streams()
    process = await _start(command, run_as, environment)
    if process.stdin is None or process.stdout is None:
        raise AssertionError("the server was started with pipes")
    if observer is not None:
        observer.watch_sessions(lambda: 1)
    to_client, to_server = Sender(writer), Sender(process.stdin)
    proxy = Proxy(
        server=server,
        session=session,
        to_client=to_client.send,
        to_server=to_server.send,
        pdp_command=pdp_command,
        passes=passes,
        call_token=call_token,
        observer=observer,
    )
    from_client = asyncio.ensure_future(_feed(reader, proxy.from_client))
    from_server = asyncio.ensure_future(_feed(process.stdout, proxy.from_server))
    watching = asyncio.ensure_future(proxy.watch_session())
    urgent = asyncio.Event()

    async def end() -> int:
        for task in (from_client, watching):
            task.cancel()
        await asyncio.wait([from_client, watching])
        to_server.close()
        code = await _ended(process, urgent)
        # What the server said last may answer a call.
        await asyncio.wait([from_server], timeout=_END_SECONDS)
        from_server.cancel()
        await proxy.close()
        return code

    try:
        await asyncio.wait([from_client, from_server], return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        urgent.set()
        await end()
        raise
    ending = asyncio.ensure_future(end())
    try:
        return await asyncio.shield(ending)
    except asyncio.CancelledError:
        urgent.set()
        await ending
        raise


async def _standard_streams() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    try:
        if stat.S_ISCHR(os.fstat(sys.stdin.fileno()).st_mode) and not sys.stdin.isatty():
            raise ValueError("such as /dev/null, which no event loop can wait for")
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sys.stdout)
    except ValueError:
        raise ConfigurationError("stdin and stdout must be pipes: an MCP client starts this command") from None
    return reader, asyncio.StreamWriter(transport, protocol, None, loop)


async def _feed(source: asyncio.StreamReader, take: Callable[[bytes | TooLong], Awaitable[None]]) -> None:
    with suppress(ConnectionError):
        async for line in lines(source):
            await take(line)


async def _start(command: Sequence[str], run_as: str, environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    kept = {name: value for name, value in environment.items() if not name.startswith(_OURS)}
    # Further groups would keep what the other user must not have.
    other: dict[str, Any] = {"user": run_as, "group": _group_of(run_as), "extra_groups": []} if run_as else {}
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=kept,
            **other,
        )
    except (OSError, ValueError) as error:
        why = reason_of(error) if isinstance(error, OSError) else "not a command"
        as_whom = f" as user `{run_as}`" if run_as else ""
        raise ConfigurationError(f"the server `{command[0]}` cannot be started{as_whom}: {why}") from None


def _group_of(user: str) -> int:
    try:
        return pwd.getpwnam(user).pw_gid
    except KeyError:
        raise ConfigurationError(f"no user of this machine: `{user}`") from None


async def _ended(process: asyncio.subprocess.Process, urgent: asyncio.Event) -> int:
    """Wait for a server whose stdin is closed; end it if it does not end by itself, when urgent at once.

    Return its exit code.
    """
    gone = asyncio.ensure_future(process.wait())
    hurry = asyncio.ensure_future(urgent.wait())
    await asyncio.wait([gone, hurry], timeout=_END_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    hurry.cancel()
    for end in (process.terminate, process.kill):
        if not gone.done():
            with suppress(ProcessLookupError):
                end()
            await asyncio.wait([gone], timeout=_END_SECONDS)
    return await gone
