"""Whatever is wrong with the PDP, or with the way to it, nothing runs that it has not allowed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pdp.doors import refusals
from pdp.testing.inprocess import RunningServer
from pdp.v1 import decision_pb2
from pdp.v1.decision_pb2 import Decision
from tests.doors.mcp.conversation import PATIENCE, approved, conversation
from tests.doors.mcp.relay import relay
from tests.doors.mcp.toolserver import ToolServer
from tests.machinery.servers.scripted import ScriptedServer, fitting_allow

NO_DECISION = refusals.UNDECIDED


def text_of(said: Any) -> str:
    """Return the text of a result."""
    return str(said["result"]["content"][0]["text"])


@pytest.fixture
def lying() -> Iterator[ScriptedServer]:
    """Return a PDP that answers as a test says."""
    server = ScriptedServer()
    yield server
    server.stop()


async def test_a_pdp_that_is_away_denies(pdp: RunningServer, era: str) -> None:
    """At the start and in the middle nothing runs and the list is an error; when it is back, calls run again."""
    opened = approved(pdp)
    async with relay(pdp.address) as way:
        await way.close()
        async with conversation(
            way.address, era, handle=opened.session_handle, token=pdp.token("pep"), watched=True
        ) as it:
            for _ in range(2):
                said = await it.call("read", {"path": "/secret"})
                listed = await it.ask("tools/list")
                assert (True, NO_DECISION) == (said["result"]["isError"], text_of(said))
                assert "the policy decision point does not answer: try again" == listed["error"]["message"]
                ran = dict(it.server.ran)
                await way.open()
                async with asyncio.timeout(PATIENCE):
                    while (await it.call("read"))["result"]["isError"]:  # noqa: ASYNC110 - it is asked
                        await asyncio.sleep(0.05)  # gRPC connects again by itself
                assert sum(ran.values()) + 1 == it.server.ran["read"]
                await way.close()


async def test_a_pdp_that_is_slow_denies_in_time(pdp: RunningServer) -> None:
    """What it answers later changes nothing."""
    opened = approved(pdp)
    async with relay(pdp.address) as way:
        arguments = {"token": pdp.token("pep"), "handle": opened.session_handle, "patience": 0.3}
        async with conversation(way.address, **arguments) as it:
            await it.call("read")
            way.flowing.clear()
            said = await it.call("read", {"path": "/late"})
            way.flowing.set()
            await it.call("people")

    assert (True, NO_DECISION) == (said["result"]["isError"], text_of(said))
    assert {"read": 1, "people": 1} == it.server.ran


def spoilt(**fields: Any) -> Callable[[Any, Any], Decision]:
    """Return what answers with an allow in which some fields are others."""

    def decide(request: Any, _: Any) -> Decision:
        decision = fitting_allow(request)
        for name in fields:
            decision.ClearField(name)
        decision.MergeFrom(Decision(**fields))
        return decision

    return decide


LIES: dict[str, dict[str, Any]] = {
    "about another tool": {"tool": "people"},
    "about another server": {"server": "git"},
    "about other arguments": {"arguments_digest": "sha256:" + "0" * 64},
    "without an outcome": {"outcome": decision_pb2.OUTCOME_UNSPECIFIED},
    "with an unknown outcome": {"outcome": 99},
    "with an unknown basis": {"basis": 99},
    "with a contradiction": {"basis": decision_pb2.BASIS_FORBID},
    "without an id": {"decision_id": ""},
    "without a session": {"session_id": ""},
    "with an unknown obligation": {"obligations": [{"id": "do_more", "parameters_json": b"{}"}]},
    "with a notice that nobody is shown": {"obligations": [{"id": "notice", "parameters_json": b'{"text":"x"}'}]},
    "with an obligation that cannot be read": {"obligations": [{"id": "redact_result", "parameters_json": b"["}]},
}


@pytest.mark.parametrize("name", LIES)
async def test_an_answer_that_does_not_fit_denies(lying: ScriptedServer, name: str) -> None:
    """A decision about another call, or with something that the proxy does not know, allows nothing."""
    address = lying.start()
    async with conversation(address, handle="pdps_x", token="t") as it:  # noqa: S106 - of the test's own server
        lying.decide = spoilt(**LIES[name])
        said = await it.call("read")
        lying.decide = spoilt()
        honest = await it.call("read", {"path": "/b"})

    assert said["result"]["isError"] is True
    assert honest["result"]["isError"] is False
    assert {"read": 1} == it.server.ran


async def test_what_is_asked_is_the_very_text(lying: ScriptedServer) -> None:
    """The bytes of the arguments, and the digest of the definition that the server lists."""
    address = lying.start()
    arguments = '{ "path" : "\\u00e9\u00e9" , "n":1.0 }'
    async with conversation(address, handle="pdps_x", token="t") as it:  # noqa: S106 - of the test's own server
        line = f'{{"jsonrpc":"2.0","params":{{"arguments":{arguments},"name":"read"}},"id":"it","method":"tools/call"}}'
        await it.say(line.encode())
        await it.answer("it")
        (request,) = lying.sent("Authorize")

    assert arguments.encode() == request.call.arguments_json
    assert "pdps_x" == request.call.session_handle
    assert request.call.definition_digest.startswith("sha256:")
    assert [line.encode()] == it.server.sent("tools/call")


async def test_a_result_is_reported_before_it_is_shown(pdp: RunningServer, era: str) -> None:
    """A failure too, and a call whose server is gone; each once."""
    server = ToolServer()
    opened = approved(pdp)

    def reported() -> list[Any]:
        return [
            one["facts"]["status"]
            for one in pdp.evidence.records
            if one["kind"] == "call.reported" and one["session_id"] == opened.session.session_id
        ]

    async with conversation(pdp, era, server=server, handle=opened.session_handle) as it:
        counts = []
        before = it.to_client

        async def to_client(line: bytes | str) -> None:
            counts.append(len(reported()))
            await before(line)

        it.proxy._to_client = to_client
        await it.call("read")
        server.results["read"] = {"content": [], "isError": True}
        await it.call("read")
        server.reactions["tools/call"] = lambda one: [
            json.dumps({"jsonrpc": "2.0", "id": one["id"], "error": {"code": 1, "message": ""}}).encode()
        ]
        await it.call("read")
        server.reactions["tools/call"] = lambda _: []
        await it.say(it.request("tools/call", {"name": "read"}))
        await it.until(lambda: server.ran["read"] == 4)

    assert [1, 2, 3] == counts
    assert ["succeeded", "failed", "failed", "failed"] == reported()


@pytest.mark.parametrize("what", ["the session is over", "the PDP is away"])
async def test_a_result_that_cannot_be_reported_is_withheld(pdp: RunningServer, what: str) -> None:
    """The client hears that the call ran, and nothing of what it brought or of what went wrong."""
    opened = approved(pdp)
    server = ToolServer()
    async with (
        relay(pdp.address) as way,
        conversation(way.address, handle=opened.session_handle, server=server, token=pdp.token("pep")) as it,
    ):
        request = it.request("tools/call", {"name": "read", "arguments": {"path": "/private"}})
        server.reactions["tools/call"] = lambda _: []
        await it.say(request)
        await it.until(lambda: bool(server.ran))
        if what == "the session is over":
            pdp.client("admin").revoke_sessions(session_id=opened.session.session_id, reason="to test")
        else:
            await way.close()
        await it.write(server.answer(request, server.result_of(request)))
        said = await it.answer(request["id"])

    assert said["result"]["isError"]
    assert "was made, and its result is withheld: what came of the call could not be reported; " in text_of(said)
    assert b"/private" not in b"".join(it.seen)
