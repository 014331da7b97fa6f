"""Whatever the server says, the client gets what it may see, each request one answer, and the proxy goes on."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from pdp.doors import refusals
from pdp.doors.mcp.lines import TooLong
from pdp.doors.mcp.proxy import MOST_OPEN
from pdp.testing.inprocess import RunningServer
from tests.doors.mcp.conversation import LEGACY, MODERN, conversation
from tests.doors.mcp.toolserver import ToolServer

SAMPLING = {"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}}
CANNOT = {"code": -32603, "message": "the answer of the server cannot be handed on"}
MAY_NOT_ASK = "the server asks for something that it may not ask the client for"

# What is between the id of a call and the end of its line.
UNREADABLE: dict[str, str] = {
    "not a number": '"result":{"content":[],"n":NaN}}',
    "a key twice": '"result":{"content":[],"content":[]}}',
    "broken": '"result":{"content":[}',
    "too deep": '"result":{"content":' + "[" * 80 + "]" * 80 + "}}",
    "a lone surrogate": '"result":{"content":[{"type":"text","text":"\\ud800"}]}}',
    "a member of its own": '"result":{"content":[]},"Method":"sampling/createMessage"}',
    "both kinds": '"result":{},"error":{"code":1,"message":""}}',
    "neither kind": '"results":{}}',
    "a carriage return": '"result":{"content":[\r]}}',
}


@pytest.mark.parametrize("name", UNREADABLE)
async def test_an_answer_that_cannot_be_read_is_an_error(pdp: RunningServer, name: str) -> None:
    """Nobody waits for ever, the call counts as failed, and the next one works."""
    server = ToolServer()
    server.reactions["tools/call"] = lambda request: [
        f'{{"jsonrpc":"2.0","id":{request["id"]},{UNREADABLE[name]}'.encode()
    ]

    async with conversation(pdp, server=server) as it:
        said = await it.call("read")
        server.reactions.clear()
        after = await it.call("read")

    assert said["error"] == CANNOT
    assert after["result"]["isError"] is False


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ('{"jsonrpc":"2.0","id":"it","result":{"x":"xxx', 'xxx"}}'),
        ('{"result":{"x":"xxx', 'xxx"},"jsonrpc":"2.0","id":"it"}'),
    ],
)
async def test_an_answer_that_is_too_large_is_an_error(pdp: RunningServer, begin: str, end: str) -> None:
    """Nobody waits for it."""
    server = ToolServer()
    server.reactions["tools/call"] = lambda _: []
    async with conversation(pdp, server=server) as it:
        await it.say(it.request("tools/call", {"name": "read"}, "it"))
        await it.until(lambda: bool(server.ran))
        await it.proxy.from_server(TooLong(begin.encode(), end.encode()))
        said = await it.answer("it")

    assert said["error"] == CANNOT


async def test_calls_wait_for_the_same_list_of_tools(pdp: RunningServer) -> None:
    """When it fails, all that wait are denied, and the next call asks again."""
    server = ToolServer()
    server.reactions["tools/list"] = lambda _: []
    async with conversation(pdp, server=server) as it:
        calling = asyncio.gather(*(it.call("read") for _ in range(5)))
        await it.until(lambda: bool(server.sent("tools/list")))
        (listing,) = [json.loads(line) for line in server.sent("tools/list")]
        await it.write({"jsonrpc": "2.0", "id": listing["id"], "error": {"code": 1, "message": ""}})
        said = await calling
        server.reactions.clear()
        after = await it.call("read")

    assert [True] * 5 == [one["result"]["isError"] for one in said]
    assert after["result"]["isError"] is False
    assert 2 == len(server.sent("tools/list"))


async def test_an_unreadable_list_of_tools_denies_the_call(pdp: RunningServer, era: str) -> None:
    """The proxy does not wait for the definitions until its time is over."""
    server = ToolServer()
    server.reactions["tools/list"] = lambda request: [
        f'{{"jsonrpc":"2.0","id":"{request["id"]}","result":NaN}}'.encode()
    ]

    async with conversation(pdp, era, server=server) as it:
        said = await it.call("read")

    assert said["result"]["content"][0]["text"] == refusals.UNDECIDED
    assert not server.ran


async def test_an_answer_that_nobody_asked_for_is_dropped(pdp: RunningServer) -> None:
    """Neither an unknown id, nor an id of another type, nor a second answer reaches the client."""
    server = ToolServer()

    async with conversation(pdp, server=server) as it:
        await it.call("read", number=7)
        before = list(it.seen)
        for number in (7, "7", 70, "pdp-1"):
            await it.write({"jsonrpc": "2.0", "id": number, "result": {"content": []}})
        await it.write(b"")
        await it.write({"jsonrpc": "2.0", "id": "last", "method": "ping"})
        await it.line(lambda one: one.get("id") == "last")

    assert before == it.seen[:-1]


async def test_an_answer_while_the_pdp_is_asked_is_dropped(pdp: RunningServer) -> None:
    """A server that guesses ids cannot answer a call that it was not sent."""
    server = ToolServer()
    async with conversation(pdp, server=server) as it:
        request = it.request("tools/call", {"name": "write"}, "guessed")
        await it.say(request)
        await it.proxy.from_server(it.server.answer(request, {"content": [], "forged": True}))
        said = await it.answer("guessed")

    assert "forged" not in json.dumps(said)
    assert not server.ran


@pytest.mark.parametrize(
    "method", ["sampling/createMessage", "elicitation/create", "roots/list", "tools/call", "other"]
)
async def test_the_server_may_not_ask_the_client(pdp: RunningServer, method: str) -> None:
    """Its request is answered with an error by the proxy, and the client sees nothing."""
    server = ToolServer()
    async with conversation(pdp, server=server) as it:
        await it.write({"jsonrpc": "2.0", "id": 1, "method": method, "params": {}})
        await it.until(lambda: any(b"is not let pass" in line for line in server.lines))

    (refused,) = [json.loads(line) for line in server.lines if b"is not let pass" in line]
    assert (1, -32601, f"`{method}` is not let pass") == (
        refused["id"],
        refused["error"]["code"],
        refused["error"]["message"],
    )
    assert [] == it.told


@pytest.mark.parametrize("method", ["sampling/createMessage", "elicitation/create", "roots/list"])
async def test_an_operator_lets_the_server_ask(pdp: RunningServer, method: str) -> None:
    """With `--pass` the request and its one answer go through as they are written."""
    server = ToolServer()
    asked = json.dumps({"jsonrpc": "2.0", "method": method, "id": "s-1", "params": {"é": 1.0}}).encode()
    answer = b'{"id":"s-1", "jsonrpc":"2.0","result":{"action":"accept"}}'
    async with conversation(pdp, server=server, passes=[method]) as it:
        await it.write(asked)
        await it.line(lambda one: one.get("method") == method)
        await it.say(answer)
        await it.say(answer)
        await it.say(b'{"id":"s-2","jsonrpc":"2.0","result":{}}')
        await it.call("read")

    assert asked in it.seen
    assert 1 == server.lines.count(answer)
    assert not any(b"s-2" in line for line in server.lines)


async def test_the_server_may_ask_whether_the_client_lives(pdp: RunningServer) -> None:
    """A ping passes, and so does its answer."""
    server = ToolServer()
    async with conversation(pdp, server=server) as it:
        await it.write({"jsonrpc": "2.0", "id": 1, "method": "ping"})
        await it.line(lambda one: one.get("method") == "ping")
        await it.say({"jsonrpc": "2.0", "id": 1, "result": {}})

    assert {"jsonrpc": "2.0", "id": 1, "result": {}} == json.loads(server.lines[-1])


async def test_cancelled_questions_of_the_server_are_forgotten(pdp: RunningServer) -> None:
    """A client does not answer what was cancelled: however many there were, the next one passes."""
    server = ToolServer()
    async with conversation(pdp, server=server, passes=["roots/list"]) as it:
        for number in range(MOST_OPEN + 1):
            await it.write({"jsonrpc": "2.0", "id": number, "method": "roots/list"})
            told = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}}
            await it.write(told)
        await it.line(lambda one: one.get("id") == MOST_OPEN and one.get("method") == "roots/list")

    assert not any(b"too many" in line for line in server.lines)


@pytest.mark.parametrize(
    "asks",
    [
        {"1": SAMPLING},
        {"1": {"method": "roots/list"}, "2": SAMPLING},
        {"1": {"method": ["roots/list"]}},
        {"1": {"method": {}}},
        {"1": {}},
        {"1": None},
        {"1": "roots/list"},
        [{"method": "roots/list"}],
        "roots/list",
    ],
)
@pytest.mark.parametrize("method", ["tools/call", "tools/list", "resources/list", "server/discover"])
async def test_a_result_may_not_ask_the_client(pdp: RunningServer, method: str, asks: Any) -> None:
    """In the era without a handshake the server asks in results: what was not let pass is kept from the client."""
    server = ToolServer()
    result = {"resultType": "input_required", "inputRequests": asks, "requestState": "s", "tools": []}

    async with conversation(pdp, MODERN, server=server, passes=["roots/list"]) as it:
        await it.call("read")
        server.reactions[method] = lambda request: [server.answer(request, result)]
        said = await it.ask(method, {"name": "read"} if method == "tools/call" else {})

    assert MAY_NOT_ASK in json.dumps(said)
    assert "requestState" not in json.dumps(said)


@pytest.mark.parametrize(
    "result",
    [
        {"resultType": "complete", "ResultType": "input_required", "inputRequests": {"1": SAMPLING}},
        {"resultType": "input_required", "inputRequests": {}, "InputRequests": {"1": SAMPLING}},
        {"resultType": "input_required", "inputRequests": {"1": {**SAMPLING, "method": "roots/list", "Method": "x"}}},
    ],
)
async def test_a_result_does_not_ask_by_another_spelling(pdp: RunningServer, result: dict[str, Any]) -> None:
    """Some readers take `Method` for `method`."""
    server = ToolServer()
    server.reactions["tools/call"] = lambda request: [server.answer(request, result)]
    async with conversation(pdp, MODERN, server=server, passes=["roots/list"]) as it:
        said = await it.call("read")

    assert said["result"]["isError"] is True
    assert "nputRequests" not in json.dumps(said)


async def test_a_result_asks_what_the_operator_lets_pass(pdp: RunningServer) -> None:
    """It goes through as it is written, and the retry is a new call, about which the PDP is asked again."""
    server = ToolServer()
    asked = {"resultType": "input_required", "inputRequests": {"1": SAMPLING}, "requestState": "s"}
    server.reactions["tools/call"] = lambda request: [
        server.answer(request, server.result_of(request) if "requestState" in request["params"] else asked)
    ]
    async with conversation(pdp, MODERN, server=server, passes=["sampling/createMessage"]) as it:
        first = await it.call("read", {"path": "/a"})
        before = len(pdp.evidence.decision_records)
        second = await it.call("read", {"path": "/a"}, requestState="s", inputResponses={"1": {}})

    assert asked == first["result"]
    assert second["result"]["isError"] is False
    assert 1 == len(pdp.evidence.decision_records) - before


@pytest.mark.parametrize("kind", ["task", "", None, 1, {"complete": 1}])
async def test_a_result_of_an_unknown_kind_is_withheld(pdp: RunningServer, kind: Any) -> None:
    """Nobody knows what it would do."""
    server = ToolServer()
    server.reactions["tools/call"] = lambda request: [server.answer(request, {"resultType": kind, "content": []})]

    async with conversation(pdp, MODERN, server=server) as it:
        said = await it.call("read")

    (block,) = said["result"]["content"]
    assert block["text"].startswith(
        "The call of `files/read` was made, and its result is withheld: "
        "the result is of a kind that this proxy does not know; do not retry it."
    )
    assert said["result"]["isError"] is True


async def test_unknown_words_of_the_server_are_dropped(pdp: RunningServer) -> None:
    """Notifications that MCP knows go through unread."""
    server = ToolServer()
    known = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1.0}}'
    async with conversation(pdp, server=server) as it:
        await it.write({"jsonrpc": "2.0", "method": "notifications/other"})
        await it.write(b"a line of a log")
        await it.write(b"[]")
        await it.write(known)
        await it.line(lambda one: one.get("method") == "notifications/message")

    assert known == it.seen[-1]
    assert 1 == len(it.told)


@pytest.mark.parametrize("honoured", [[], 1, None, {"toolsListChanged": False}, {}])
async def test_a_subscription_begins_however_it_is_acknowledged(pdp: RunningServer, honoured: Any) -> None:
    """A word that cannot be read is dropped, and the proxy goes on."""
    server = ToolServer()
    server.reactions["subscriptions/listen"] = lambda request: [
        json.dumps(
            {
                "jsonrpc": "2.0",
                "method": "notifications/subscriptions/acknowledged",
                "params": {
                    "_meta": {"io.modelcontextprotocol/subscriptionId": request["id"]},
                    "notifications": honoured,
                },
            }
        ).encode()
    ]
    async with conversation(pdp, MODERN, server=server) as it:
        await it.say(it.request("subscriptions/listen", {"notifications": {"toolsListChanged": True}}))
        said = await it.call("read")

    assert said["result"]["isError"] is False
    wanted = [{"toolsListChanged": True}] if isinstance(honoured, dict) else []
    assert wanted == [one["params"]["notifications"] for one in it.told]


async def test_requests_that_are_open_have_a_bound(pdp: RunningServer) -> None:
    """A server that answers nothing costs no more memory; other requests are refused at once."""
    server = ToolServer()
    server.reactions["ping"] = lambda _: []
    async with conversation(pdp, LEGACY, server=server) as it:
        for _ in range(MOST_OPEN):
            await it.say(it.request("ping"))
        said = await it.call("read")

    assert "Too many requests are open" in said["result"]["content"][0]["text"]
    assert not server.ran
