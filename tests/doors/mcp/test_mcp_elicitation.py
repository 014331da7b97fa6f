"""Clients that can open a link for their person are pointed to the page where a call is approved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from pdp.testing.inprocess import RunningServer, running_server
from tests.doors.mcp.conversation import FILES, LEGACY, MODERN, Conversation, approve, approved, conversation

CONSOLE = "https://pdp.example.org/console/"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
OPENS_LINKS: dict[str, Any] = {CAPABILITIES: {"elicitation": {"form": {}, "url": {}}}}


@pytest.fixture(scope="module")
def console_pdp() -> Iterator[RunningServer]:
    """Return a PDP that knows where its console is."""
    with running_server(FILES, console_url=CONSOLE) as server:
        yield server


async def pointed(it: Conversation, path: str = "/a", state: str = "", **more: Any) -> Any:
    """Call the tool that a person must approve, from a client that can open links; return the result."""
    again = {"inputResponses": {"approval": {"action": "accept"}}, "requestState": state} if state else {}
    said = await it.call("reset", {"path": path}, _meta=OPENS_LINKS, **again, **more)
    return said["result"]


def params_of(it: Conversation) -> Any:
    """Return the parameters of the one call that the server got."""
    (sent,) = it.server.sent("tools/call")
    return json.loads(sent)["params"]


async def test_the_client_gets_the_link_at_once(console_pdp: RunningServer) -> None:
    """It waits for nobody, and names the console that the server knows."""
    opened = approved(console_pdp)
    async with conversation(console_pdp, MODERN, handle=opened.session_handle, wait=60) as it:
        said = await pointed(it)

    number = approve(console_pdp, opened.session.session_id)
    assert "input_required" == said["resultType"]
    assert {
        "method": "elicitation/create",
        "params": {
            "mode": "url",
            "message": "A person must approve this call of `files/reset` first.",
            "url": f"https://pdp.example.org/console/approvals/{number}",
        },
    } == said["inputRequests"]["approval"]
    assert {} == it.server.ran


async def test_the_next_try_runs_once_after_the_approval(console_pdp: RunningServer) -> None:
    """The server gets the request without what belongs to the pointing, and its arguments as they were written."""
    opened = approved(console_pdp)
    async with conversation(console_pdp, MODERN, handle=opened.session_handle) as it:
        state = (await pointed(it))["requestState"]
        approve(console_pdp, opened.session.session_id)
        done = await pointed(it, state=state)
        again = await pointed(it, state=state)

    sent = params_of(it)
    assert {"reset": 1} == it.server.ran
    assert done["isError"] is False
    assert "input_required" == again["resultType"]
    assert {"name": "reset", "arguments": {"path": "/a"}} == {name: sent[name] for name in sent if name != "_meta"}


async def test_that_the_client_accepts_means_nothing(console_pdp: RunningServer) -> None:
    """Without the approval the next try does not run, and is answered with a text that a model can act on."""
    async with conversation(console_pdp, MODERN) as it:
        state = (await pointed(it))["requestState"]
        said = await pointed(it, state=state)

    assert said["isError"] is True
    assert f"Tell the user to open {CONSOLE}approvals/acc_" in said["content"][0]["text"]
    assert {} == it.server.ran


async def test_a_state_is_no_approval(console_pdp: RunningServer) -> None:
    """A state of another call, or one that nobody has given, has the client pointed to its own call."""
    opened = approved(console_pdp)
    async with conversation(console_pdp, MODERN, handle=opened.session_handle) as it:
        state = (await pointed(it))["requestState"]
        approve(console_pdp, opened.session.session_id)
        other = await pointed(it, "/b", state=state)
        forged = await pointed(it, "/c", state="agent-pdp/approval/acc_forged")

    assert ["input_required"] * 2 == [other["resultType"], forged["resultType"]]
    assert {} == it.server.ran


@pytest.mark.parametrize(
    "declared", [{}, {"elicitation": {}}, {"elicitation": {"form": {}}}, {"elicitation": {"url": True}}, []]
)
async def test_other_clients_get_a_text(console_pdp: RunningServer, declared: Any) -> None:
    """A client that does not say that it opens links may show a form only, which the model could fill in."""
    async with conversation(console_pdp, MODERN) as it:
        said = await it.call("reset", _meta={CAPABILITIES: declared})

    assert said["result"]["isError"] is True
    assert f"open {CONSOLE}approvals/acc_" in said["result"]["content"][0]["text"]


async def test_clients_of_the_earlier_era_get_a_text(console_pdp: RunningServer) -> None:
    """Their version of MCP has no such answer."""
    async with conversation(console_pdp, LEGACY) as it:
        said = await it.call("reset")

    assert said["result"]["isError"] is True
    assert f"open {CONSOLE}approvals/acc_" in said["result"]["content"][0]["text"]


async def test_without_a_console_the_call_waits(pdp: RunningServer) -> None:
    """There is no link to open, so a text names the command."""
    async with conversation(pdp, MODERN) as it:
        said = await pointed(it)

    assert said["isError"] is True
    assert "run `pdp approvals approve acc_" in said["content"][0]["text"]


async def test_a_state_of_the_server_goes_back_to_it(console_pdp: RunningServer) -> None:
    """Only what the proxy itself has asked for is taken out."""
    async with conversation(console_pdp, MODERN) as it:
        await it.call("read", {"path": "/a"}, _meta=OPENS_LINKS, inputResponses={"one": {}}, requestState="its own")

    sent = params_of(it)
    assert "its own" == sent["requestState"]
    assert {"one": {}} == sent["inputResponses"]
