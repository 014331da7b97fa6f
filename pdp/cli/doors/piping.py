"""`pdp mcp -- COMMAND`: the proxy between a client and a server that it runs, over pipes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from pdp.cli.connection import connect_async
from pdp.cli.doors.asking import Asking
from pdp.cli.doors.observing import observing
from pdp.cli.doors.serving import begin
from pdp.client import CallTokenRequest
from pdp.doors.mcp.stdio import serve_stdio
from pdp.model import Role

_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class PipeProxy:
    """What stands behind the proxy, and how it asks: the command of the server, its name, what may pass, and as whom.

    `run_as` is a user of the machine; empty for this one. `call_token` is that of `Gate`. `environment` is what this
    process was started with.
    """

    asking: Asking
    command: Sequence[str]
    server: str
    passes: frozenset[str]
    run_as: str
    call_token: CallTokenRequest | None
    environment: Mapping[str, str] = field(repr=False)

    def run(self) -> int:
        """Stand between client and server; return the server's exit code, or as shells do 128 and the signal."""
        begin()
        return asyncio.run(self._run())

    async def _run(self) -> int:
        loop = asyncio.get_running_loop()
        embedded = self.asking.embedded
        if embedded is not None:
            embedded.prepare()
        serving = asyncio.ensure_future(self._between())
        received: list[signal.Signals] = []

        def stop(number: signal.Signals) -> None:
            # What ends this process ends the session first, however often it says so.
            if not received:
                serving.cancel()
            received.append(number)

        for number in _STOPPING:
            loop.add_signal_handler(number, stop, number)
        if embedded is not None:
            # The client is answered meanwhile.
            embedded.start(on_failure=lambda: loop.call_soon_threadsafe(stop, signal.SIGTERM))
        await asyncio.wait([serving])
        if embedded is not None:
            await asyncio.to_thread(embedded.stop)
        ended = -received[0] if serving.cancelled() else serving.result()
        return ended if ended >= 0 else 128 - ended

    async def _between(self) -> int:
        asking = self.asking
        async with AsyncExitStack() as opened:
            observer = opened.enter_context(observing(asking.settings, "mcp"))
            client = await opened.enter_async_context(connect_async(Role.PEP, asking.settings, asking.connection))
            session = asking.session_of(client)
            try:
                return await serve_stdio(
                    self.command,
                    server=self.server,
                    session=session,
                    pdp_command=asking.pdp_command,
                    passes=self.passes,
                    run_as=self.run_as,
                    call_token=self.call_token,
                    environment=self.environment,
                    observer=observer,
                )
            finally:
                await session.close()
