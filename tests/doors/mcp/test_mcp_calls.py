"""What runs, and what does not: the calls of a client through the proxy, in both eras."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from pdp.doors.mcp import proxy
from pdp.doors.mcp.gate import AllowedCall, Gate
from pdp.model import Outcome
from pdp.testing.bundles import bundle_files
from pdp.testing.inprocess import RunningServer, running_server
from tests.doors.mcp.conversation import DIRECTORY, OVERLAY, PATIENCE, POLICIES, approved, conversation
from tests.doors.mcp.toolserver import METHODS, TOOLS, ToolServer


def text_of(said: Any) -> str:
    """Return the text of a result that says that its call failed."""
    assert said["result"]["isError"] is True
    (block,) = said["result"]["content"]
    return str(block["text"])


async def test_an_allowed_call_runs_once(pdp: RunningServer, era: str) -> None:
    """The server gets the client's line, the client gets the server's answer, both byte for byte."""
    async with conversation(pdp, era) as it:
        line = json.dumps(it.request("tools/call", {"name": "read", "arguments": {"path": "/é", "n": 1.0}})).encode()
        await it.say(line)
        answer = await it.line(lambda one: one.get("id") == json.loads(line)["id"])

    request: dict[str, Any] = json.loads(line)
    assert [line] == it.server.sent("tools/call")
    assert it.server.answer(request, it.server.result_of(request)) == answer


async def test_a_denied_call_does_not_run(pdp: RunningServer, era: str) -> None:
    """The model gets a text with the basis and the decision, and the next call works."""
    async with conversation(pdp, era) as it:
        denied = await it.call("write", {"path": "/a"})
        allowed = await it.call("read")

    assert {"read": 1} == it.server.ran
    decision = denied["result"]["_meta"]["agent-pdp/decision"]
    assert decision["basis"] == "default_deny"
    assert text_of(denied) == (
        "Denied (default_deny): the call of `files/write` did not run; no rule permits this call: "
        f"do not retry it; find another way, or tell the user. Decision {decision['decision_id']}."
    )
    assert allowed["result"]["isError"] is False


async def test_a_denial_says_the_same_each_time(pdp: RunningServer) -> None:
    """Models that retry learn nothing new: only the decision has another id."""
    async with conversation(pdp) as it:
        texts = {text_of(await it.call("write")).partition(" Decision ")[0] for _ in range(3)}

    assert 1 == len(texts)


@pytest.mark.parametrize(
    "tool", ["other", "git/read", "files/read", "../read", "READ", "read ", "read\u0000", "é" * 300]
)
async def test_a_tool_that_nobody_knows_does_not_run(pdp: RunningServer, era: str, tool: str) -> None:
    """It is a deny, and no error."""
    async with conversation(pdp, era) as it:
        said = await it.call(tool)

    assert "did not run" in text_of(said)
    assert {} == it.server.ran


async def test_a_hidden_tool_that_is_called_by_name_does_not_run(pdp: RunningServer, era: str) -> None:
    """Filtering hides; the deny forbids."""
    async with conversation(pdp, era) as it:
        listed = await it.ask("tools/list")
        said = await it.call("hidden")

    assert "hidden" not in json.dumps(listed)
    assert text_of(said).startswith("Denied (default_deny)")
    assert {} == it.server.ran


@pytest.mark.parametrize("kind", ["requested", "ended", "expired", "revoked", "unknown"])
async def test_without_a_live_session_nothing_runs(
    pdp: RunningServer, era: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever became of it, the deny names the basis, the list is empty, and the handle is nowhere."""
    pep, approver = pdp.client("pep"), pdp.client("approver")
    opened = pep.request_session(user="alice", agent="coder", purpose="to test", tools=["files/*"], duration=600)
    if kind != "requested":
        approver.approve_session(opened.session.session_id, request_digest=opened.session.request_digest)
    if kind == "ended":
        pep.end_session(opened.session_handle)
    if kind == "expired":
        pdp.clock.advance(601)
    if kind == "revoked":
        pdp.client("admin").revoke_sessions(session_id=opened.session.session_id, reason="to test")
    handle = "pdps_" + "0" * 43 if kind == "unknown" else opened.session_handle

    async with conversation(pdp, era, handle=handle) as it:
        said = await it.call("read")
        listed = await it.ask("tools/list")

    basis = {"requested": "session_not_approved", "unknown": "session_not_found"}.get(kind, f"session_{kind}")
    assert text_of(said).startswith(f"Denied ({basis}): the call of `files/read` did not run")
    assert {} == it.server.ran
    assert [] == listed["result"]["tools"]
    everything = [*it.seen, *it.server.lines, caplog.text.encode()]
    assert not any(handle.encode() in line for line in everything)


async def test_a_revocation_holds_for_the_next_call(pdp: RunningServer, era: str) -> None:
    """What ran before does not matter."""
    opened = approved(pdp)
    async with conversation(pdp, era, handle=opened.session_handle) as it:
        await it.call("read")
        pdp.client("admin").revoke_sessions(session_id=opened.session.session_id, reason="to test")
        said = await it.call("read")

    assert text_of(said).startswith("Denied (session_revoked)")
    assert {"read": 1} == it.server.ran


async def test_a_call_that_is_under_way_is_stopped_with_its_session(pdp: RunningServer, era: str) -> None:
    """Its client gets a result that says so, the server hears that nobody waits, and what it says later is dropped."""
    opened, server, held = approved(pdp), ToolServer(), list[Any]()

    def hold(request: Any) -> tuple[bytes, ...]:
        held.append(request)
        return ()

    server.reactions["tools/call"] = hold
    async with conversation(pdp, era, handle=opened.session_handle, server=server, watched=True) as it:
        request = it.request("tools/call", {"name": "read", "arguments": {}})
        await it.say(request)
        await it.until(lambda: bool(held))
        pdp.client("admin").revoke_sessions(session_id=opened.session.session_id, reason="to test")
        said = await it.answer(request["id"])
        await it.until(lambda: bool(server.sent("notifications/cancelled")))
        await it.write(server.answer(held[0], {"content": [{"type": "text", "text": "done"}]}))
        await it.ask("ping")
    (told,) = map(json.loads, server.sent("notifications/cancelled"))

    assert "was stopped: its session is over. The tool may have done all of it, or a part" in text_of(said)
    assert {"requestId": request["id"], "reason": "its session is over"} == told["params"]
    assert 1 == sum(json.loads(line).get("id") == request["id"] for line in it.seen)


async def test_a_call_whose_session_is_over_when_its_allow_arrives_is_stopped(
    pdp: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy can see that a session is over before it hears of an allow from before that."""
    monkeypatch.setattr(proxy, "_LOOK_SECONDS", 10 * PATIENCE)
    monkeypatch.setattr(proxy, "_AGAIN_SECONDS", 10 * PATIENCE)
    opened, server, looks, over = approved(pdp), ToolServer(), list[Any](), asyncio.Event()
    server.reactions["tools/call"] = lambda _: ()
    ask, seen = Gate.ask, Gate.seen

    async def late(gate: Gate, request: Any) -> AllowedCall:
        allowed = await ask(gate, request)
        pdp.client("admin").revoke_sessions(session_id=opened.session.session_id, reason="to test")
        await over.wait()
        return allowed

    async def noting(gate: Gate) -> frozenset[str] | None:
        looks.append(await seen(gate))
        if looks[-1] is None:
            over.set()
        return looks[-1]

    monkeypatch.setattr(Gate, "ask", late)
    monkeypatch.setattr(Gate, "seen", noting)
    async with conversation(pdp, handle=opened.session_handle, server=server, watched=True) as it:
        # The feed begins with a message that has the proxy look once more.
        await it.until(lambda: len(looks) == 2)
        said = await it.call("read")

    assert "was stopped: its session is over" in text_of(said)


async def test_a_call_stops_although_a_server_does_not_know_yet(
    pdp: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several machines one can tell of a revocation before another, which is asked how the session is, knows it."""
    monkeypatch.setattr(proxy, "_LOOK_SECONDS", 10 * PATIENCE)
    monkeypatch.setattr(proxy, "_AGAIN_SECONDS", 0.01)
    opened, server, looks, seen = approved(pdp), ToolServer(), list[Any](), Gate.seen
    server.reactions["tools/call"] = lambda _: ()

    async def behind(gate: Gate) -> frozenset[str] | None:
        looks.append(await seen(gate))
        return looks[0] if None not in looks[:-1] else looks[-1]

    monkeypatch.setattr(Gate, "seen", behind)
    async with conversation(pdp, handle=opened.session_handle, server=server, watched=True) as it:
        # At first, when the feed begins, and once more.
        await it.until(lambda: len(looks) == 3)
        request = it.request("tools/call", {"name": "read", "arguments": {}})
        await it.say(request)
        await it.until(lambda: bool(server.ran))
        pdp.client("admin").revoke_sessions(session_id=opened.session.session_id, reason="to test")
        said = await it.answer(request["id"])

    assert "was stopped: its session is over" in text_of(said)


async def test_calls_stop_whether_or_not_their_client_reads(
    pdp: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither what it is told of its tools, nor of one stopped call, holds up the rest."""
    opened, server = approved(pdp), ToolServer()
    server.reactions["tools/call"] = lambda _: ()
    async with conversation(pdp, handle=opened.session_handle, server=server, watched=True) as it:
        await it.ask("tools/list")
        for _ in range(2):
            await it.say(it.request("tools/call", {"name": "read", "arguments": {}}))
        await it.until(lambda: server.ran["read"] == 2)
        blocked, reads = asyncio.Event(), asyncio.Event()

        async def deaf(line: bytes | str) -> None:
            blocked.set()
            await reads.wait()
            await it.to_client(line)

        monkeypatch.setattr(it.proxy, "_to_client", deaf)
        pdp.client("approver").narrow_session(opened.session.session_id, tools=("files/read",))
        await it.until(blocked.is_set)
        pdp.client("admin").revoke_sessions(session_id=opened.session.session_id, reason="to test")
        await it.until(lambda: len(server.sent("notifications/cancelled")) == 2)
        reads.set()
        await it.until(lambda: sum(b"was stopped" in line for line in it.seen) == 2)

    assert 1 == len([one for one in it.told if one["method"] == "notifications/tools/list_changed"])


async def test_a_call_that_its_server_has_not_taken_is_not_sent_after_its_session(pdp: RunningServer) -> None:
    """A server can be slow to read: what waits for it until the session is over waits in vain."""
    opened, reads, waiting, turn = approved(pdp), asyncio.Event(), asyncio.Event(), asyncio.Lock()
    async with conversation(pdp, handle=opened.session_handle, watched=True) as it:
        await it.ask("tools/list")
        await it.call("read")
        take = it.proxy._to_server

        async def slow(line: bytes | str) -> None:
            waiting.set()
            async with turn:
                await reads.wait()
                await take(line)

        it.proxy._to_server = slow
        request = it.request("tools/call", {"name": "read", "arguments": {"path": "/late"}})
        await it.say(request)
        await it.until(waiting.is_set)
        pdp.client("admin").revoke_sessions(session_id=opened.session.session_id, reason="to test")
        said = await it.answer(request["id"])
        reads.set()
        await it.ask("ping")

    assert "was stopped: its session is over" in text_of(said)
    assert {"read": 1} == it.server.ran


async def test_calls_at_one_time_do_not_mix(pdp: RunningServer, era: str) -> None:
    """Fifty calls in two sessions, allowed and denied: each gets its own answer, and each decision its session."""
    first, second = approved(pdp, user="alice"), approved(pdp, user="bob")
    async with (
        conversation(pdp, era, handle=first.session_handle) as one,
        conversation(pdp, era, handle=second.session_handle) as other,
    ):
        asked = [
            (it, tool, it.call(tool, {"path": f"{number}"}, f"{tool} {number}"))
            for number in range(25)
            for it, tool in ((one, "read"), (other, "write" if number % 2 else "read"))
        ]
        said = await asyncio.gather(*(asking for *_, asking in asked))

    for number, ((_, tool, _), answer) in enumerate(zip(asked, said, strict=True)):
        assert f"{tool} {number // 2}" == answer["id"]
        text = answer["result"]["content"][0]["text"]
        wanted = f'ran read with {{"path": "{number // 2}"}}' if tool == "read" else "Denied (default_deny)"
        assert text.startswith(wanted)
    assert ({"read": 25}, {"read": 13}) == (one.server.ran, other.server.ran)
    sessions = {record["session_id"]: record["user"] for record in pdp.evidence.decision_records}
    assert ("alice", "bob") == (sessions[first.session.session_id], sessions[second.session.session_id])


async def test_a_repeated_call_is_a_new_decision(pdp: RunningServer) -> None:
    """A client that asks again has another decision."""
    async with conversation(pdp) as it:
        said = [await it.call("write", {"path": "/a"}) for _ in range(2)]

    decisions = {one["result"]["_meta"]["agent-pdp/decision"]["decision_id"] for one in said}
    assert 2 == len(decisions)


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("meta", "joined"),
    [
        ({"traceparent": TRACE}, True),
        ({"traceparent": TRACE, "tracestate": "a=b"}, True),
        ({"traceparent": TRACE, "tracestate": "a\nb=\u00e9"}, True),
        ({}, False),
        ({"traceparent": ""}, False),
        ({"traceparent": TRACE.upper()}, False),
        ({"traceparent": TRACE + "\r\nauthorization: x"}, False),
        ({"traceparent": "00-" + "0" * 32 + "-b7ad6b7169203331-01"}, False),
        ({"traceparent": 7, "tracestate": []}, False),
    ],
)
async def test_a_decision_joins_the_trace_of_its_call(pdp: RunningServer, meta: dict[str, Any], joined: bool) -> None:  # noqa: FBT001 - a column
    """A trace that is malformed is a new one, and never a reason to deny."""
    async with conversation(pdp) as it:
        said = await it.ask("tools/call", {"name": "read", "_meta": meta})

    assert said["result"]["isError"] is False
    assert joined is (pdp.evidence.decision_records[-1]["trace_id"] == TRACE.split("-")[1])


PEOPLE = [{"name": "ann", "email": "ann@example.com"}, {"name": "bo", "email": "bo@example.com"}]


def people(**more: Any) -> dict[str, Any]:
    """Return a result with what must be redacted."""
    return {"content": [{"type": "text", "text": json.dumps(PEOPLE)}], "isError": False, **more}


async def test_a_field_is_redacted(pdp: RunningServer, era: str) -> None:
    """The client gets the rest; in the era without a handshake still a result that says that it is complete."""
    server = ToolServer()
    server.results["people"] = people(structuredContent={"result": PEOPLE}, _meta={"note": "ann@example.com"})

    async with conversation(pdp, era, server=server) as it:
        said = await it.call("people")

    assert b"example.com" not in b"".join(it.seen)
    shown = [{"name": "ann", "email": "[redacted]"}, {"name": "bo", "email": "[redacted]"}]
    assert {"result": shown} == said["result"]["structuredContent"]
    assert shown == json.loads(said["result"]["content"][0]["text"])
    assert ("resultType" in said["result"]) is (era == "2026-07-28")


async def test_what_is_said_beside_a_redacted_result_has_no_text(pdp: RunningServer) -> None:
    """Progress goes on as numbers, log messages do not: their texts could hold what a result must not show."""
    step: dict[str, Any] = {"progressToken": "p", "progress": 1, "total": 2.0}
    says = [
        {"jsonrpc": "2.0", "method": "notifications/progress", "params": {**step, "message": "ann@example.com"}},
        {"jsonrpc": "2.0", "method": "notifications/progress", "params": {**step, "total": "ann@example.com"}},
        {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "ann@example.com"}},
        {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "file:///open"}},
    ]
    server = ToolServer()
    server.results["people"] = people()
    server.reactions["tools/call"] = lambda one: [
        *(json.dumps(said).encode() for said in says),
        server.answer(one, server.result_of(one)),
    ]

    async with conversation(pdp, server=server) as it:
        await it.call("read")
        before = list(it.told)
        await it.call("people")

    assert says == before
    without_total = {"progressToken": "p", "progress": 1}
    shown = [{**says[0], "params": step}, {**says[1], "params": without_total}, says[3]]
    assert shown == it.told[len(says) :]


async def test_a_server_asks_with_no_text_beside_a_redacted_result(pdp: RunningServer) -> None:
    """What it asks a person or a model could hold it too, whatever the operator lets pass."""
    methods, server = ["elicitation/create", "sampling/createMessage", "roots/list"], ToolServer()
    server.results["people"] = people()

    def asking(call: Any) -> list[bytes]:
        asks = [{"jsonrpc": "2.0", "id": f"{call['id']}-{one}", "method": one, "params": {}} for one in methods]
        return [*(json.dumps(one).encode() for one in asks), server.answer(call, server.result_of(call))]

    server.reactions["tools/call"] = asking
    async with conversation(pdp, server=server, passes=methods) as it:
        await it.call("read")
        await it.call("people")
        await it.until(lambda: sum(b"is not let pass" in line for line in server.lines) == 2)

    assert [*methods, "roots/list"] == [one["method"] for one in it.told]


@pytest.mark.parametrize(
    "answer",
    [
        {"result": {"content": [{"type": "text", "text": "ann@example.com"}]}},
        {"result": {"content": [{"type": "image", "data": "YW5uQGV4YW1wbGUuY29t", "mimeType": "image/png"}]}},
        {"result": {"note": "ann@example.com"}},
        {"result": ["ann@example.com"]},
        {"error": {"code": 1, "message": "ann@example.com"}},
        {"error": {"code": 1, "message": "", "data": ["ann@example.com"]}},
    ],
)
async def test_what_cannot_be_redacted_is_withheld(pdp: RunningServer, answer: dict[str, Any]) -> None:
    """Another shape, another kind of content, or an error: nothing of it is shown."""
    server = ToolServer()
    server.reactions["tools/call"] = lambda one: [json.dumps({"jsonrpc": "2.0", "id": one["id"], **answer}).encode()]

    async with conversation(pdp, server=server) as it:
        said = await it.call("people")

    assert text_of(said).startswith("The call of `files/people` was made, and its result is withheld: ")
    assert b"example.com" not in b"".join(it.seen)
    assert {"people": 1} == server.ran


@pytest.fixture(scope="module")
def of_an_object() -> Iterator[RunningServer]:
    """Return a PDP by whose rule a field of one object is redacted."""
    with running_server(
        bundle_files(
            policies={"files": POLICIES["files"].replace("[].email", "email")},
            tools={"files": [*TOOLS, *METHODS]},
            overlays={"files": OVERLAY},
            directory=DIRECTORY,
        )
    ) as server:
        yield server


@pytest.mark.parametrize(
    "result",
    [
        {"content": [{"type": "text", "text": "ann@example.com"}], "more": 1},
        {"content": [], "note": "ann@example.com"},
        {"content": "ann@example.com"},
        {"structuredContent": "ann@example.com"},
        {"toolResult": "ann@example.com"},
        {"task": {"taskId": "1", "statusMessage": "ann@example.com"}},
        {"resultType": "input_required", "requestState": "ann@example.com"},
        {
            "resultType": "input_required",
            "inputRequests": {"a": {"method": "elicitation/create", "params": {"message": "Is it ann@example.com?"}}},
        },
    ],
)
async def test_what_has_no_fields_is_withheld(of_an_object: RunningServer, era: str, result: dict[str, Any]) -> None:
    """A text that is no JSON names no field; in a result of another form it would pass."""
    server = ToolServer()
    server.results["people"] = result

    async with conversation(of_an_object, era, server=server, passes=("elicitation/create",)) as it:
        said = await it.call("people")

    assert "its result is withheld" in text_of(said)
    assert b"example.com" not in b"".join(it.seen)


@pytest.mark.parametrize(
    "answer",
    [
        {"result": {"content": [{"type": "text", "text": "x" * 300}]}},
        {"result": {"anything": "x" * 300}},
        {"error": {"code": 1, "message": "x" * 300}},
    ],
)
async def test_what_is_too_large_is_withheld(pdp: RunningServer, answer: dict[str, Any]) -> None:
    """Also an error: a server could say anything in one."""
    server = ToolServer()
    server.reactions["tools/call"] = lambda one: [json.dumps({"jsonrpc": "2.0", "id": one["id"], **answer}).encode()]

    async with conversation(pdp, server=server) as it:
        said = await it.call("large")

    assert "at most 200 may be handed on: ask for less" in text_of(said)
    assert b"xxx" not in b"".join(it.seen)


async def test_what_is_small_enough_stays_as_it_was_written(pdp: RunningServer) -> None:
    """A bound changes nothing of what is within it."""
    server = ToolServer()
    line = '{"id":"it","result":{ "content" : [], "n":1.0 , "é":"\\u00e9"},"jsonrpc":"2.0"}'.encode()
    server.reactions["tools/call"] = lambda _: [line]

    async with conversation(pdp, server=server) as it:
        await it.call("large", number="it")

    assert line == it.seen[-1]


@pytest.mark.parametrize(
    ("method", "params", "outcome"),
    [
        ("resources/read", {"uri": "file:///open"}, Outcome.ALLOW),
        ("resources/read", {"uri": "file:///secret"}, Outcome.DENY),
        ("prompts/get", {"name": "review", "arguments": {"a": "1"}}, Outcome.ALLOW),
        ("completion/complete", {"ref": {}, "argument": {}}, Outcome.DENY),
    ],
)
async def test_content_is_asked_for_as_a_tool(
    pdp: RunningServer, era: str, method: str, params: dict[str, Any], outcome: Outcome
) -> None:
    """Each method that brings content is an action of the catalogue, or denied."""
    async with conversation(pdp, era) as it:
        said = await it.ask(method, params)
        record = pdp.evidence.decision_records[-1]

    assert (f"files/{method}", outcome.value) == (f"{record['server']}/{record['tool']}", record["outcome"])
    assert (outcome is Outcome.ALLOW) is ("result" in said)
    assert int(outcome is Outcome.ALLOW) == it.server.ran[method]
    if outcome is Outcome.DENY:
        assert -31001 == said["error"]["code"]
        assert record["id"] == said["error"]["data"]["agent-pdp/decision"]["decision_id"]


async def test_progress_is_not_held_back(pdp: RunningServer) -> None:
    """What the server tells of a call reaches the client before its answer, as it is written."""
    server = ToolServer()
    told = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1.0}}'
    server.reactions["tools/call"] = lambda _: [told]

    async with conversation(pdp, server=server) as it:
        request = it.request("tools/call", {"name": "read", "_meta": {"progressToken": 1}})
        await it.say(request)
        await it.line(lambda one: one.get("method") == "notifications/progress")
        before = list(it.seen)
        await it.write(server.answer(request, server.result_of(request)))
        await it.answer(request["id"])

    assert told == before[-1]
