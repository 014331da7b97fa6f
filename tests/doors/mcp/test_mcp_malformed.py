"""What a client writes wrongly runs nothing, whoever waits for an answer gets one, and the next call works."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from typing import Any

import pytest

from pdp.doors.mcp import gate, messages
from pdp.doors.mcp.lines import TooLong
from pdp.doors.mcp.messages import MOST_BYTES
from pdp.doors.mcp.proxy import MOST_OPEN
from pdp.doors.mcp.tools import Definitions
from pdp.testing.inprocess import RunningServer
from tests.doors.mcp.conversation import conversation
from tests.doors.mcp.toolserver import ToolServer

CALL = '{"jsonrpc":"2.0","id":"bad","method":"tools/call","params":{"name":"read","arguments":{"path":%s}}}'

# The line, and the id of the error that answers it.
LINES: dict[str, tuple[bytes, Any]] = {
    "broken JSON": (b'{"jsonrpc":"2.0","id":"bad","method":"tools/call","params":{"name":"read"', "bad"),
    "broken after the method": ((CALL % '"').encode(), "bad"),
    "no JSON": (b"read /etc/passwd", None),
    "a batch": (f"[{CALL % 1}]".encode(), None),
    "NaN": ((CALL % "NaN").encode(), "bad"),
    "a key twice": ((CALL % '1,"path":2').encode(), "bad"),
    "a lone surrogate": ((CALL % '"\\ud800"').encode(), "bad"),
    "no UTF-8": ((CALL % '"@"').encode().replace(b"@", b"\xff"), "bad"),
    "a byte order mark": (b"\xef\xbb\xbf" + (CALL % 1).encode(), None),
    "UTF-16": ((CALL % 1).encode("utf-16"), None),
    "depth 300": ((CALL % ("[" * 300 + "]" * 300)).encode(), "bad"),
    "10,000 brackets": ((CALL % ("[" * 10_000)).encode(), "bad"),
    "5,000 digits": ((CALL % ("9" * 5_000)).encode(), "bad"),
    "`method` twice": ((CALL % 1).replace('"params"', '"method":"ping","params"').encode(), "bad"),
    "`id` twice": ((CALL % 1).replace('"params"', '"id":1,"params"').encode(), None),
    "`params` twice": ((CALL % 1).replace('"params"', '"params":{},"params"').encode(), "bad"),
    "`name` twice": ((CALL % 1).replace('"name"', '"name":"hidden","name"').encode(), "bad"),
    "an id that is null": ((CALL % 1).replace('"bad"', "null").encode(), None),
    "an id that is a list": ((CALL % 1).replace('"bad"', "[1]").encode(), None),
    "an id with a lone surrogate": ((CALL % 1).replace('"bad"', '"\\ud800"').encode(), None),
    "a carriage return": (
        b'{"jsonrpc":"2.0","id":"bad","method":"ping","params":{"x":[\r' + (CALL % 1).encode() + b"\r]}}",
        "bad",
    ),
    "`Method` beside `method`": (
        (CALL % 1).replace("tools/call", "ping").replace('"params"', '"Method":"tools/call","params"').encode(),
        "bad",
    ),
    "another version": ((CALL % 1).replace("2.0", "3.0").encode(), "bad"),
    "params that are a list": (b'{"jsonrpc":"2.0","id":"bad","method":"tools/call","params":["read"]}', "bad"),
    "an answer of both kinds": (b'{"jsonrpc":"2.0","id":"bad","result":{},"error":{}}', None),
}


@pytest.mark.parametrize("name", LINES)
async def test_a_malformed_line_runs_nothing(pdp: RunningServer, name: str) -> None:
    """One error answers it, by its id where that is sure."""
    line, number = LINES[name]
    async with conversation(pdp) as it:
        before = len(it.server.lines)
        await it.say(line)
        said = json.loads(it.seen[-1])
        sent = it.server.lines[before:]
        await it.call("read")

    assert [] == sent
    assert (number, -32700) == (said["id"], said["error"]["code"])
    assert {"read": 1} == it.server.ran


PARAMS: dict[str, tuple[Any, str]] = {
    "no name": ({}, "`params.name` is not the name of a tool"),
    "an empty name": ({"name": ""}, "`params.name` is not the name of a tool"),
    "a name that is a number": ({"name": 7}, "`params.name` is not the name of a tool"),
    "a name that is a list": ({"name": ["read"]}, "`params.name` is not the name of a tool"),
    "a name that is null": ({"name": None}, "`params.name` is not the name of a tool"),
    "a name of a method": ({"name": "resources/read"}, "`params.name` is the name of a method"),
    "arguments that are a list": ({"name": "read", "arguments": []}, "`params.arguments` is not an object"),
    "arguments that are a text": ({"name": "read", "arguments": "{}"}, "`params.arguments` is not an object"),
    "arguments that are null": ({"name": "read", "arguments": None}, "`params.arguments` is not an object"),
    "a task": ({"name": "read", "task": {}}, "`params.task` is not let pass"),
    "another version of a tool": (
        {"name": "read", "_meta": {"fastmcp": {"version": "1"}}},
        "`params._meta.fastmcp` is not let pass",
    ),
    "`Name` beside `name`": ({"name": "read", "Name": "write"}, "`params.Name` is not let pass"),
    "`Arguments` alone": ({"name": "read", "Arguments": {"path": "/secret"}}, "`params.Arguments` is not let pass"),
    "a member of its own": ({"name": "read", "x" * 99: 1}, f"`params.{'x' * 64}` is not let pass"),
}


@pytest.mark.parametrize("name", PARAMS)
async def test_a_malformed_call_runs_nothing(pdp: RunningServer, era: str, name: str) -> None:
    """It is answered as a request that is wrong, and nothing of it reaches the server or the PDP."""
    params, why = PARAMS[name]
    async with conversation(pdp, era) as it:
        before = len(pdp.evidence.decision_records)
        said = await it.ask("tools/call", params)
        after = await it.call("read")

    assert {"code": -32602, "message": why} == said["error"]
    assert 1 == len(pdp.evidence.decision_records) - before
    assert {"read": 1} == it.server.ran
    assert after["result"]["isError"] is False


async def test_what_is_no_request_of_mcp_is_refused(pdp: RunningServer) -> None:
    """Unknown methods are errors; unknown notifications, and calls without an id, are dropped."""
    async with conversation(pdp) as it:
        before = len(it.server.lines)
        said = [await it.ask(method) for method in ("tools/run", "Tools/Call", "tasks/get", "resources/subscribe")]
        await it.say({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "read"}})
        await it.say({"jsonrpc": "2.0", "method": "notifications/other"})
        await it.say({"jsonrpc": "2.0", "id": 99, "result": {}})
        sent = it.server.lines[before:]

    assert [-32601] * 4 == [one["error"]["code"] for one in said]
    assert [] == sent


async def test_an_operator_lets_a_method_pass(pdp: RunningServer) -> None:
    """It passes as it is written."""
    async with conversation(pdp, passes=["resources/subscribe"]) as it:
        request = it.request("resources/subscribe", {"uri": "file:///é"})
        await it.say(request)
        await it.answer(request["id"])

    assert json.dumps(request, ensure_ascii=False).encode() == it.server.lines[-1]


async def test_an_id_of_an_open_request_is_refused(pdp: RunningServer) -> None:
    """Else two answers could be confused; an id of another type is another id, and one that is answered is free."""
    server = ToolServer()
    server.reactions["ping"] = lambda _: []
    async with conversation(pdp, server=server) as it:
        await it.say(it.request("ping", number=7))
        again = await it.call("read", number=7)
        other = await it.call("read", number="7")
        await it.write({"jsonrpc": "2.0", "id": 7, "result": {}})
        await it.line(lambda one: one.get("id") == 7 and "result" in one)
        it.seen.clear()
        free = await it.call("read", number=7)

    assert {"code": -32600, "message": "`id` is that of an open request"} == again["error"]
    assert [False, False] == [one["result"]["isError"] for one in (other, free)]
    assert {"read": 2} == server.ran


@pytest.mark.parametrize(
    ("begin", "end", "number"),
    [
        (b'{"jsonrpc":"2.0","id":"it","method":"tools/call","params":{"x":"xxx', b'xx"}}', "it"),
        (b'{"method":"tools/call","params":{"x":"xxx', b'xx"},"jsonrpc":"2.0","id":17}', 17),
        (b'{"method":"tools/call","params":{"x":"xxx', b'xx"},"jsonrpc":"2.0", "id" : "i t" } \r', "i t"),
        (b'{"method":"tools/call","params":{"x":"xxx', b'xx,\\"id\\":17}"}}', None),
        (b'{"method":"tools/call","params":{"x":"xxx', b'xx","id":17}}', None),
        (b'{"id":1,"method":"tools/call","params":{"x":"xxx', b'xx"},"id":17}', None),
        (b'{"id":1,"result":{"x":"xxx', b'xx"}}', None),
        (b"xxx", b"xxx", None),
    ],
)
async def test_a_message_that_is_too_large_is_refused(
    pdp: RunningServer, begin: bytes, end: bytes, number: Any
) -> None:
    """By its id, where one of its ends has it for sure, and the next call works."""
    async with conversation(pdp) as it:
        await it.proxy.from_client(TooLong(begin, end))
        said = json.loads(it.seen[-1])
        await it.call("read")

    assert (number, {"code": -32700, "message": "the message is too large"}) == (said["id"], said["error"])
    assert {"read": 1} == it.server.ran


@pytest.mark.parametrize(("size", "ran"), [(100, True), (40_000, False), (300_000, False), (MOST_BYTES - 500, False)])
async def test_large_arguments_are_for_the_pdp_to_bound(pdp: RunningServer, size: int, ran: bool) -> None:  # noqa: FBT001 - a column
    """A message within the limit of the proxy that is beyond one of the PDP is a deny."""
    async with conversation(pdp) as it:
        said = await it.call("read", {"path": "x" * size})

    assert (not ran) is said["result"]["isError"]
    assert int(ran) == it.server.ran["read"]


@pytest.mark.parametrize(
    "arguments",
    [
        '{"n":1}',
        '{"n":1.0}',
        '{"n":-0}',
        '{"n":-0.0}',
        '{"n":9007199254740993}',
        '{"n":123456789012345678901234567890}',
        '{"n":1e400}',
        '{"n":1E2}',
        ' { "path" : "\u00e9 e\u0301 \u202e \U0001f600 \\u0000 \\/ \\ud83d\\ude00" } ',
    ],
)
async def test_what_is_checked_is_what_runs(pdp: RunningServer, era: str, arguments: str) -> None:
    """The PDP's record has the digest of the very bytes that the server gets, or the call is refused."""
    async with conversation(pdp, era) as it:
        request = json.dumps(it.request("tools/call", {"name": "read", "arguments": 0}, "it"))
        line = request.replace('"arguments": 0', f'"arguments":{arguments}').encode()
        await it.say(line)
        said = await it.answer("it")
        record = pdp.evidence.decision_records[-1]

    assert ([line] if said["result"]["isError"] is False else []) == it.server.sent("tools/call")
    assert (record["outcome"] == "allow") is bool(it.server.ran)
    assert arguments == '{"n":1e400}' or it.server.ran


async def test_a_fault_of_the_proxy_runs_nothing(
    pdp: RunningServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever breaks inside, nothing of its text is told, and the proxy goes on."""

    def breaks(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a secret of the inside")

    async with conversation(pdp) as it:
        said = []
        for owner, name in (
            (gate, "question"),
            (it.proxy.gate, "_allowed"),
            (Definitions, "digest"),
            (it.proxy.gate, "lets_pass"),
            (messages.Message, "read_line"),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, breaks)
                method = "ping" if name == "lets_pass" else "tools/call"
                request = it.request(method, {"name": "read"})
                await it.say(request)
                said.append(await it.answer(None if name == "read_line" else request["id"]))
        ran = dict(it.server.ran)
        await it.call("read")

    assert {} == ran
    assert ["result"] * 3 + ["error"] * 2 == [next(key for key in one if key in ("result", "error")) for one in said]
    assert "secret" not in json.dumps(said) + caplog.text
    assert {"read": 1} == it.server.ran


async def test_a_call_that_is_cancelled_at_once_is_forgotten(pdp: RunningServer) -> None:
    """Even before anyone could be asked: it does not run, and its id is free."""
    async with conversation(pdp) as it:
        for _ in range(MOST_OPEN + 1):
            await it.say(it.request("tools/call", {"name": "read"}, "it"))
            await it.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "it"}})
            await asyncio.sleep(0)
        ran = dict(it.server.ran)
        said = await it.call("read", number="it")

    assert {} == ran
    assert said["result"]["isError"] is False


@pytest.mark.parametrize("line", [b'{"id":7,"result":[%b0]}', b'{"result":[%b0],"id":7}'])
async def test_of_a_long_line_that_is_refused_little_is_read(pdp: RunningServer, line: bytes) -> None:
    """Its values can take twenty times the memory of its bytes; whoever waits for it still hears of it."""
    server = ToolServer()
    server.reactions["resources/list"] = lambda _: [line % (b"{}," * 1_000_000)]
    async with conversation(pdp, server=server) as it:
        tracemalloc.start()
        said = await it.ask("resources/list", number=7)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert "cannot be handed on" in said["error"]["message"]
    assert most < 20_000_000
