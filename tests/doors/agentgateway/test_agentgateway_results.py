"""What agentgateway is told about results."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

import pytest

from pdp.doors.agentgateway import exchanges
from pdp.doors.agentgateway.extmcp_pb2 import ResponseAnswer, ResponseQuestion
from pdp.doors.agentgateway.targets import Prefix
from pdp.testing.inprocess import RunningServer, running_server
from tests.doors.agentgateway.desk import DeskTarget
from tests.doors.agentgateway.gateway import EXPRESSIONS, Gateway, door_of, session
from tests.doors.conformance import opened
from tests.doors.desk import PEOPLE, files

VISIBLE = {"note", "pay", "people", "access", "big"}
CALL = {"tools/call": "full", "tools/list": "full"}


def names(answer: dict[str, Any]) -> set[str]:
    """Return the names in a list of tools."""
    return {one["name"] for one in answer["result"]["tools"]}


def asked(gateway: Gateway, question: ResponseQuestion) -> ResponseAnswer:
    """Ask a question as it is."""
    answer: ResponseAnswer = gateway.response(question, timeout=60)
    gateway.shown.append(str(answer))
    return answer


def test_a_list_shows_what_the_session_can_see(gateway: Gateway, handle: str) -> None:
    """Each entry as it was."""
    told = gateway.send(handle, "tools/list")

    assert names(told) == VISIBLE
    assert all("properties" in one["inputSchema"] for one in told["result"]["tools"])


def test_a_list_can_be_filtered_without_a_question_before_it(desk_door: str, desk: DeskTarget, handle: str) -> None:
    """Then the gateway's metadata has the handle."""
    methods = {"tools/list": "response"}
    with Gateway(desk_door, {"desk": desk}, methods=methods, expressions={"pdp_session": session}) as gateway:
        told = gateway.send(handle, "tools/list")
        without = gateway.send("", "tools/list")

    assert names(told) == VISIBLE
    assert "needs the handle" in without["error"]["message"]


@pytest.mark.parametrize(
    ("prefix", "targets", "expected"),
    [
        (Prefix.CONDITIONAL, {"desk": "desk", "other": "elsewhere"}, {f"desk_{name}" for name in VISIBLE}),
        (Prefix.CONDITIONAL, {"a": "desk", "b": "desk"}, {f"{one}_{name}" for one in "ab" for name in VISIBLE}),
        (Prefix.NEVER, {"desk": "desk", "other": "elsewhere"}, set()),
        (Prefix.ALWAYS, {"desk": "desk", "other": "elsewhere"}, {f"desk_{name}" for name in VISIBLE}),
    ],
)
def test_merged_names_are_mapped_and_never_split(
    server: RunningServer, handle: str, prefix: Prefix, targets: dict[str, str], expected: set[str]
) -> None:
    """A name is put together as the gateway does it, from a target of the table and a tool of the catalogue."""
    desks = dict.fromkeys(targets, DeskTarget())
    with door_of(server, targets=targets, prefix=prefix) as address, Gateway(address, desks) as gateway:
        assert expected == names(gateway.send(handle, "tools/list"))


def test_targets_whose_tools_cannot_be_told_apart_are_not_listed(server: RunningServer, handle: str) -> None:
    """`a_b_c` would be tool `c` of `a_b`, or tool `b_c` of `a`."""
    targets = {"a_b": "desk", "a": "desk"}
    with (
        door_of(server, targets=targets) as address,
        Gateway(address, dict.fromkeys(targets, DeskTarget())) as gateway,
    ):
        assert "cannot be told apart" in gateway.send(handle, "tools/list")["error"]["message"]


def test_a_merged_call_is_asked_about_by_its_own_name(server: RunningServer, handle: str) -> None:
    """The gateway names the target."""
    desk, other = DeskTarget(), DeskTarget()
    targets = {"desk": "desk", "other": "elsewhere"}
    with door_of(server, targets=targets) as address, Gateway(address, {"desk": desk, "other": other}) as gateway:
        told = [gateway.call(handle, "desk_note"), gateway.call(handle, "other_note")]

    assert [True, False] == ["result" in one for one in told]
    assert (["note"], []) == (desk.calls, other.calls)


def test_a_result_belongs_to_one_call(gateway: Gateway, handle: str) -> None:
    """A second one, one of another request, and one that nobody names are withheld."""
    gateway.call(handle, "note")
    used = gateway.contexts[-1].metadata["pdp_exchange"]
    question = ResponseQuestion(service_names=["desk"], method="tools/call", mcp_response=b'{"content":[]}')

    nameless = asked(gateway, question)
    question.metadata_context.fields["pdp_exchange"].string_value = used
    again = asked(gateway, question)

    assert ("nobody was asked" in nameless.error.reason, "nobody was asked" in again.error.reason) == (True, True)


def test_a_result_of_another_method_is_withheld(desk_door: str, desk: DeskTarget, handle: str) -> None:
    """What names the request was made for it alone."""
    with Gateway(desk_door, {"desk": desk}, methods={"tools/call": "request"}) as gateway:
        gateway.call(handle, "note")
        question = ResponseQuestion(service_names=["desk"], method="tools/list", mcp_response=b'{"tools":[]}')
        question.metadata_context.fields["pdp_exchange"].string_value = gateway.contexts[-1].metadata["pdp_exchange"]

        assert "belongs to another" in asked(gateway, question).error.reason


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"a":1,"a":2}', b'{"content":NaN}', b'\xff{"content":[]}'])
def test_a_malformed_result_is_withheld(gateway: Gateway, handle: str, raw: bytes) -> None:
    """Its call is over."""
    question = ResponseQuestion(service_names=["desk"], method="ping", mcp_response=raw)
    question.metadata_context.fields["pdp_session"].string_value = handle

    assert 3 == asked(gateway, question).error.code


@pytest.mark.parametrize(
    "result",
    [
        {"resultType": "task", "taskId": "t1"},
        {"resultType": "input_required", "inputRequests": {"a": {"method": "sampling/createMessage"}}},
    ],
)
def test_what_the_server_may_not_ask_is_withheld(
    gateway: Gateway, desk: DeskTarget, handle: str, result: dict[str, Any]
) -> None:
    """The call was made, and the model is told so by a result."""
    desk.answers = result

    told = gateway.call(handle, "note")

    assert told["result"]["isError"]
    assert "its result is withheld" in told["result"]["content"][0]["text"]
    assert "taskId" not in str(told)


def test_parts_of_a_result_are_redacted(desk_door: str, handle: str) -> None:
    """The rest stays, and the result says that it is complete where it said so."""
    desk = DeskTarget()
    desk.answers = {"content": [{"type": "text", "text": PEOPLE}], "resultType": "complete"}
    with Gateway(desk_door, {"desk": desk}) as gateway:
        result = gateway.call(handle, "people")["result"]

    assert [{"name": "Ann", "email": "[redacted]"}] == json.loads(result["content"][0]["text"])
    assert "complete" == result["resultType"]


@pytest.mark.parametrize(
    ("unseen_errors", "expressions"), [(False, EXPRESSIONS), (True, {})], ids=["no word of the operator", "no names"]
)
def test_where_results_are_not_surely_seen_their_obligations_are_denies(
    server: RunningServer,
    handle: str,
    unseen_errors: bool,  # noqa: FBT001 - a row of the table
    expressions: dict[str, Any],
) -> None:
    """Unless the operator accepts errors, and the gateway names requests again. Other calls run."""
    desk = DeskTarget()
    with (
        door_of(server, unseen_errors=unseen_errors) as address,
        Gateway(address, {"desk": desk}, methods={"*": "request"}, expressions=expressions) as gateway,
    ):
        told = [gateway.call(handle, name) for name in ("people", "big", "note")]

    assert [False, False, True] == ["result" in one for one in told]
    assert ["note"] == desk.calls


def test_a_call_that_must_be_reported_is_denied_where_results_are_not_surely_seen() -> None:
    """The server is told that it was not made."""
    desk = DeskTarget()
    with running_server(files(reports=True)) as server:
        _, handle = opened(server)
        with door_of(server, unseen_errors=False) as address, Gateway(address, {"desk": desk}) as gateway:
            told = gateway.call(handle, "note")
        reported = [one["facts"]["status"] for one in server.evidence.records if one["kind"] == "call.reported"]

    assert "cannot be reported from here" in told["error"]["message"]
    assert [] == desk.got
    assert ["failed"] == reported


def test_a_call_whose_error_is_never_shown_is_reported_as_failed() -> None:
    """At the latest when the door ends: the error itself reaches the agent."""
    desk = DeskTarget()
    desk.error = "no such repository"
    with running_server(files(reports=True)) as server:
        _, handle = opened(server)
        with door_of(server) as address, Gateway(address, {"desk": desk}) as gateway:
            told = gateway.call(handle, "note")
        reported = [one["facts"]["status"] for one in server.evidence.records if one["kind"] == "call.reported"]

    assert "no such repository" == told["error"]["message"]
    assert ["failed"] == reported


def test_a_result_that_comes_too_late_is_withheld(server: RunningServer, desk: DeskTarget, handle: str) -> None:
    """Its call was reported as failed before."""
    with door_of(server, lasting=0.0) as address, Gateway(address, {"desk": desk}) as gateway:
        told = gateway.call(handle, "note")

    assert ["note"] == desk.calls
    assert "nobody was asked" in told["error"]["message"]


def test_a_flood_of_one_session_takes_no_place_of_another(server: RunningServer, desk: DeskTarget, handle: str) -> None:
    """Beyond the bound, the session with most open requests loses its own."""
    methods = {"tools/call": "full", "tools/list": "request"}
    flooding = opened(server)[1]

    def flood(method: str, params: Any, headers: Any) -> Any:
        if method == "tools/call":
            for _ in range(5):
                gateway.send(flooding, "tools/list")
        return desk(method, params, headers)

    with (
        patch.object(exchanges, "_MOST_OPEN", 2),
        door_of(server) as address,
        Gateway(address, {"desk": flood}, methods=methods) as gateway,
    ):
        told = gateway.call(handle, "note")

    assert "done" == told["result"]["content"][0]["text"]


def test_open_requests_are_bounded(server: RunningServer, desk: DeskTarget, handle: str) -> None:
    """The oldest one is forgotten first, and its result would be withheld."""
    methods = {"tools/call": "request"}
    with (
        patch.object(exchanges, "_MOST_OPEN", 1),
        door_of(server) as address,
        Gateway(address, {"desk": desk}, methods=methods) as gateway,
    ):
        answers = []
        for _ in range(2):
            gateway.call(handle, "note")
        for context in gateway.contexts:
            question = ResponseQuestion(service_names=["desk"], method="tools/call", mcp_response=b'{"content":[]}')
            question.metadata_context.fields["pdp_exchange"].string_value = context.metadata["pdp_exchange"]
            answers.append(asked(gateway, question).HasField("passed"))

    assert [False, True] == answers
