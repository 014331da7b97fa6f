"""Large messages are read beside the event loop, which goes on meanwhile."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from pdp.client.aio.admitted import AsyncAdmittedCall
from pdp.doors.mcp import apart as module
from pdp.doors.mcp.apart import apart
from pdp.doors.mcp.messages import Message
from pdp.doors.mcp.tools import Definitions
from pdp.testing.inprocess import RunningServer
from tests.doors.mcp.conversation import MODERN, PATIENCE, conversation
from tests.doors.mcp.toolserver import ToolServer
from tests.doors.mcp.webworld import message_of, world

pytestmark = pytest.mark.anyio

LONG = 5_000


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Note of each message that is long for this test whether it is read in the thread of the loop."""
    noted: list[bool] = []
    true = Message.read

    def noting(_: type[Message], raw: bytes) -> Message:
        if len(raw) > LONG:
            noted.append(not threading.current_thread().name.startswith("pdp-messages"))
        return true(raw)

    monkeypatch.setattr(Message, "read", classmethod(noting))
    monkeypatch.setattr(module, "_SHORT", LONG)
    return noted


async def test_the_loop_goes_on_meanwhile() -> None:
    """Others are served, and sessions end, while a large message is read."""
    go_on = threading.Event()
    async with asyncio.timeout(PATIENCE):
        reading = asyncio.ensure_future(apart(lambda _: go_on.wait(PATIENCE), "x" * 1_000_000))
        await asyncio.sleep(0)
        go_on.set()

        assert await reading


@pytest.mark.parametrize("json_answers", [False, True])
async def test_over_http_no_large_message_is_read_in_the_loop(
    desk_pdp: RunningServer, read: list[bool], *, json_answers: bool
) -> None:
    """Neither one of a client, nor an answer."""
    async with world(desk_pdp, json_answers=json_answers) as here:
        _, handle = here.session()
        answer = await here.call("echo", {"text": "x" * 20_000}, handle=handle)

    assert "x" * 20_000 == message_of(answer)["result"]["content"][0]["text"]
    assert len(read) > 1
    assert not any(read)


async def test_over_pipes_no_large_message_is_read_in_the_loop(pdp: RunningServer, read: list[bool]) -> None:
    """Neither one of a client, nor an answer."""
    async with conversation(pdp, MODERN) as it:
        answer = await it.call("read", {"path": "x" * 20_000})

    assert answer["result"]["isError"] is False
    assert len(read) > 1
    assert not any(read)


async def test_no_large_list_of_tools_is_looked_at_in_the_loop(
    pdp: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither that of the proxy before a call, nor that of a client: the digests of many definitions take long."""
    noted, true = [], Definitions.add

    def noting(found: Definitions, definitions: Iterable[Any], *, first: bool) -> Mapping[str, str]:
        noted.append(threading.current_thread().name)
        return true(found, definitions, first=first)

    monkeypatch.setattr(Definitions, "add", noting)
    monkeypatch.setattr(module, "_SHORT", 500)
    async with conversation(pdp, MODERN) as it:
        await it.call("read", {"path": "a"})
        await it.ask("tools/list")

    assert 2 == len(noted)
    assert all(name.startswith("pdp-messages") for name in noted)


async def test_no_large_result_is_redacted_in_the_loop(pdp: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """To look for what is redacted takes a second for each few megabytes."""
    noted, true = [], AsyncAdmittedCall.kept

    def noting(call: AsyncAdmittedCall) -> Any:
        noted.append(threading.current_thread().name)
        return true(call)

    monkeypatch.setattr(AsyncAdmittedCall, "kept", noting)
    monkeypatch.setattr(module, "_SHORT", LONG)
    server = ToolServer()
    people = [{"name": "x" * LONG, "email": "ann@example.com"}]
    server.results["people"] = {"content": [{"type": "text", "text": json.dumps(people)}]}
    async with conversation(pdp, MODERN, server=server) as it:
        answer = await it.call("people")

    assert "[redacted]" in answer["result"]["content"][0]["text"]
    assert noted
    assert all(name.startswith("pdp-messages") for name in noted)
