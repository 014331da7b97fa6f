"""The memory of messages that are under way over HTTP is bounded: what does not fit in is refused."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any
from unittest.mock import patch

import pytest

from pdp.doors.mcp.events import EventReader
from pdp.doors.mcp.load import Load, OverloadedError
from pdp.doors.mcp.messages import MOST_BYTES, Message
from pdp.doors.mcp.replies import Reply
from pdp.doors.mcp.upstream import UpstreamAnswer
from pdp.serving.web import ClientGoneError, Send
from pdp.testing.inprocess import RunningServer
from tests.doors.mcp.webworld import HANDLE, World, message_of, world

pytestmark = pytest.mark.anyio

# For all, and for one session. What is read counts twice.
MOST, PART = 1_600_000, 400_000


@asynccontextmanager
async def begun(here: World, handle: str, size: int) -> AsyncIterator[asyncio.StreamReader]:
    """Send all of a body but its last byte, and provide what reads the answer."""
    lines = ("POST /mcp HTTP/1.1", f"host: 127.0.0.1:{here.listener.port}", "content-type: application/json")
    head = "\r\n".join((*lines, f"{HANDLE}: {handle}", f"content-length: {size + 1}", "", ""))
    reader, writer = await asyncio.open_connection("127.0.0.1", here.listener.port)
    try:
        writer.write(head.encode() + b" " * size)
        await writer.drain()
        yield reader
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def test_a_session_that_fills_its_part_leaves_the_rest_to_others(desk_pdp: RunningServer) -> None:
    """Its next body is refused before it is read, and is taken once the first one has gone."""
    load = Load(MOST)
    with patch("pdp.doors.mcp.http.Load", lambda: load):
        async with world(desk_pdp) as here:
            _, handle = here.session()
            _, other = here.session("bob")
            async with begun(here, handle, 180_000):
                await here.until(lambda: load.held == 360_000)
                async with begun(here, handle, 50_000) as more:
                    refused = await more.readline()
                served = await here.call("echo", {"text": "other"}, handle=other)
            await here.until(lambda: load.held == 0)
            again = await here.call("echo", {"text": "again"}, handle=handle)

    assert refused.startswith(b"HTTP/1.1 503")
    assert '"other"' in served.text
    assert '"again"' in again.text


async def test_all_sessions_together_are_bounded(desk_pdp: RunningServer) -> None:
    """One more is refused within its own part when it takes more than is left for others, and served if it does not."""
    load = Load(MOST)
    with patch("pdp.doors.mcp.http.Load", lambda: load):
        async with world(desk_pdp) as here:
            _, handle = here.session()
            async with AsyncExitStack() as bodies:
                for _ in range(4):
                    await bodies.enter_async_context(begun(here, here.session()[1], 150_000))
                await here.until(lambda: load.held == 4 * 300_000)
                async with begun(here, handle, 110_000) as more:
                    refused = await more.readline()
                served = await here.call("echo", {"text": "x"}, handle=handle)
            await here.until(lambda: load.held == 0)

    assert refused.startswith(b"HTTP/1.1 503")
    assert 200 == served.status_code


async def test_sessions_leave_room_for_the_requests_of_others(
    desk_pdp: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are open in two sessions, as calls or as bodies that do not come, a third one is served."""
    monkeypatch.setattr("pdp.doors.mcp.load.MOST_OPEN", 12)
    load = Load()
    with patch("pdp.doors.mcp.http.Load", lambda: load):
        async with world(desk_pdp) as here, AsyncExitStack() as opened:
            busy = [here.session()[1] for _ in range(2)] * 8
            calls, lines = list[asyncio.Task[Any]](), list[asyncio.Task[Any]]()
            for number, handle in enumerate(busy, 1):
                calls.append(asyncio.ensure_future(here.call("slow", {"steps": 0}, handle=handle)))
                await here.until(lambda: here.desk.ran["slow"] + sum(one.done() for one in calls) == number)  # noqa: B023
            during = load.open
            for number, handle in enumerate(busy, 1):
                body = await opened.enter_async_context(begun(here, handle, 9))
                lines.append(asyncio.ensure_future(body.readline()))
                await here.until(lambda: load.open - during + sum(one.done() for one in lines) == number)  # noqa: B023
            full = load.open
            served = await here.call("echo", {"text": "third"}, handle=here.session("bob")[1])
            here.desk.go_on.set()
            refused = [one for one in await asyncio.gather(*calls) if "Too many requests are open" in one.text]

    assert "third" in served.text
    assert (8, 8, 10) == (during, len(refused), full)


@pytest.mark.parametrize("form", ["a stream", "JSON"])
async def test_an_answer_that_does_not_fit_in_is_not_handed_on(desk_pdp: RunningServer, form: str) -> None:
    """The client hears why, the call is reported as failed, and nothing stays counted."""
    load = Load(MOST // 2)
    with patch("pdp.doors.mcp.http.Load", lambda: load):
        async with world(desk_pdp, json_answers=form == "JSON") as here:
            session_id, handle = here.session()
            # The server's list of tools is asked for before, and the answer holds the text twice.
            refused = await here.call("echo", {"text": "x" * 20_000}, handle=handle)
            await here.until(lambda: here.reported(session_id))
            served = await here.call("echo", {"text": "y" * 5_000}, handle=handle)
            await here.until(lambda: load.held == 0)

            assert "Too much is under way" in message_of(refused)["error"]["message"]
            assert "y" * 5_000 in served.text
            assert ["failed", "succeeded"] == here.reported(session_id)


@pytest.mark.parametrize(
    "costly", ['"%s"' % ("x" * 4999), '"🙂%s"' % ("x" * 4999), '{"a":1}', '{"a":{"b":{}}}', "1.5", '"\\n"']
)
def test_a_message_counts_for_no_less_memory_than_it_takes(costly: str) -> None:
    """However little is written for much."""
    raw = f'{{"jsonrpc":"2.0","id":1,"result":{{"a":[{",".join([costly] * (50_000 // len(costly)))}]}}}}'.encode()
    load = Load(MOST_BYTES)
    # The least of three times, because another thread can take memory of its own meanwhile.
    taken = []
    for _ in range(3):
        tracemalloc.start()
        message = Message.read(raw)
        sent = message.raw
        taken.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()

    with load.share() as share:
        share.whole(message)
        counted = load.held

    assert sent == raw
    assert min(taken) <= counted <= 64 * len(raw)
    assert 0 == load.held


@pytest.mark.parametrize("line", [b"data:xx\n", b"data:\n", b"data: " + b"y" * 60 + b"\n"])
def test_an_event_counts_for_no_less_memory_than_it_takes_while_it_is_read(line: bytes) -> None:
    """However short its lines are."""
    reader, piece = EventReader(), line * 1000
    tracemalloc.start()
    for _ in range(1_000_000 // len(piece)):
        assert not list(reader.feed(piece))
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    load = Load()
    with load.share() as share:
        share.reading(reader.held)
        assert taken <= load.held


@pytest.mark.parametrize("event", [b"\n", b"data: x\n\n", b'data: {"jsonrpc":"2.0","method":"a"}\n\n'])
async def test_others_have_a_turn_while_a_stream_says_much(event: bytes) -> None:
    """However much of it has come at once; many signs that it is still open are one."""
    turns, signs, pieces = 0, 0, 64

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def come() -> AsyncIterator[bytes]:
        for _ in range(pieces):
            yield event * (8192 // len(event))

    with Load().share() as share:
        answer = UpstreamAnswer(status=200, headers={}, pieces=come(), share=share)
        waiting = asyncio.ensure_future(others())
        async for message in answer.messages():
            signs += message is None
        waiting.cancel()

    assert turns >= pieces
    assert signs <= pieces


async def test_an_answer_leaves_as_its_client_takes_it() -> None:
    """Piece by piece, since the server keeps what it was given; a client that takes none of it is given up."""
    sent: list[Any] = []
    whole: list[Any] = []
    full = asyncio.Event()

    async def send(part: Any) -> None:
        if len(sent) == 3:
            full.set()
            await asyncio.Event().wait()
        sent.append(part)

    text = "x" * 100_000
    await Reply(_kept(whole)).message(text)
    with patch("pdp.doors.mcp.replies._TAKING_SECONDS", 0.01), pytest.raises(ClientGoneError):
        await Reply(send).message(text * 2)

    assert text.encode() == b"".join(part["body"] for part in whole[1:])
    assert [True, False] == [part["more_body"] for part in whole[1:]]
    assert full.is_set()
    assert 64 * 1024 == max(len(part["body"]) for part in (*whole[1:], *sent[1:]))


async def test_an_event_that_is_stopped_is_no_message() -> None:
    """What comes behind a part of one is a message of its own, also of another task."""
    sent: list[Any] = []
    full, go_on = asyncio.Event(), asyncio.Event()

    async def send(part: Any) -> None:
        if len(sent) == 2:
            full.set()
            await go_on.wait()
        sent.append(part)

    reply = Reply(send)
    await reply.stream({})
    stopped = asyncio.ensure_future(reply.event("x" * 200_000))
    await full.wait()
    other = asyncio.ensure_future(reply.event('"other"'))
    await asyncio.sleep(0)
    stopped.cancel()
    await asyncio.wait([stopped])
    go_on.set()
    await other
    await reply.message('"why"')
    events = list(EventReader().feed(b"".join(part["body"] for part in sent[1:])))

    assert [b'"other"', b'"why"'] == [one.text for one in events if one.is_message]


def _kept(parts: list[Any]) -> Send:
    async def send(part: Any) -> None:
        parts.append(part)

    return send


def test_what_does_not_fit_in_changes_nothing() -> None:
    """Neither of a part, nor of the whole."""
    whole = Load(100)
    parts = [whole.part() for _ in range(2)]
    with parts[0].share() as one, parts[1].share() as other:
        one.hold(20)
        with pytest.raises(OverloadedError):
            one.hold(26)
        other.hold(25)
        one.hold(5)

        assert [5, 25, 30] == [load.held for load in (*parts, whole)]
    assert 0 == whole.held
