"""Whatever is wrong with the PDP, with the door or with the question, nothing is sent on that was not allowed."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest

from pdp.doors import grpcport, refusals
from pdp.doors.envoy import mcprequests
from pdp.doors.envoy.extauthz_pb2 import CheckRequest, CheckResponse
from pdp.doors.grpcport import Method
from pdp.doors.mcp.messages import Message
from pdp.observer import Refusal
from pdp.serving import grpcoptions
from pdp.serving.http2.bounds import Times
from pdp.testing.inprocess import RunningServer
from pdp.v1 import decision_pb2
from pdp.v1.authorization_pb2 import ListToolsResponse
from pdp.v1.decision_pb2 import Decision
from tests.doors.envoy.asker import Asker, call, door, opened, request
from tests.doors.loop import SECONDS, little_of_the_time
from tests.doors.noting import Noted
from tests.machinery.servers.scripted import ScriptedServer, fitting_allow

NO_DECISION = refusals.UNDECIDED
HANDLE = "pdps_secret"


@pytest.fixture
def lying() -> Iterator[ScriptedServer]:
    """Return a PDP that answers as a test says."""
    server = ScriptedServer()
    yield server
    server.stop()


def test_a_pdp_that_is_away_denies() -> None:
    """A call is answered with a result, and everything else with 503."""
    noted = Noted()
    with door(None, HANDLE, address="127.0.0.1:1", timeout=5.0, observer=noted) as asker:
        assert asker.post(call("note")).shown == NO_DECISION
        assert 503 == asker.post(request("tools/list")).status
        assert 503 == asker.http("GET", "/mcp", headers={"mcp-session-id": "s1"}).status
        assert [] == asker.ran
    assert [("tools/call", "undecided", "undecided")] == noted.shown
    assert [Refusal.UNDECIDED] * 2 == noted.reasons


def test_a_slow_pdp_denies_in_time(lying: ScriptedServer) -> None:
    """Its late answer changes nothing."""

    def late(asked: Any, _: Any) -> Decision:
        # For longer than who asks waits for the door.
        lying.released.wait(2 * SECONDS)
        return fitting_allow(asked)

    lying.decide = late
    with door(None, HANDLE, address=lying.start(), timeout=0.3) as asker:
        told = asker.post(call("note"))
        assert told.shown == NO_DECISION
        lying.released.set()
        assert [] == asker.ran


def test_the_door_answers_before_envoy_stops_waiting(lying: ScriptedServer) -> None:
    """So that the model is told; the door answers the next question."""
    lying.decide = lambda asked, _: fitting_allow(asked) if lying.released.wait(2 * SECONDS) else Decision()
    noted = Noted()
    with door(None, HANDLE, address=lying.start(), observer=noted) as asker:
        with little_of_the_time():
            told = asker.http("POST", "/mcp", call("note"))
        assert NO_DECISION == told.shown
        lying.released.set()
        assert asker.post(call("note")).allowed
    assert [("tools/call", "undecided", "undecided"), ("tools/call note", "allow", "")] == noted.shown


def test_what_is_no_call_is_answered_in_time_too(lying: ScriptedServer) -> None:
    """A list, a notification, and the stream of a session of MCP."""
    lying.scripts["ListTools"] = lambda *_: lying.released.wait(SECONDS / 6) or ListToolsResponse()
    noted = Noted()
    with door(None, HANDLE, address=lying.start(), observer=noted) as asker, little_of_the_time():
        told = [
            asker.post(request("tools/list")),
            asker.post(b'{"jsonrpc": "2.0", "method": "notifications/initialized"}'),
            asker.http("GET", "/mcp", headers={"mcp-session-id": "s1"}),
        ]
        lying.released.set()

    assert [503] * 3 == [one.status for one in told]
    assert [Refusal.UNDECIDED] * 3 == noted.reasons


@pytest.mark.parametrize(("waits", "patience"), [(10.0, 8.0), (None, None)])
def test_a_fifth_of_the_time_is_for_the_answer(waits: float | None, patience: float | None) -> None:
    """Whoever waits for ever is answered when there is an answer."""
    told: list[float | None] = []

    async def answer(_: Any, __: Any, given: float | None) -> CheckResponse:
        told.append(given)
        return CheckResponse()

    context = SimpleNamespace(invocation_metadata=tuple, time_remaining=lambda: waits)
    asyncio.run(Method(question=CheckRequest, answer=answer).answered(b"", context))

    assert [patience] == told


LIES: dict[str, Callable[[Decision], Any]] = {
    "another tool": lambda said: setattr(said, "tool", "closed"),
    "another server": lambda said: setattr(said, "server", "elsewhere"),
    "other arguments": lambda said: setattr(said, "arguments_digest", "sha256:0"),
    "no outcome": lambda said: setattr(said, "outcome", decision_pb2.OUTCOME_UNSPECIFIED),
    "an unknown outcome": lambda said: setattr(said, "outcome", 9),
    "an unknown obligation": lambda said: said.obligations.add(id="wash_hands", parameters_json=b"{}"),
    "an obligation about the result": lambda said: said.obligations.add(
        id="max_result_bytes", parameters_json=b'{"bytes": 1000}'
    ),
    "a notice": lambda said: said.obligations.add(id="notice", parameters_json=b'{"text": "hello"}'),
}


@pytest.mark.parametrize("name", LIES)
def test_an_answer_that_does_not_fit_denies(lying: ScriptedServer, name: str) -> None:
    """One about another call, with an unknown outcome, or with an obligation."""

    def lie(asked: Any, _: Any) -> Decision:
        said = fitting_allow(asked)
        LIES[name](said)
        return said

    lying.decide = lie
    with door(None, HANDLE, address=lying.start()) as asker:
        assert "did not run" in asker.post(call("note")).shown
        assert [] == asker.ran


def test_the_arguments_are_asked_about_as_they_are_written(lying: ScriptedServer) -> None:
    """Byte for byte, with every number and blank."""
    arguments = (
        b'{ "value" : [1, 1.0, 9007199254740993, 123456789012345678901234567890, -0], "text":"\\u00e9\xf0\x9f\x98\x80"}'
    )
    with door(None, HANDLE, address=lying.start()) as asker:
        asker.post(call("note").replace(b"{}", arguments))

    assert [arguments] == [one.call.arguments_json for one in lying.sent("Authorize")]


def test_a_fault_of_the_door_denies(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its text is neither shown nor logged."""

    def broken(*_: Any) -> Any:
        raise ValueError("the secret plan")

    caplog.set_level(logging.DEBUG)
    _, handle = opened(server)
    with door(server, handle) as asker:
        with patch.object(mcprequests, "question", broken):
            assert NO_DECISION == asker.post(call("note")).shown
        monkeypatch.setattr(Message, "read", broken)
        assert 500 == asker.post(call("note")).status

    assert [] == asker.ran
    assert "secret plan" not in "".join([caplog.text, *asker.shown])


@pytest.mark.parametrize("question", [CheckRequest(), CheckRequest(attributes={"context_extensions": {"server": "d"}})])
def test_a_question_without_a_request_is_a_deny(envoy: Asker, question: CheckRequest) -> None:
    """As of another protocol than HTTP."""
    assert not envoy.ask(question).allowed


def test_a_body_that_comes_as_text_is_refused(envoy: Asker) -> None:
    """Envoy may have changed it, so it is not what would run."""
    question = CheckRequest()
    seen = question.attributes.request.http
    seen.method, seen.body = "POST", call("note").decode()
    seen.headers.update({"content-type": "application/json", "x-pdp-session": envoy.handle})
    question.attributes.context_extensions["server"] = "desk"

    assert 400 == envoy.ask(question).status


@pytest.mark.parametrize(
    ("where", "name", "bound"), [(grpcoptions, "_TIMES", Times(handshake=0.2)), (grpcport, "_MOST_CONNECTIONS", 1)]
)
def test_a_connection_that_says_nothing_holds_no_place(where: Any, name: str, bound: Any) -> None:
    """It is closed after a while, and at once where there are too many."""
    with (
        patch.object(where, name, bound),
        door(None, HANDLE, address="127.0.0.1:1", timeout=5.0) as asker,
    ):
        assert asker.post(call("note")).shown == NO_DECISION
        host, _, port = asker.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=SECONDS / 10) as silent, suppress(ConnectionError):
            while silent.recv(4096):
                pass
        assert asker.post(call("note")).shown == NO_DECISION
