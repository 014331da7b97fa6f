"""The proxy over HTTP while the PDP or the server is away, or answers otherwise than a server of MCP does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pdp.doors.mcp import conversations
from pdp.doors.mcp.credentials import Credentials
from pdp.doors.mcp.messages import MOST_VALUES
from pdp.testing.inprocess import RunningServer
from tests.doors.mcp.conversation import MODERN, PATIENCE, STATED
from tests.doors.mcp.relay import relay
from tests.doors.mcp.webworld import HANDLE, SECRET, Desk, behind, message_of, private_file, world

pytestmark = pytest.mark.anyio

LIST = {"jsonrpc": "2.0", "id": 3, "method": "prompts/list", "params": {"_meta": STATED}}
LISTING = {"mcp-protocol-version": MODERN, "mcp-method": "prompts/list"}


async def test_without_the_pdp_nothing_runs(desk_pdp: RunningServer) -> None:
    """A call is a deny that a model reads, other requests are status 503, and all is well once the PDP is back."""
    async with relay(desk_pdp.address) as way, world(desk_pdp, address=way.address) as here:
        _, handle = here.session()
        _, unseen = here.session()
        await here.call("echo", {"text": "before"}, handle=handle)
        await way.close()
        denied = [await here.call("echo", {"text": "away"}, handle=one) for one in (handle, unseen)]
        other = await here.post(LIST, LISTING, handle=unseen)
        await way.open()
        await here.until_answered(handle)

        assert [200, 200] == [one.status_code for one in denied]
        assert all(message_of(one)["result"]["isError"] for one in denied)
        assert 503 == other.status_code
        assert "away" not in here.desk.texts


async def test_a_revocation_that_the_feed_missed_ends_a_stream(
    desk_pdp: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the PDP is away nothing is heard; once it is back, the feed tells what has changed meanwhile."""
    monkeypatch.setattr("pdp.doors.feeds._AGAIN_SECONDS", 0.05)
    listening = {**LISTING, "mcp-method": "subscriptions/listen"}
    body = {**LIST, "method": "subscriptions/listen", "params": {"_meta": STATED, "notifications": {}}}
    async with (
        relay(desk_pdp.address) as way,
        world(desk_pdp, address=way.address) as here,
        httpx2.AsyncClient(timeout=PATIENCE) as http,
    ):
        session_id, handle = here.session()
        sent = {"accept": "application/json, text/event-stream", HANDLE: handle, **listening}
        async with http.stream("POST", here.url, json=body, headers=sent) as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            await way.close()
            here.revoke(session_id)
            await way.open()
            rest = [line async for line in lines]

    assert any("its session is over" in line for line in rest)


async def test_without_the_server_a_call_is_an_error(desk_pdp: RunningServer) -> None:
    """Nothing is said of where the server would be."""
    async with world(desk_pdp, upstream="http://127.0.0.1:1/mcp") as here:
        _, handle = here.session()
        answer = await here.post(LIST, LISTING, handle=handle)

        assert 502 == answer.status_code
        assert "does not answer" in message_of(answer)["error"]["message"]
        assert "127.0.0.1:1/" not in answer.text


def answering(status: int, body: bytes = b"", **headers: str) -> Callable[[Any, Any, Any], Any]:
    """Return an application that always answers the same."""

    async def app(_: Any, __: Any, send: Any) -> None:
        named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": named})
        await send({"type": "http.response.body", "body": body})

    return app


ANSWER = b'{"jsonrpc":"2.0","id":3,"result":{"resultType":"complete","prompts":[]}}'


@pytest.mark.parametrize(
    "app",
    [
        answering(302, location="http://127.0.0.1:1/other"),
        answering(401, www_authenticate="Bearer realm=x"),
        answering(500, b"the secret of the server"),
        answering(200, b"<html>", content_type="text/html"),
        answering(200, b"{", content_type="application/json"),
        answering(200, ANSWER.replace(b"3", b"4"), content_type="application/json"),
        answering(200, ANSWER, content_type="application/json", content_encoding="gzip"),
        answering(200, b"data: {}\n\n", content_type="text/event-stream"),
        answering(200, b"data: " + ANSWER.replace(b"3", b"4") + b"\n\n", content_type="text/event-stream"),
        answering(202),
    ],
)
async def test_a_strange_answer_is_not_handed_on(desk_pdp: RunningServer, app: Any) -> None:
    """The client gets an error of the proxy's own, and nothing of what the server said."""
    async with behind(Desk(), app) as url, world(desk_pdp, upstream=url) as here:
        _, handle = here.session()
        answer = await here.post(LIST, LISTING, handle=handle)

        assert -32603 == message_of(answer)["error"]["code"]
        assert answer.status_code == 502 or answer.headers["content-type"] == "text/event-stream"
        assert {"location", "www-authenticate"}.isdisjoint(answer.headers)
        assert "secret" not in answer.text


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
async def test_an_answer_in_a_stream_is_handed_on_with_any_line_ends(desk_pdp: RunningServer, end: bytes) -> None:
    """A stream of another server is read as browsers read it."""
    first, _, last = ANSWER.partition(b"{")[2].partition(b",")
    lines = (b"\xef\xbb\xbf: comment", b"id: 1", b"data:{" + first, b"data: ," + last, b"", b"")
    async with (
        behind(Desk(), answering(200, end.join(lines), content_type="text/event-stream")) as url,
        world(desk_pdp, upstream=url) as here,
    ):
        _, handle = here.session()
        answer = await here.post(LIST, LISTING, handle=handle)

        assert "id:" not in answer.text
        assert '"prompts":[]' in answer.text


async def test_an_error_of_the_server_is_handed_on(desk_pdp: RunningServer) -> None:
    """A client finds the revision that both know by such an error; it has no id, for the server has not read so far."""
    said = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32022,"message":"no","data":{"supported":["2025-11-25"]}}}'
    async with (
        behind(Desk(), answering(400, said, content_type="application/json")) as url,
        world(desk_pdp, upstream=url) as here,
    ):
        _, handle = here.session()
        answer = await here.post(LIST, LISTING, handle=handle)

        assert 400 == answer.status_code
        assert {"code": -32022, "message": "no", "data": {"supported": ["2025-11-25"]}} == message_of(answer)["error"]
        assert 3 == message_of(answer)["id"]


async def test_an_error_of_the_server_has_a_bound(desk_pdp: RunningServer) -> None:
    """A value takes much more memory than it has bytes: an error of too many of them is not read."""
    many = b"{}," * MOST_VALUES
    said = b'{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"many","data":[%b0]}}' % many
    async with (
        behind(Desk(), answering(400, said, content_type="application/json")) as url,
        world(desk_pdp, upstream=url) as here,
    ):
        _, handle = here.session()
        answer = await here.post(LIST, LISTING, handle=handle)

        assert 400 == answer.status_code
        assert {"code": -32603, "message": "The server answers 400."} == message_of(answer)["error"]


async def test_a_secret_in_a_header_is_not_handed_on(desk_pdp: RunningServer, tmp_path: Path) -> None:
    """A server could show what it was sent in a header, too."""
    credentials = Credentials(private_file(tmp_path, f"Authorization: Bearer {SECRET}"))
    app = answering(200, ANSWER, content_type="application/json", mcp_protocol_version=SECRET)
    async with (
        behind(Desk(), app) as url,
        world(desk_pdp, upstream=url, credentials=credentials) as here,
    ):
        _, handle = here.session()
        answer = await here.post(LIST, LISTING, handle=handle)

        assert 502 == answer.status_code
        assert SECRET not in str(answer.headers) + answer.text


async def test_a_proxy_that_ends_ends_its_streams(desk_pdp: RunningServer, caplog: pytest.LogCaptureFixture) -> None:
    """A client that listens sees the end, and the log no failure."""
    listening = {**LISTING, "mcp-method": "subscriptions/listen"}
    body = {**LIST, "method": "subscriptions/listen", "params": {"_meta": STATED, "notifications": {}}}
    async with httpx2.AsyncClient(timeout=PATIENCE) as http, AsyncExitStack() as opened:
        async with world(desk_pdp) as here:
            _, handle = here.session()
            sent = {"accept": "application/json, text/event-stream", HANDLE: handle, **listening}
            answer = await opened.enter_async_context(http.stream("POST", here.url, json=body, headers=sent))
            lines = answer.aiter_lines()
            first = await anext(lines)
        rest = [line async for line in lines]

    assert first.startswith("event:")
    assert rest
    assert "Exception in ASGI application" not in caplog.text


async def test_a_server_that_takes_no_messages_holds_up_nobody(
    desk_pdp: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it only has to take note of waits for a moment, and what the proxy itself refuses it takes few connections.

    Else a server that asks and never listens, or a client that tells it much, would use up all connections.
    """
    monkeypatch.setattr(conversations, "TAKEN_SECONDS", 0.2)
    monkeypatch.setattr(conversations, "MOST_TOLD", 3)
    told: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = json.loads((await receive())["body"])
        if message.get("id") is None or "method" not in message:
            told.append(message)
            await asyncio.Event().wait()
        headers: dict[str, str] = {"content_type": "text/event-stream", "mcp_session_id": "one"}
        asking = b'data: {"jsonrpc":"2.0","id":%d,"method":"roots/list"}\n\n'
        asked = b"".join(asking % number for number in range(99)) if message["method"] == "ping" else b""
        end = b'data: {"jsonrpc":"2.0","id":3,"result":{}}\n\n'
        await answering(200, asked + end, **headers)(scope, receive, send)

    async with behind(Desk(), app) as url, world(desk_pdp, upstream=url) as here:
        _, handle = here.session()
        await here.post({"jsonrpc": "2.0", "id": 3, "method": "initialize", "params": {}}, handle=handle)
        session = {"mcp-session-id": "one"}
        said = await here.post({"jsonrpc": "2.0", "method": "notifications/initialized"}, session, handle=handle)
        pinged = await here.post({"jsonrpc": "2.0", "id": 3, "method": "ping"}, session, handle=handle)
        await here.until(lambda: len(told) == 4)
        again = await here.post({"jsonrpc": "2.0", "id": 3, "method": "prompts/list"}, session, handle=handle)

    assert 502 == said.status_code
    assert [{}, {}] == [message_of(one)["result"] for one in (pinged, again)]
    assert 4 == len(told)


async def test_what_a_server_takes_back_leaves_room_for_more(desk_pdp: RunningServer) -> None:
    """A question that nobody will answer counts no longer."""
    asked = b'data: {"jsonrpc":"2.0","id":%d,"method":"roots/list"}\n\n'
    taken_back = b'data: {"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%d}}\n\n'
    end = b'data: {"jsonrpc":"2.0","id":3,"result":{}}\n\n'
    said = b"".join(asked % number + taken_back % number for number in range(300)) + end
    headers = {"content_type": "text/event-stream", "mcp_session_id": "one"}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        greets = b"initialize" in (await receive())["body"]
        await answering(200, end if greets else said, **headers)(scope, receive, send)

    async with (
        behind(Desk(), app) as url,
        world(desk_pdp, upstream=url, passes=frozenset({"roots/list"})) as here,
    ):
        _, handle = here.session()
        await here.post({"jsonrpc": "2.0", "id": 3, "method": "initialize", "params": {}}, handle=handle)
        session = {"mcp-session-id": "one"}
        pinged = await here.post({"jsonrpc": "2.0", "id": 3, "method": "ping"}, session, handle=handle)

    assert 300 == pinged.text.count("roots/list")
