"""What the door of AuthZEN tells its observer of calls, and of requests that it refuses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pdp.observer import Refusal
from pdp.testing.inprocess import RunningServer
from tests.doors.authzen.gateway import EVALUATION, EVALUATIONS, Gateway, call_of, door, opened
from tests.doors.noting import AGENTS, Noted


@pytest.fixture(scope="module")
def watched(server: RunningServer) -> Iterator[tuple[Gateway, Noted]]:
    """Return a gateway in a session, and the observer of the door."""
    noted = Noted()
    with door(server, opened(server, "desk/*")[1], observer=noted) as gateway:
        yield gateway, noted


@pytest.fixture
def asking(watched: tuple[Gateway, Noted]) -> Gateway:
    """Return the gateway."""
    return watched[0]


@pytest.fixture
def noted(watched: tuple[Gateway, Noted]) -> Noted:
    """Return the observer, which has been told nothing yet."""
    return watched[1].anew()


@pytest.mark.parametrize(("header", "parent"), [(AGENTS, AGENTS), ("00-evil", ""), ("", "")])
def test_a_call_is_between_the_caller_and_the_decision(
    asking: Gateway, noted: Noted, server: RunningServer, header: str, parent: str
) -> None:
    """Below the span of the header `traceparent`."""
    asking.post(EVALUATION, call_of("desk/note"), traceparent=header)

    noted.require_between(parent, "", server)


def test_each_outcome_is_told(asking: Gateway, noted: Noted) -> None:
    """Of every question of a request; no argument and no handle is, and of a tool that is none not even its id."""
    number = {"amount": 734_211}
    for name in ("desk/note", "desk/closed", "desk/pay", "record-734211"):
        asking.call(name, number, tool_call_id="call_7")
    asking.call("desk/note", number, user="bob")
    asking.post(EVALUATION, call_of("desk/note", number), x_pdp_session="")
    asking.post(EVALUATIONS, {**call_of("desk/note", number), "evaluations": [{}, {"context": {}}]})

    assert noted.shown == [
        ("execute_tool note", "allow", ""),
        ("execute_tool", "deny", ""),
        ("execute_tool", "waiting", ""),
        ("execute_tool", "deny", ""),
        ("execute_tool", "deny", ""),
        ("execute_tool", "deny", ""),
        ("execute_tool note", "allow", ""),
        ("execute_tool note", "allow", ""),
    ]
    assert [] == noted.reasons
    assert ("desk", "note", "alice", "call_7") == (
        *(noted.spans[0].attributes[name] for name in ("pdp.server", "gen_ai.tool.name", "enduser.id")),
        noted.spans[0].attributes["gen_ai.tool.call.id"],
    )
    noted.require_nothing_of(asking.handle, asking.token, "734211")


def test_requests_that_are_no_calls_are_counted_by_why_they_are_refused(asking: Gateway, noted: Noted) -> None:
    """Each once, and among several questions each faulty one."""
    asking.post(EVALUATION, b"{")
    asking.post(EVALUATIONS, {**call_of("desk/note"), "evaluations": [{"context": 7}]})
    asking.post(EVALUATION, call_of("desk/note"), authorization="")
    asking.post(EVALUATION, call_of("desk/note"), host="elsewhere.example")
    asking.post("/access/v1/search", {})
    asking.get(EVALUATION)
    asking.get("/access/v1/requests/acc_none")

    assert noted.reasons == [
        Refusal.MALFORMED,
        Refusal.MALFORMED,
        Refusal.CREDENTIAL,
        Refusal.PLACE,
        Refusal.PLACE,
        Refusal.METHOD,
        Refusal.OTHER,
    ]
    assert [] == noted.calls
