"""Sessions of MCP over HTTP whose ids a server gives anew, and requests that end with their session of the PDP."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from pdp.doors.mcp import exchange
from pdp.testing.inprocess import RunningServer
from tests.doors.mcp.conversation import LEGACY, MODERN, PATIENCE, STATED
from tests.doors.mcp.webworld import ACCEPT, GREETING, HANDLE, Desk, World, behind, message_of, world

pytestmark = pytest.mark.anyio

ONE = {"mcp-session-id": "1", "mcp-protocol-version": LEGACY}


@dataclass
class Counting:
    """A server that counts its sessions of MCP, from 1 after each restart. It answers `prompts/list` when it may."""

    begun: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    may: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            part = await receive()
            body, more = body + part.get("body", b""), part.get("more_body", False)
        if scope["method"] == "GET":
            await self._listen(receive, send)
            return
        message, headers = json.loads(body), [(b"content-type", b"application/json")]
        if message["method"] == "subscriptions/listen":
            await self._listen(receive, send)
            return
        status, session = 200, dict(scope["headers"]).get(b"mcp-session-id")
        if message["method"] == "initialize":
            self.begun += 1
            headers.append((b"mcp-session-id", str(self.begun).encode()))
        elif session is not None and int(session) > self.begun:
            status = 404
        elif message["method"] == "prompts/list":
            self.asked.set()
            await self._until_left(receive)
        said: dict[str, Any] = {"result": {}}
        if message["method"] == "resources/list":
            status, said = 404, {"error": {"code": -32601, "message": "unknown"}}
        answer = json.dumps({"jsonrpc": "2.0", "id": message["id"], **said}).encode()
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def _listen(self, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b": begun\n\n", "more_body": True})
        self.asked.set()
        await self._until_left(receive)

    async def _until_left(self, receive: Any) -> None:
        leaving, allowed = asyncio.ensure_future(receive()), asyncio.ensure_future(self.may.wait())
        done, _ = await asyncio.wait([leaving, allowed], return_when=asyncio.FIRST_COMPLETED)
        if leaving in done:
            self.left.set()
        leaving.cancel()
        allowed.cancel()


def request(method: str, number: int) -> dict[str, Any]:
    """Return a request of a session of MCP."""
    return {"jsonrpc": "2.0", "id": number, "method": method}


async def asked(here: World, server: Counting, number: int, handle: str) -> asyncio.Task[httpx2.Response]:
    """Ask what the server answers late; return once it has been asked."""
    asking = asyncio.ensure_future(here.post(request("prompts/list", number), ONE, handle=handle))
    async with asyncio.timeout(PATIENCE):
        await server.asked.wait()
    server.asked.clear()
    return asking


async def test_a_request_that_was_not_asked_about_ends_with_its_session(desk_pdp: RunningServer) -> None:
    """Also before the server has begun to answer: its client learns why, and the server that nobody waits."""
    server = Counting()
    async with behind(Desk(), server) as url, world(desk_pdp, upstream=url) as here:
        session_id, handle = here.session()
        await here.post(GREETING, handle=handle)
        asking = await asked(here, server, 2, handle)
        here.revoke(session_id)
        said = message_of(await asking)
        async with asyncio.timeout(PATIENCE):
            await server.left.wait()

    assert "The request was stopped: its session is over." == said["error"]["message"]


async def test_a_subscription_that_is_never_acknowledged_ends_with_its_session(
    desk_pdp: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server need not say anything, and would be heard after the end."""
    monkeypatch.setattr(exchange, "_ACKNOWLEDGED_SECONDS", 0.0)
    server = Counting()
    body = {"jsonrpc": "2.0", "id": 2, "method": "subscriptions/listen", "params": {"_meta": STATED}}
    sent = {**ACCEPT, "mcp-protocol-version": MODERN, "mcp-method": "subscriptions/listen"}
    async with (
        behind(Desk(), server) as url,
        world(desk_pdp, upstream=url) as here,
        httpx2.AsyncClient(timeout=PATIENCE) as http,
    ):
        session_id, handle = here.session()
        async with http.stream("POST", here.url, json=body, headers={**sent, HANDLE: handle}) as stream:
            async with asyncio.timeout(PATIENCE):
                await server.asked.wait()
            here.revoke(session_id)
            said = [line async for line in stream.aiter_lines() if line.startswith("data: ")]

    assert "its session is over" in said[-1]


@pytest.mark.parametrize("taken_back", [False, True])
async def test_an_id_is_that_of_a_request_however_it_is_written(
    desk_pdp: RunningServer,
    taken_back: bool,  # noqa: FBT001 - a column
) -> None:
    """The Python SDK finds a stream by the text of an id: the answer to `2` would be lost, or come on that of `"2"`."""
    server = Counting()
    async with behind(Desk(), server) as url, world(desk_pdp, upstream=url) as here:
        _, handle = here.session()
        await here.post(GREETING, handle=handle)
        asking = await asked(here, server, 2, handle)
        if taken_back:
            asking.cancel()
            async with asyncio.timeout(PATIENCE):
                await server.left.wait()
        other = message_of(await here.post({**request("ping", 2), "id": "2"}, ONE, handle=handle))
        server.may.set()
        await asyncio.wait([asking])

    assert ("2", "`id` is that of an open request") == (other["id"], other["error"]["message"])


async def test_a_session_of_mcp_whose_id_is_given_to_another_is_over(desk_pdp: RunningServer) -> None:
    """After a restart a server can count from the beginning: what is open ends, and nobody shares a session."""
    server = Counting()
    async with (
        behind(Desk(), server) as url,
        world(desk_pdp, upstream=url) as here,
        httpx2.AsyncClient(timeout=PATIENCE) as http,
    ):
        (_, first), (_, second) = here.session(), here.session()
        await here.post(GREETING, handle=first)
        asking = await asked(here, server, 2, first)
        async with http.stream("GET", here.url, headers={**ACCEPT, **ONE, HANDLE: first}) as stream:
            async with asyncio.timeout(PATIENCE):
                await server.asked.wait()
            server.begun = 0
            await here.post(GREETING, handle=second)
            rest = [line async for line in stream.aiter_lines()]
        open_one = message_of(await asking)
        later = {name: await here.post(request("ping", 3), ONE, handle=name) for name in (first, second)}

    assert not any("data" in line for line in rest)
    assert "was taken back, or its session is over" in open_one["error"]["message"]
    assert {first: 404, second: 200} == {name: answer.status_code for name, answer in later.items()}


async def test_a_method_that_a_server_does_not_know_ends_no_session_of_mcp(desk_pdp: RunningServer) -> None:
    """Some servers answer it with the same status."""
    server = Counting()
    async with behind(Desk(), server) as url, world(desk_pdp, upstream=url) as here:
        _, handle = here.session()
        await here.post(GREETING, handle=handle)
        unknown = await here.post(request("resources/list", 2), ONE, handle=handle)
        after = await here.post(request("ping", 3), ONE, handle=handle)

    assert (404, -32601) == (unknown.status_code, message_of(unknown)["error"]["code"])
    assert 200 == after.status_code


@pytest.mark.parametrize(
    "how", [request("ping", 3), {**request("tools/call", 3), "params": {"name": "echo", "arguments": {"text": "x"}}}]
)
async def test_a_session_of_mcp_that_its_server_has_forgotten_is_over(
    desk_pdp: RunningServer, how: dict[str, Any]
) -> None:
    """Its client must learn it, also from a call, before which the proxy lists the tools.

    The next one by the same id takes the ids of requests that the former one never answered.
    """
    server = Counting()
    async with behind(Desk(), server) as url, world(desk_pdp, upstream=url) as here:
        _, handle = here.session()
        await here.post(GREETING, handle=handle)
        asking = await asked(here, server, 2, handle)
        asking.cancel()
        async with asyncio.timeout(PATIENCE):
            await server.left.wait()
        again = message_of(await here.post(request("ping", 2), ONE, handle=handle))
        server.begun = 0
        forgotten = await here.post(how, ONE, handle=handle)
        await here.post(GREETING, handle=handle)
        anew = message_of(await here.post(request("ping", 2), ONE, handle=handle))

    assert "`id` is that of an open request" == again["error"]["message"]
    assert 404 == forgotten.status_code
    assert {} == anew["result"]
