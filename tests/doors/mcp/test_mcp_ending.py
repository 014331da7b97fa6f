"""Over pipes, nothing of the server reaches the client of a session that is over."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pdp.doors import refusals
from pdp.doors.mcp import proxy
from pdp.testing.inprocess import RunningServer
from tests.doors.mcp.conversation import Conversation, approved, conversation
from tests.doors.mcp.toolserver import ToolServer

OF_SERVER = "of the server"
LOGGED = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": OF_SERVER}}
IS_OVER = {"code": -31001, "message": refusals.IS_OVER}


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "_LOOK_SECONDS", 0.01)


def talkative() -> ToolServer:
    """Return a server whose every answer says something, and which lists its resources when it is asked again."""
    server = ToolServer()
    for method in ("initialize", "server/discover", "prompts/list", "tools/list", "ping"):
        server.reactions[method] = lambda request: [
            server.answer(request, {**server.result_of(request), "_meta": {"said": OF_SERVER}})
        ]
    server.reactions["resources/list"] = lambda _: []
    return server


async def over(pdp: RunningServer, session_id: str, it: Conversation) -> None:
    """Revoke a session, and wait until the proxy has seen it."""
    pdp.client("admin").revoke_sessions(session_id=session_id, reason="to test")
    await it.until(lambda: it.proxy._ending.over)
    it.seen.clear()


async def test_a_request_that_was_not_asked_about_is_stopped(pdp: RunningServer, era: str) -> None:
    """Its client gets an error that says so, and the server is told; what it answers is dropped."""
    server, opened = talkative(), approved(pdp)
    async with conversation(pdp, era, server=server, handle=opened.session_handle, watched=True) as it:
        await it.ask("tools/list")
        it.seen.clear()
        request = it.request("resources/list")
        await it.say(request)
        pdp.client("admin").revoke_sessions(session_id=opened.session.session_id, reason="to test")
        said = await it.answer(request["id"])
        await it.until(lambda: bool(server.sent("notifications/cancelled")))
        await it.proxy.from_server(server.answer(request, {"resources": [], "said": OF_SERVER}))
        (cancelled,) = [json.loads(line)["params"] for line in server.sent("notifications/cancelled")]

    assert refusals.SESSION_OVER == said["error"]["message"]
    assert {"requestId": request["id"], "reason": refusals.IS_OVER} == cancelled
    assert OF_SERVER not in str(it.seen)


async def test_later_requests_do_not_reach_the_server(pdp: RunningServer, era: str) -> None:
    """The proxy answers: no tools, that it lives, and else that the session is over."""
    server, opened = talkative(), approved(pdp)
    async with conversation(pdp, era, server=server, handle=opened.session_handle, watched=True) as it:
        await it.call("read")
        await over(pdp, opened.session.session_id, it)
        before = len(server.lines)
        said = {method: await it.ask(method) for method in ("tools/list", "ping", "prompts/list", "server/discover")}
        called = await it.call("read")

    assert [] == said["tools/list"]["result"]["tools"]
    assert "result" in said["ping"]
    assert [refusals.SESSION_OVER] * 2 == [
        said[method]["error"]["message"] for method in ("prompts/list", "server/discover")
    ]
    assert called["result"]["content"][0]["text"].startswith("Denied (session_revoked)")
    assert [] == server.lines[before:]
    assert OF_SERVER not in str(it.seen)


async def test_what_the_server_says_of_itself_is_dropped(pdp: RunningServer) -> None:
    """Its notifications, and its requests, which the proxy answers."""
    server, opened = talkative(), approved(pdp)
    async with conversation(
        pdp, server=server, handle=opened.session_handle, watched=True, passes=["roots/list"]
    ) as it:
        await it.ask("tools/list")
        await over(pdp, opened.session.session_id, it)
        await it.write(LOGGED)
        for number, method in enumerate(("roots/list", "ping")):
            await it.write({"jsonrpc": "2.0", "id": f"s-{number}", "method": method, "params": {"x": OF_SERVER}})
        await it.until(lambda: {"s-0", "s-1"} <= answered(server).keys())

    assert {"s-0": {"error": IS_OVER}, "s-1": {"result": {}}} == answered(server)
    assert OF_SERVER not in str(it.seen)


async def test_a_question_of_the_server_ends_with_the_session(pdp: RunningServer) -> None:
    """The client is told that it need not answer, and an answer does not reach the server."""
    server, opened = talkative(), approved(pdp)
    async with conversation(
        pdp, server=server, handle=opened.session_handle, watched=True, passes=["elicitation/create"]
    ) as it:
        await it.write({"jsonrpc": "2.0", "id": "s-1", "method": "elicitation/create"})
        await it.line(lambda one: one.get("id") == "s-1")
        pdp.client("admin").revoke_sessions(session_id=opened.session.session_id, reason="to test")
        told = await it.line(lambda one: one.get("method") == "notifications/cancelled")
        await it.say({"jsonrpc": "2.0", "id": "s-1", "result": {"action": "accept"}})
        await it.until(lambda: "s-1" in answered(server))
        await it.call("read")

    assert {"requestId": "s-1", "reason": refusals.IS_OVER} == json.loads(told)["params"]
    assert {"s-1": {"error": IS_OVER}} == answered(server)


async def test_a_conversation_can_begin_before_the_approval(pdp: RunningServer, era: str) -> None:
    """The greeting of the server passes, and nothing else of it; after the approval all does."""
    server = talkative()
    opened = pdp.client("pep").request_session(user="alice", agent="coder", purpose="to test", tools=("files/*",))
    async with conversation(pdp, era, server=server, handle=opened.session_handle, watched=True, greeted=False) as it:
        await it.until(lambda: it.proxy._ending.over)
        greeting = await it.greet()
        early = await it.ask("prompts/list")
        pdp.client("approver").approve_session(opened.session.session_id, request_digest=opened.session.request_digest)
        await it.until(lambda: not it.proxy._ending.over)
        late = await it.ask("prompts/list")

    assert OF_SERVER == greeting["result"]["_meta"]["said"]
    assert refusals.SESSION_OVER == early["error"]["message"]
    assert OF_SERVER == late["result"]["_meta"]["said"]


def answered(server: ToolServer) -> dict[str, Any]:
    """Return what the server got for each of its requests."""
    said = [one for one in map(json.loads, server.lines) if "method" not in one]
    return {one["id"]: {name: one[name] for name in one.keys() & {"result", "error"}} for one in said}
