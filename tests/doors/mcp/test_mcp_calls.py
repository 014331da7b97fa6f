"""What runs, and what does not: the calls of a client through the proxy, in both eras."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pdp.testing.inprocess import RunningServer
from tests.doors.mcp.conversation import conversation

pytestmark = pytest.mark.anyio


async def test_an_allowed_call_runs_once(pdp: RunningServer, era: str) -> None:
    """The server gets the client's line, the client gets the server's answer, both byte for byte."""
    async with conversation(pdp, era) as it:
        line = json.dumps(it.request("tools/call", {"name": "read", "arguments": {"path": "/é", "n": 1.0}})).encode()
        await it.say(line)
        answer = await it.line(lambda one: one.get("id") == json.loads(line)["id"])

        assert [line] == it.server.sent("tools/call")
        request: dict[str, Any] = json.loads(line)
        assert it.server.answer(request, it.server.result_of(request)) == answer


async def test_a_denied_call_does_not_run(pdp: RunningServer, era: str) -> None:
    """The model gets a text with the basis and the decision, and the next call works."""
    async with conversation(pdp, era) as it:
        denied = await it.call("write", {"path": "/a"})
        allowed = await it.call("read")

        assert {"read": 1} == it.server.ran
        decision = denied["result"]["_meta"]["agent-pdp/decision"]
        assert decision["basis"] == "default_deny"
        (block,) = denied["result"]["content"]
        assert block["text"] == (
            "Denied (default_deny): the call of `files/write` did not run; no rule permits this call: "
            f"do not retry it; find another way, or tell the user. Decision {decision['decision_id']}."
        )
        assert denied["result"]["isError"] is True
        assert allowed["result"]["isError"] is False
