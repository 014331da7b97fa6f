"""Whatever is wrong with the PDP, with the door or with the question, nothing is sent or handed on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest

from pdp.doors.agentgateway import door as module
from pdp.doors.agentgateway.extmcp_pb2 import RequestQuestion, ResponseQuestion
from pdp.doors.mcp.messages import MOST_BYTES
from pdp.observer import Refusal
from pdp.v1.decision_pb2 import Decision
from tests.doors.agentgateway.desk import DeskTarget
from tests.doors.agentgateway.gateway import Gateway, door
from tests.doors.loop import SECONDS, little_of_the_time
from tests.doors.noting import Noted
from tests.machinery.servers.scripted import ScriptedServer, fitting_allow

HANDLE = "pdps_secret"


@pytest.fixture
def lying() -> Iterator[ScriptedServer]:
    """Return a PDP that answers as a test says."""
    server = ScriptedServer()
    yield server
    server.stop()


def test_a_pdp_that_is_away_denies() -> None:
    """With an error that says to try again, not with a deny."""
    desk, noted = DeskTarget(), Noted()
    with (
        door("127.0.0.1:1", "sesame", timeout=5.0, observer=noted) as address,
        Gateway(address, {"desk": desk}) as gateway,
    ):
        told = [gateway.call(HANDLE, "note"), gateway.send(HANDLE, "tools/list")]

    assert [-32603] * 2 == [one["error"]["code"] for one in told]
    assert all("Try again later" in one["error"]["message"] for one in told)
    assert [] == desk.got
    assert [("tools/call", "undecided", "undecided")] == noted.shown
    assert [Refusal.UNDECIDED] == noted.reasons


def test_the_door_answers_before_the_gateway_stops_waiting(lying: ScriptedServer) -> None:
    """So that the model is told; the door answers the next question."""
    lying.decide = lambda asked, _: fitting_allow(asked) if lying.released.wait(2 * SECONDS) else Decision()
    noted = Noted()
    with (
        door(lying.start(), "sesame", observer=noted) as address,
        Gateway(address, {"desk": DeskTarget()}) as gateway,
    ):
        question = RequestQuestion(service_names=["desk"], method="tools/call", mcp_request=b'{"name":"note"}')
        question.headers.add(key="x-pdp-session", value=HANDLE.encode())
        with little_of_the_time():
            late = gateway.request(question, timeout=SECONDS)
        lying.released.set()
        told = gateway.call(HANDLE, "note")

    assert "Try again later" in late.error.reason
    assert "result" in told
    assert [("tools/call", "undecided", "undecided"), ("tools/call note", "allow", "")] == noted.shown


def test_the_arguments_are_asked_about_as_the_gateway_writes_them(lying: ScriptedServer) -> None:
    """Byte for byte, with every number and blank."""
    arguments = b'{ "value" : [1, 1.0, 9007199254740993, 123456789012345678901234567890, -0], "text":"\\u00e9\xc3\xa9"}'
    question = RequestQuestion(service_names=["desk"], method="tools/call")
    question.mcp_request = b'{"name":"note", "arguments":' + arguments + b"}"
    question.headers.add(key="x-pdp-session", value=HANDLE.encode())
    with door(lying.start(), "sesame") as address, Gateway(address, {}) as gateway:
        answer = gateway.request(question)

    assert answer.HasField("passed")
    assert [arguments] == [one.call.arguments_json for one in lying.sent("Authorize")]


def test_a_fault_of_the_door_denies(
    gateway: Gateway, desk: DeskTarget, handle: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its text is neither shown nor logged."""

    def broken(*_: Any) -> Any:
        raise ValueError("the secret plan")

    caplog.set_level(logging.DEBUG)
    with patch.object(module, "question", broken):
        told = gateway.call(handle, "note")
    with patch.object(module, "problem_of", broken):
        gateway.send(handle, "ping")

    assert -32603 == told["error"]["code"]
    assert [] == desk.calls
    assert "secret plan" not in "".join([caplog.text, *gateway.shown])
    assert "result" not in gateway.shown[-1]


@pytest.mark.parametrize("question", [RequestQuestion(), RequestQuestion(method="tools/call", mcp_request=b"{}")])
def test_a_question_without_content_is_a_deny(gateway: Gateway, question: RequestQuestion) -> None:
    """As of a gateway of another kind."""
    assert gateway.request(question).HasField("error")


def test_an_answer_without_content_is_withheld(gateway: Gateway) -> None:
    """The same, about a result."""
    assert gateway.response(ResponseQuestion()).HasField("error")


def test_a_question_that_is_too_large_is_no_question(gateway: Gateway, desk: DeskTarget, handle: str) -> None:
    """It is refused before it is read, and the gateway fails closed."""
    told = gateway.call(handle, "note", {"text": "x" * (MOST_BYTES + 1024 * 1024)})

    assert -32603 == told["error"]["code"]
    assert [] == desk.calls
