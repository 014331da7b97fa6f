"""What agentgateway is told about requests."""

from __future__ import annotations

from typing import Any

import pytest

from pdp.doors.agentgateway.extmcp_pb2 import RequestAnswer, RequestQuestion
from pdp.testing.inprocess import RunningServer, running_server
from tests.doors.agentgateway.desk import DeskTarget
from tests.doors.agentgateway.gateway import Gateway, door_of, session
from tests.doors.conformance import approve, opened
from tests.doors.desk import files

TRACE = f"00-{'a' * 32}-{'b' * 16}-01"
OTHER = f"00-{'c' * 32}-{'d' * 16}-01"


def asked(gateway: Gateway, question: RequestQuestion) -> RequestAnswer:
    """Ask a question as it is."""
    answer: RequestAnswer = gateway.request(question, timeout=60)
    gateway.shown.append(str(answer))
    return answer


def test_what_is_for_doors_alone_goes_no_further(gateway: Gateway, desk: DeskTarget, handle: str) -> None:
    """Neither in headers nor in `_meta`; all else arrives as it was."""
    meta = {"agent-pdp/session": handle, "progressToken": 7}
    gateway.send(
        handle,
        "tools/call",
        {"name": "note", "arguments": {"text": "ä"}, "_meta": meta},
        headers={"x-pdp-task": "one", "x-kept": "1"},
    )

    expected = {"name": "note", "arguments": {"text": "ä"}, "_meta": {"progressToken": 7}}
    assert [("tools/call", expected, {"x-kept": "1"})] == desk.got


def test_gateway_and_record_name_the_same_decision(gateway: Gateway, handle: str, server: RunningServer) -> None:
    """The record says besides that the arguments were the gateway's text."""
    gateway.call(handle, "note", {"text": "x"})

    record, known = server.evidence.decision_records[-1], gateway.contexts[-1].metadata
    assert (record["id"], "permit") == (known["pdp_decision_id"], known["pdp_basis"])
    assert record["request_id"].startswith("agentgateway-")


def test_a_deny_is_an_error_with_its_decision_as_data(
    gateway: Gateway, handle: str, desk: DeskTarget, server: RunningServer
) -> None:
    """The contract has no way to answer a call with a result."""
    error = gateway.call(handle, "closed")["error"]

    decision = error["data"]["agent-pdp/decision"]
    assert -32001 == error["code"]
    assert error["message"].startswith("Denied (default_deny): the call of `closed` did not run")
    assert decision["decision_id"] in error["message"]
    assert (server.evidence.decision_records[-1]["id"], "default_deny") == (
        decision["decision_id"],
        decision["basis"],
    )
    assert [] == desk.got


def test_an_approved_call_is_sent_on_once(server: RunningServer, desk_door: str, desk: DeskTarget) -> None:
    """Exactly this call, and not one with other arguments."""
    session_id, handle = opened(server)
    with Gateway(desk_door, {"desk": desk}) as gateway:
        waits = gateway.call(handle, "pay", {"amount": 5})["error"]["message"]
        approve(server, session_id)
        told = [gateway.call(handle, "pay", {"amount": amount}) for amount in (6, 5, 5)]

    assert "`pdp approvals approve acc_" in waits
    assert [False, True, False] == ["result" in one for one in told]
    assert ["pay"] == desk.calls


@pytest.mark.parametrize("name", ["unmapped", "Note", "desk/note", "desk_note", "note "])
def test_an_unknown_tool_is_a_deny(gateway: Gateway, desk: DeskTarget, handle: str, name: str) -> None:
    """Names are never changed to fit."""
    assert "Denied (unknown_tool)" in gateway.call(handle, name)["error"]["message"]
    assert [] == desk.got


def test_an_obligation_that_nobody_meets_is_a_deny(gateway: Gateway, desk: DeskTarget, handle: str) -> None:
    """The text says so."""
    assert "cannot be met here" in gateway.call(handle, "access")["error"]["message"]
    assert [] == desk.got


@pytest.mark.parametrize("handle", ["", "pdps_unknown", "a,b", "a b", "x" * 513])
def test_a_request_without_a_session_is_not_sent_on(desk_door: str, desk: DeskTarget, handle: str) -> None:
    """Whatever its method is."""
    with Gateway(desk_door, {"desk": desk}) as gateway:
        told = [gateway.call(handle, "note"), gateway.send(handle, "tools/list"), gateway.send(handle, "initialize")]

    assert [-32001] * 3 == [one["error"]["code"] for one in told]
    assert [] == desk.got


def test_a_handle_can_come_from_the_gateways_metadata(desk_door: str, desk: DeskTarget, handle: str) -> None:
    """For a gateway that shows no headers."""
    with Gateway(desk_door, {"desk": desk}, expressions={"pdp_session": session}, shows=False) as gateway:
        told = gateway.call(handle, "note")

    assert "result" not in told or [] == [name for name in desk.got[0][2] if name == "x-pdp-session"]
    assert ["note"] == desk.calls


def test_two_handles_are_none(gateway: Gateway, handle: str) -> None:
    """A header that is there twice, or one that says something else than the gateway's metadata."""
    twice = RequestQuestion(service_names=["desk"], method="ping")
    other = RequestQuestion(service_names=["desk"], method="ping")
    twice.headers.add(key="x-pdp-session", value=handle.encode())
    other.headers.add(key="x-pdp-session", value=handle.encode())
    twice.headers.add(key="X-PDP-Session", value=b"pdps_other")
    other.metadata_context.fields["pdp_session"].string_value = "pdps_other"

    assert (3, 3) == (asked(gateway, twice).error.code, asked(gateway, other).error.code)


@pytest.mark.parametrize("over", ["revoked", "ended", "expired"])
def test_a_session_that_is_over_runs_nothing(over: str) -> None:
    """The next call is denied, and so is what passes without a decision."""
    desk = DeskTarget()
    with running_server(files()) as server:
        number, handle = opened(server)
        with door_of(server) as address, Gateway(address, {"desk": desk}) as gateway:
            gateway.call(handle, "note")
            if over == "revoked":
                server.client("approver").revoke_sessions(session_id=number, reason="enough")
            elif over == "ended":
                server.client("pep").end_session(handle)
            else:
                server.clock.advance(100_000)
            assert f"session_{over}" in gateway.call(handle, "note")["error"]["message"]
            assert "not active" in gateway.send(handle, "tools/list")["error"]["message"]

    assert ["note"] == desk.calls


METHODS: dict[str, bool] = {
    "initialize": True,
    "ping": True,
    "prompts/list": True,
    "resources/list": True,
    "server/discover": True,
    "subscriptions/listen": True,
    "resources/subscribe": False,
    "tasks/get": False,
    "Tools/Call": False,
    "tools/call ": False,
    "unknown": False,
}


@pytest.mark.parametrize("method", METHODS)
def test_other_methods_pass_by_the_table(gateway: Gateway, desk: DeskTarget, handle: str, method: str) -> None:
    """What the table does not have is denied, and the handle reaches no target."""
    gateway.send(handle, method)

    assert METHODS[method] is bool(desk.got)
    assert [{}] * len(desk.got) == [headers for _, _, headers in desk.got]


def test_an_operator_may_let_a_method_pass(server: RunningServer, handle: str, desk: DeskTarget) -> None:
    """By its name."""
    with (
        door_of(server, passes=frozenset({"resources/subscribe"})) as address,
        Gateway(address, {"desk": desk}) as gateway,
    ):
        gateway.send(handle, "resources/subscribe", {"uri": "file:///a"})

    assert 1 == len(desk.got)


@pytest.mark.parametrize(("method", "member"), [("resources/read", "uri"), ("prompts/get", "name")])
def test_content_is_asked_about(gateway: Gateway, desk: DeskTarget, handle: str, method: str, member: str) -> None:
    """The desk has no such tool, so it is denied."""
    assert "unknown_tool" in gateway.send(handle, method, {member: "a"})["error"]["message"]
    assert [] == desk.got


def test_content_that_the_gateway_does_not_ask_about_is_withheld(desk_door: str, desk: DeskTarget, handle: str) -> None:
    """`completion/complete` has no phase before it runs: what it brings goes no further, but its headers did."""
    desk.answers = {"completion": {"values": ["secret"]}}
    with Gateway(desk_door, {"desk": desk}) as gateway:
        told = gateway.send(handle, "completion/complete", {"ref": {"type": "ref/prompt", "name": "a"}, "name": "desk"})

    assert "nobody was asked" in told["error"]["message"]
    assert "secret" not in str(told)


@pytest.mark.parametrize("services", [[], ["other"], ["Desk"], ["desk", "other"], ["desk", "desk"]])
def test_a_call_has_one_target_that_the_door_knows(gateway: Gateway, handle: str, services: list[str]) -> None:
    """Nothing that the agent sends can name another."""
    question = RequestQuestion(service_names=services, method="tools/call", mcp_request=b'{"name":"note"}')
    question.headers.add(key="x-pdp-session", value=handle.encode())

    assert asked(gateway, question).HasField("error")


BODIES: dict[str, bytes] = {
    "empty": b"",
    "broken": b'{"name":"note"',
    "a list": b'[{"name":"note"}]',
    "more after it": b'{"name":"note"},"method":"ping","x":{}',
    "UTF-16": '{"name":"note"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"name":"note"}',
    "no UTF-8": b'{"name":"note","arguments":{"text":"\xff"}}',
    "`name` twice": b'{"name":"closed","name":"note"}',
    "`Name` beside": b'{"Name":"closed","name":"note"}',
    "a key of an argument twice": b'{"name":"note","arguments":{"text":"a","text":"b"}}',
    "NaN": b'{"name":"note","arguments":{"value":NaN}}',
    "a lone surrogate": b'{"name":"note","arguments":{"text":"\\ud800"}}',
    "depth 300": b'{"name":"note","arguments":{"value":' + b"[" * 300 + b"]" * 300 + b"}}",
    "no name": b"{}",
    "a name that is none": b'{"name":["note"]}',
    "arguments that are none": b'{"name":"note","arguments":[]}',
    "a task": b'{"name":"note","task":{}}',
    "a method as its name": b'{"name":"resources/read"}',
}


@pytest.mark.parametrize("name", BODIES)
def test_malformed_parameters_are_not_sent_on(gateway: Gateway, desk: DeskTarget, handle: str, name: str) -> None:
    """The next call runs."""
    question = RequestQuestion(service_names=["desk"], method="tools/call", mcp_request=BODIES[name])
    question.headers.add(key="x-pdp-session", value=handle.encode())

    answer = asked(gateway, question)
    gateway.call(handle, "note")

    assert 3 == answer.error.code
    assert ["note"] == desk.calls


def test_a_call_without_parameters_is_not_sent_on(gateway: Gateway, handle: str) -> None:
    """As the gateway asks about a list."""
    question = RequestQuestion(service_names=["desk"], method="tools/call")
    question.headers.add(key="x-pdp-session", value=handle.encode())

    assert 3 == asked(gateway, question).error.code


@pytest.mark.parametrize(
    ("inside", "around", "joins"),
    [(TRACE, "", TRACE), (TRACE, OTHER, TRACE), ("", OTHER, OTHER), ("broken", OTHER, OTHER), ([TRACE], OTHER, OTHER)],
)
def test_a_decision_joins_the_agents_trace(
    gateway: Gateway, server: RunningServer, handle: str, inside: Any, around: str, joins: str
) -> None:
    """That of the message if it is valid, else that of the gateway."""
    params = {"name": "note", "arguments": {}, "_meta": {"traceparent": inside}}
    gateway.send(handle, "tools/call", params, trace={"traceparent": around} if around else {})

    assert joins.split("-")[1] == server.evidence.decision_records[-1]["trace_id"]
