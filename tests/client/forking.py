"""Fork while calls are under way and wait: `python -m tests.client.forking ADDRESS`.

It prints what the new process is answered, and at the end what its own callers are answered, as JSON. With another
argument, it makes an `AsyncClient` first, and prints what becomes of clients in the new process.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch

from pdp.client import AsyncClient, AuthorizationStream, Client, ToolCall
from pdp.errors import ConfigurationError
from pdp.testing.waiting import wait_until

_SECONDS = 30.0


def main(address: str) -> None:
    """Ask, fork, and ask again."""
    patient = patch("pdp.client.sync.together.SOON_SECONDS", _SECONDS)
    opened = Client(address, timeout=_SECONDS, clock=lambda: 0.0)
    with patient, opened as client, client.stream() as stream, ThreadPoolExecutor(2) as threads:
        for name in ("first", "second"):
            client.ask(_call(name))
        queues = client._calls._together._gathering._queues
        asked = {"hold": threads.submit(client.ask, _call("hold"))}
        wait_until(lambda: any(queue.under_way for queue in queues.values()))
        asked["a"] = threads.submit(client.ask, _call("a"))
        wait_until(lambda: any(queue.waiting for queue in queues.values()))
        assert stream._exchange is not None
        # As if another thread were asking.
        stream._exchange.turn.acquire()
        child = os.fork()
        if not child:
            _ask_anew(address, client, stream)
        stream._exchange.turn.release()
        os.waitpid(child, 0)
        print(json.dumps({name: one.result().allowed for name, one in asked.items()}), flush=True)  # noqa: T201 - read by the test


def after_asyncio(address: str) -> None:
    """Make a client for asyncio, fork, and make others."""

    async def make() -> None:
        await AsyncClient(address).close()

    asyncio.run(make())
    child = os.fork()
    if not child:
        told = []
        for client in (lambda: Client(address), lambda: asyncio.run(make())):
            try:
                client()
            except ConfigurationError as error:
                told.append(str(error))
        print(json.dumps(told), flush=True)  # noqa: T201 - read by the test
        os._exit(0)
    os.waitpid(child, 0)


def _ask_anew(address: str, copied: Client, stream: AuthorizationStream) -> None:
    denied, on_stream = copied.ask(_call("b")), stream.ask(_call("b"))
    stream.__exit__(None, None, None)
    copied.close()
    with Client(address, timeout=_SECONDS) as client:
        answer = client.ask(_call("b"))
    found = {"copied": [denied.allowed, denied.error], "stream": on_stream.error, "new": [answer.allowed, answer.error]}
    print(json.dumps(found), flush=True)  # noqa: T201 - read by the test
    os._exit(0)


def _call(tool: str) -> ToolCall:
    return ToolCall(session_handle="pdps_secret", server="files", tool=tool)


if __name__ == "__main__":
    main(sys.argv[1]) if len(sys.argv) == 2 else after_asyncio(sys.argv[1])
