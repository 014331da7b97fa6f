"""Streams over HTTP through the proxy: at once, until somebody closes them, and with what the server may ask."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx2
import pytest
from mcp import MCPError
from mcp.types import ListRootsResult

from pdp.client import PDPClientError
from pdp.doors.mcp import load, parties, streams
from pdp.testing.inprocess import RunningServer
from tests.doors.mcp.conversation import LEGACY, MODERN, PATIENCE, STATED
from tests.doors.mcp.webworld import (
    ACCEPT,
    GREETING,
    HANDLE,
    Desk,
    KeptEvents,
    World,
    behind,
    message_of,
    text_of,
    world,
)

pytestmark = pytest.mark.anyio

CALL = {"mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": "slow"}
ACKNOWLEDGED, TOOLS_CHANGED = "notifications/subscriptions/acknowledged", "notifications/tools/list_changed"


def slow_call(steps: int = 1) -> dict[str, Any]:
    """Return a call whose tool reports its progress and then waits."""
    meta = {**STATED, "progressToken": "p"}
    params = {"name": "slow", "arguments": {"steps": steps}, "_meta": meta}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


async def test_progress_is_handed_on_before_the_result(desk_pdp: RunningServer, era: str) -> None:
    """An event reaches the client at once, and not with the result."""
    steps: list[float] = []
    async with world(desk_pdp) as here:
        _, handle = here.session()

        async def noted(progress: float, total: float | None, message: str | None) -> None:  # noqa: ARG001 - by name
            steps.append(progress)
            if len(steps) == 2:
                here.desk.go_on.set()

        async with here.client(era, handle) as client:
            result = await client.call_tool("slow", {"steps": 2}, progress_callback=noted)

        assert "done" == text_of(result)
        assert [0, 1] == steps


async def test_a_stream_that_a_server_closes_early_is_asked_for_again(desk_pdp: RunningServer) -> None:
    """The client sees one stream without a break, and the call is reported as it ended."""
    async with world(desk_pdp, events=KeptEvents()) as here:
        session_id, handle = here.session()
        async with here.client(LEGACY, handle) as client:
            result = await client.call_tool("polled")

        assert "after all" == text_of(result)
        assert {"polled": 1} == here.desk.ran
        assert ["succeeded"] == here.reported(session_id)


async def test_a_closed_stream_cancels_the_call_and_is_reported(desk_pdp: RunningServer) -> None:
    """A client that leaves ends the call at the server, and the call that was allowed is reported as failed."""
    async with world(desk_pdp) as here:
        session_id, handle = here.session()
        async with (
            httpx2.AsyncClient(timeout=PATIENCE) as http,
            http.stream("POST", here.url, json=slow_call(), headers={**ACCEPT, **CALL, HANDLE: handle}) as answer,
        ):
            assert "text/event-stream" in answer.headers["content-type"]
            assert "no" == answer.headers["x-accel-buffering"]
            await here.desk.begun.wait()
        await here.until(lambda: here.reported(session_id))
        here.desk.go_on.set()

        assert ["failed"] == here.reported(session_id)
        assert {"slow": 1} == here.desk.ran


async def test_a_call_that_waits_for_a_person_never_runs_once_the_client_has_left(desk_pdp: RunningServer) -> None:
    """What is still being asked about is not sent on for a client that is gone, even if the answer is yes."""
    async with world(desk_pdp, wait=PATIENCE) as here:
        session_id, handle = here.session()
        calling = asyncio.ensure_future(here.call("asked", handle=handle))
        await here.waiting(session_id)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await here.approve_a_call(session_id)
        again = await here.call("echo", {"text": "later"}, handle=handle)

        assert "later" in again.text
        assert {"echo": 1} == here.desk.ran


async def test_a_call_that_is_taken_back_while_it_is_asked_about_does_not_run(desk_pdp: RunningServer) -> None:
    """With a handshake, a notification takes a request back: before it has reached the server, it never does."""
    async with world(desk_pdp, wait=PATIENCE) as here:
        session_id, handle = here.session()
        async with here.client(LEGACY, handle) as client:
            calling = asyncio.ensure_future(client.call_tool("asked"))
            await here.waiting(session_id)
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
            await client.list_tools()
            await here.approve_a_call(session_id)
            await client.call_tool("echo", {"text": "later"})

        assert {"echo": 1} == here.desk.ran


async def ask_for_roots(pdp: RunningServer, passes: frozenset[str]) -> list[str]:
    """Return what a client was asked for by a tool that asks for its roots, and what the tool got or heard."""
    seen: list[str] = []

    async def roots(_: Any) -> ListRootsResult:
        seen.append("asked")
        return ListRootsResult(roots=[])

    async with world(pdp, passes=passes) as here:
        _, handle = here.session()
        async with here.client(LEGACY, handle, list_roots_callback=roots) as client:
            try:
                seen.append(text_of(await client.call_tool("question")))
            except MCPError as error:
                seen.append(str(error))
    return seen


@pytest.mark.filterwarnings("ignore:The roots capability is deprecated")
async def test_what_a_server_asks_its_client_is_refused(desk_pdp: RunningServer) -> None:
    """The proxy refuses it in the client's place."""
    assert ["`roots/list` is not let pass"] == await ask_for_roots(desk_pdp, frozenset())


@pytest.mark.filterwarnings("ignore:The roots capability is deprecated")
async def test_what_a_server_may_ask_its_client_passes_with_the_answer(desk_pdp: RunningServer) -> None:
    """With `--pass` the question goes down, and the answer up."""
    assert ["asked", "0"] == await ask_for_roots(desk_pdp, frozenset({"roots/list"}))


async def test_an_answer_to_nothing_is_not_sent_on(desk_pdp: RunningServer) -> None:
    """A client cannot answer what no server has asked."""
    async with world(desk_pdp) as here:
        _, handle = here.session()
        answer = await here.post({"jsonrpc": "2.0", "id": 5, "result": {}}, handle=handle)

        assert 400 == answer.status_code
        assert {} == here.desk.headers


async def listened(here: World, handle: str, acknowledged: Callable[[], None]) -> list[str]:
    """Listen until the end; return what was told. `acknowledged` is called when the stream has begun."""
    body = {
        "jsonrpc": "2.0",
        "id": "s",
        "method": "subscriptions/listen",
        "params": {"_meta": STATED, "notifications": {"toolsListChanged": True}},
    }
    sent = {**ACCEPT, "mcp-protocol-version": MODERN, "mcp-method": "subscriptions/listen", HANDLE: handle}
    told: list[str] = []
    async with (
        httpx2.AsyncClient(timeout=PATIENCE) as http,
        http.stream("POST", here.url, json=body, headers=sent) as answer,
    ):
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                told.append(json.loads(line.removeprefix("data: ")).get("method", "the end"))
                if len(told) == 1:
                    acknowledged()
    return told


@pytest.mark.parametrize("before", [False, True], ids=["while it listens", "before it listens"])
async def test_a_subscription_tells_of_a_revocation_and_ends(
    desk_pdp: RunningServer,
    monkeypatch: pytest.MonkeyPatch,
    before: bool,  # noqa: FBT001 - a column
) -> None:
    """A client that listens learns that its tools are gone, and hears nothing more.

    That a session lives is believed for a moment: it can be over by the time at which its stream begins.
    """
    monkeypatch.setattr(parties, "_LIVELY_SECONDS", PATIENCE)
    async with world(desk_pdp) as here:
        session_id, handle = here.session()
        if before:
            await here.post({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}, handle=handle)
            here.revoke(session_id)

        told = await listened(here, handle, lambda: None if before else here.revoke(session_id))

    assert [ACKNOWLEDGED, TOOLS_CHANGED, "the end"] == told


async def test_a_look_that_fails_is_made_again_soon(desk_pdp: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server can be too busy to say what a session sees just when it was revoked, and tells of no change after it."""
    failures, seen = iter([PDPClientError("too busy")]), parties.Party.seen

    async def failing_once(party: parties.Party) -> Mapping[str, str] | None:
        now = await seen(party)
        if now is None and (failure := next(failures, None)):
            raise failure
        return now

    monkeypatch.setattr(parties.Party, "seen", failing_once)
    monkeypatch.setattr(streams, "_AGAIN_SECONDS", 0.0)
    async with world(desk_pdp) as here:
        session_id, handle = here.session()

        told = await listened(here, handle, lambda: here.revoke(session_id))

    assert [ACKNOWLEDGED, TOOLS_CHANGED, "the end"] == told
    assert next(failures, None) is None


async def test_the_stream_of_a_session_of_mcp_ends_with_the_session(desk_pdp: RunningServer) -> None:
    """With a handshake, the same is told on the stream that a client opens, and then it ends."""
    async with world(desk_pdp) as here:
        session_id, handle = here.session()
        begun = await here.post(GREETING, handle=handle)
        session = {"mcp-session-id": begun.headers["mcp-session-id"], "mcp-protocol-version": LEGACY, HANDLE: handle}
        async with (
            httpx2.AsyncClient(timeout=PATIENCE) as http,
            http.stream("GET", here.url, headers={"accept": "text/event-stream", **session}) as answer,
        ):
            here.revoke(session_id)
            lines = [line async for line in answer.aiter_lines() if line.startswith("data: ")]
            told = [json.loads(line.removeprefix("data: "))["method"] for line in lines]
            after = await http.get(here.url, headers={"accept": "text/event-stream", **session})

        assert ["notifications/tools/list_changed"] == told
        assert 403 == after.status_code


@pytest.mark.parametrize("method", ["resources/list", "subscriptions/listen"])
async def test_a_stream_that_answers_no_call_ends_with_its_session(desk_pdp: RunningServer, method: str) -> None:
    """A server can say more before it lists anything, and need not acknowledge a subscription."""
    said = b'data: {"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"said"}}\n\n'

    async def app(_: Any, receive: Any, send: Any) -> None:
        kind = (b"content-type", b"text/event-stream")
        await send({"type": "http.response.start", "status": 200, "headers": [kind]})
        await send({"type": "http.response.body", "body": said, "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"_meta": STATED}}
    sent = {**ACCEPT, "mcp-protocol-version": MODERN, "mcp-method": method}
    async with (
        behind(Desk(), app) as url,
        world(desk_pdp, upstream=url) as here,
        httpx2.AsyncClient(timeout=PATIENCE) as http,
    ):
        session_id, handle = here.session()
        async with http.stream("POST", here.url, json=body, headers={**sent, HANDLE: handle}) as answer:
            told = list[str]()
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    told.append(line)
                    here.revoke(session_id)

    assert 2 == len(told)
    assert "its session is over" in told[1]


async def test_a_stream_that_is_asked_for_again_ends_with_its_session(desk_pdp: RunningServer) -> None:
    """Although each of its pieces is shorter than a look whether the session lives."""
    said = b'data: {"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"said"}}\n\n'
    begun = b'{"jsonrpc":"2.0","id":1,"result":{}}'

    async def app(_: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            part = await receive()
            body, more = body + part.get("body", b""), part.get("more_body", False)
        greets = b"initialize" in body
        kind = b"application/json" if greets else b"text/event-stream"
        headers = [(b"content-type", kind), (b"mcp-session-id", b"one")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": begun if greets else b"id: 1\nretry: 1\n" + said})

    async with (
        behind(Desk(), app) as url,
        world(desk_pdp, upstream=url) as here,
        httpx2.AsyncClient(timeout=PATIENCE) as http,
    ):
        session_id, handle = here.session()
        await here.post(GREETING, handle=handle)
        sent = {**ACCEPT, "mcp-protocol-version": LEGACY, "mcp-session-id": "one", HANDLE: handle}
        body = {"jsonrpc": "2.0", "id": 2, "method": "resources/list"}
        last = ""
        async with asyncio.timeout(PATIENCE), http.stream("POST", here.url, json=body, headers=sent) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    if not last:
                        here.revoke(session_id)
                    last = line

    assert "its session is over" in last


async def test_a_session_of_mcp_belongs_to_the_handle_that_began_it(desk_pdp: RunningServer) -> None:
    """Another session of the PDP cannot use it, listen to it or end it."""
    async with world(desk_pdp) as here:
        _, mine = here.session()
        _, other = here.session("bob")
        begun = await here.post(GREETING, handle=mine)
        session = {"mcp-session-id": begun.headers["mcp-session-id"], "mcp-protocol-version": LEGACY}
        listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
        got = {
            name: await here.post(listing, session, handle=handle)
            for name, handle in (("mine", mine), ("other", other))
        }
        async with httpx2.AsyncClient(timeout=PATIENCE) as http:
            ended = await http.delete(here.url, headers={**session, HANDLE: other})

        assert "tools" in message_of(got["mine"])["result"]
        assert (404, 404) == (got["other"].status_code, ended.status_code)


def reusing(tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return a call whose id another one has, too."""
    return {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}


async def test_a_late_answer_is_not_that_of_a_call_with_the_same_id(
    desk_pdp: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server finds by the id the stream on which it answers, and each result has the obligations of its own call.

    Beyond a bound of such ids, which take memory, the session of MCP is over.
    """
    monkeypatch.setattr(parties, "MOST_GIVEN_UP", 2)
    async with world(desk_pdp) as here, httpx2.AsyncClient(timeout=PATIENCE) as http:
        session_id, handle = here.session()
        begun = await here.post(GREETING, handle=handle)
        session = {"mcp-session-id": begun.headers["mcp-session-id"], "mcp-protocol-version": LEGACY, HANDLE: handle}

        async def given_up(number: int) -> None:
            here.desk.begun.clear()
            body = {**reusing("slow", {"steps": 1}), "id": number}
            async with http.stream("POST", here.url, json=body, headers={**ACCEPT, **session}):
                await here.desk.begun.wait()
            await here.until(lambda: len(here.reported(session_id)) == number - 6)

        await given_up(7)
        again = await here.post(reusing("echo", {"text": "mine"}), session)
        other = await here.post({**reusing("echo", {"text": "mine"}), "id": 70}, session)
        await given_up(8)
        # What came of a call is reported before it is given up.
        async with asyncio.timeout(PATIENCE):
            while (await here.post({"jsonrpc": "2.0", "id": 9, "method": "ping"}, session)).status_code != 404:
                pass

        assert {"code": -32600, "message": "`id` is that of an open request"} == message_of(again)["error"]
        assert "mine" == message_of(other)["result"]["content"][0]["text"]
        assert {"echo": 1, "slow": 2} == here.desk.ran


async def test_the_ids_of_a_session_of_mcp_that_begins_again_are_taken(desk_pdp: RunningServer) -> None:
    """Some servers give all sessions one id, and find by the id of a request the stream on which they answer it."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def app(_: Any, receive: Any, send: Any) -> None:
        number = json.loads((await receive())["body"])["id"]
        if number == 7 and not begun.is_set():
            begun.set()
            await go_on.wait()
        headers = [(b"content-type", b"application/json"), (b"mcp-session-id", b"one")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"jsonrpc":"2.0","id":%d,"result":{}}' % number})

    async with behind(Desk(), app) as url, world(desk_pdp, upstream=url) as here:
        _, handle = here.session()
        sent = {"mcp-protocol-version": LEGACY, "mcp-session-id": "one"}
        ping = {"jsonrpc": "2.0", "id": 7, "method": "ping"}
        await here.post(GREETING, handle=handle)
        waiting = asyncio.ensure_future(here.post(ping, sent, handle=handle))
        await begun.wait()
        await here.post(GREETING, handle=handle)
        again = await here.post(ping, sent, handle=handle)
        go_on.set()
        await waiting

    assert "that of an open request" in again.text


async def test_the_streams_of_a_session_are_open_requests_of_it(
    desk_pdp: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one session could take all connections of the proxy. What it may open is free again when a stream ends."""
    monkeypatch.setattr(load, "MOST_OPEN", 3)
    async with world(desk_pdp) as here, httpx2.AsyncClient(timeout=PATIENCE) as http:
        _, handle = here.session()
        begun = [await here.post(GREETING, handle=handle) for _ in range(2)]
        first, second = (
            {"mcp-session-id": one.headers["mcp-session-id"], HANDLE: handle, "accept": "text/event-stream"}
            for one in begun
        )
        async with http.stream("GET", here.url, headers=first) as stream:
            refused = await http.get(here.url, headers=second)
        async with asyncio.timeout(PATIENCE):
            while (await here.post({"jsonrpc": "2.0", "id": 2, "method": "ping"}, second)).text.count("Too many"):
                pass

        assert [200, 503] == [stream.status_code, refused.status_code]
