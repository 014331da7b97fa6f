"""Calls that wait for a person, and calls that are cancelled."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from pdp.doors.mcp import proxy
from pdp.testing.inprocess import RunningServer
from tests.doors.mcp.conversation import PATIENCE, approve, approved, conversation
from tests.doors.mcp.toolserver import ToolServer


def asked(pdp: RunningServer, session_id: str) -> int:
    """Return how many calls of a session wait for a person."""
    return len(list(pdp.client("approver").list_access_requests(state="open", session_id=session_id)))


async def test_a_call_waits_for_its_approval(pdp: RunningServer, era: str) -> None:
    """Whoever approves elsewhere lets the very call run that waits, once."""
    opened = approved(pdp)
    async with conversation(pdp, era, handle=opened.session_handle, wait=PATIENCE) as it:
        calling = asyncio.ensure_future(it.call("reset", {"path": "/a"}))
        await it.until(lambda: asked(pdp, opened.session.session_id) == 1)
        ran = dict(it.server.ran)
        approve(pdp, opened.session.session_id)
        said = await calling

    assert {} == ran
    assert {"reset": 1} == it.server.ran
    assert said["result"]["isError"] is False


async def test_a_call_that_is_not_awaited_names_the_command(pdp: RunningServer, era: str) -> None:
    """The same call runs once after the approval; other arguments, and the next call, wait again."""
    opened = approved(pdp)
    async with conversation(pdp, era, handle=opened.session_handle) as it:
        first = await it.call("reset", {"path": "/a"})
        number = approve(pdp, opened.session.session_id)
        other = await it.call("reset", {"path": "/b"})
        ran = dict(it.server.ran)
        same = await it.call("reset", {"path": "/a"})
        again = await it.call("reset", {"path": "/a"})

    assert first["result"]["content"][0]["text"].startswith(
        "The call of `files/reset` did not run: a person must approve exactly this call first. Tell the user to run "
        f"`pdp approvals approve {number}`, and make the same call again after that."
    )
    assert first["result"]["_meta"]["agent-pdp/decision"]["basis"] == "approval_required"
    assert {} == ran
    assert {"reset": 1} == it.server.ran
    assert [True, False, True] == [one["result"]["isError"] for one in (other, same, again)]


async def test_a_refusal_is_a_deny(pdp: RunningServer) -> None:
    """A person who says no ends the waiting."""
    opened = approved(pdp)
    async with conversation(pdp, handle=opened.session_handle, wait=PATIENCE) as it:
        calling = asyncio.ensure_future(it.call("reset"))
        await it.until(lambda: asked(pdp, opened.session.session_id) == 1)
        approver = pdp.client("approver")
        (request,) = approver.list_access_requests(state="open", session_id=opened.session.session_id)
        approver.deny_call(request.access_request_id)
        said = await calling

    assert said["result"]["isError"] is True
    assert {} == it.server.ran


async def test_a_revocation_ends_the_waiting(pdp: RunningServer) -> None:
    """A call that waits when its session is revoked does not run."""
    opened = approved(pdp)
    async with conversation(pdp, handle=opened.session_handle, wait=PATIENCE) as it:
        calling = asyncio.ensure_future(it.call("reset"))
        await it.until(lambda: asked(pdp, opened.session.session_id) == 1)
        pdp.client("admin").revoke_sessions(session_id=opened.session.session_id, reason="to test")
        said = await calling

    assert said["result"]["isError"] is True
    assert {} == it.server.ran


async def test_a_call_that_is_cancelled_while_it_waits_does_not_run(pdp: RunningServer) -> None:
    """Not even after an approval; nothing answers it, and the server hears nothing of it."""
    opened = approved(pdp)
    async with conversation(pdp, handle=opened.session_handle, wait=PATIENCE) as it:
        await it.say(it.request("tools/call", {"name": "reset"}, "it"))
        await it.until(lambda: asked(pdp, opened.session.session_id) == 1)
        await it.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "it"}})
        approve(pdp, opened.session.session_id)
        await it.call("read")

    assert {"read": 1} == it.server.ran
    assert not any(json.loads(line).get("id") == "it" for line in it.seen)
    assert [] == it.server.sent("notifications/cancelled")


async def test_a_call_that_is_cancelled_while_it_runs_is_cancelled_there(pdp: RunningServer) -> None:
    """The server hears of it, and what it still answers is not shown."""
    server = ToolServer()
    server.reactions["tools/call"] = lambda _: []
    cancelled = b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"it","reason":"\xc3\xa9"}}'
    async with conversation(pdp, server=server) as it:
        request = it.request("tools/call", {"name": "read"}, "it")
        await it.say(request)
        await it.until(lambda: bool(server.ran))
        await it.say(cancelled)
        await it.write(server.answer(request, {"content": []}))
        server.reactions.clear()
        await it.call("read")

    assert [cancelled] == server.sent("notifications/cancelled")
    assert not any(json.loads(line).get("id") == "it" for line in it.seen)


async def test_no_other_call_is_cancelled(pdp: RunningServer) -> None:
    """An id of another type is the id of another request."""
    opened = approved(pdp)
    async with conversation(pdp, handle=opened.session_handle, wait=PATIENCE) as it:
        calling = asyncio.ensure_future(it.call("reset", number=1_000))
        await it.until(lambda: asked(pdp, opened.session.session_id) == 1)
        others: tuple[Any, ...] = ("1000", 1000.5, True, None, [1000], {}, 7)
        for number in others:
            await it.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}})
        await it.say({"jsonrpc": "2.0", "method": "notifications/cancelled"})
        approve(pdp, opened.session.session_id)
        said = await calling

    assert said["result"]["isError"] is False
    assert {"reset": 1} == it.server.ran


@pytest.mark.parametrize("how", ["cancelled", "stopped"])
async def test_a_late_answer_is_not_that_of_a_request_with_the_same_id(pdp: RunningServer, how: str) -> None:
    """Else what must be redacted would be handed on as the result of a ping; the id is free once it is answered."""
    opened, server, held = approved(pdp), ToolServer(), list[Any]()

    def hold(request: Any) -> tuple[bytes, ...]:
        held.append(request)
        return ()

    server.reactions["tools/call"] = hold
    async with conversation(pdp, handle=opened.session_handle, server=server, watched=True) as it:
        await it.say(it.request("tools/call", {"name": "people", "arguments": {}}, "it"))
        await it.until(lambda: bool(held))
        if how == "cancelled":
            await it.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "it"}})
        else:
            pdp.client("admin").revoke_sessions(session_id=opened.session.session_id, reason="to test")
            await it.answer("it")
        it.seen.clear()
        again = await it.ask("ping", number="it")
        await it.write(server.answer(held[0], {"content": [{"type": "text", "text": "ann@example.com"}]}))
        await it.until(lambda: "it" not in it.proxy._given_up)
        late = b"".join(it.seen)
        it.seen.clear()
        free = await it.ask("ping", number="it")

    assert {"code": -32600, "message": "`id` is that of an open request"} == again["error"]
    assert b"example.com" not in late
    assert {} == free["result"]


async def test_only_so_many_requests_are_cancelled_that_a_server_may_still_answer(
    pdp: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their ids take memory. Beyond a bound a request goes on, and is answered."""
    monkeypatch.setattr(proxy, "MOST_GIVEN_UP", 3)
    server, held = ToolServer(), list[Any]()

    def hold(request: Any) -> tuple[bytes, ...]:
        held.append(request)
        return ()

    server.reactions["ping"] = hold
    async with conversation(pdp, server=server) as it:
        for number in range(100, 104):
            await it.say(it.request("ping", number=number))
            await it.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}})
        await it.until(lambda: len(held) == 4)
        for request in held:
            await it.write(server.answer(request, {}))
        await it.answer(103)

    assert 3 == len(server.sent("notifications/cancelled"))
    assert not any(json.loads(line).get("id") in range(100, 103) for line in it.seen)
