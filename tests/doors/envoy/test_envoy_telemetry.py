"""What the door of Envoy tells its observer of calls, and of requests that it refuses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pdp.doors.envoy.tables import read_tables
from pdp.observer import Refusal
from pdp.testing.inprocess import RunningServer
from tests.doors.envoy.asker import ROUTE, TABLE, Asker, call, door, opened, request
from tests.doors.noting import CARRIED, Noted


@pytest.fixture(scope="module")
def watched(
    server: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Asker, Noted, RunningServer]]:
    """Return what asks in a session, and the observer of the door."""
    file = tmp_path_factory.mktemp("tables") / "tables.yaml"
    file.write_text(TABLE, encoding="utf-8")
    noted = Noted()
    with door(server, opened(server)[1], tables=read_tables(file), observer=noted) as asker:
        yield asker, noted, server


@pytest.fixture
def asker(watched: tuple[Asker, Noted, RunningServer]) -> Asker:
    """Return what asks."""
    return watched[0]


@pytest.fixture
def noted(watched: tuple[Asker, Noted, RunningServer]) -> Noted:
    """Return the observer, which has been told nothing yet."""
    return watched[1].anew()


@pytest.mark.parametrize(("carried", "parent", "linked"), CARRIED)
def test_a_call_is_between_the_agent_and_the_decision(
    asker: Asker, noted: Noted, server: RunningServer, carried: tuple[str, str, str], parent: str, linked: str
) -> None:
    """Below the span that the message names, or else Envoy's own, or else that of the request's header."""
    inside, envoys, header = carried
    metadata = {"traceparent": envoys} if envoys else {}
    body = call("note", {"text": "hello"}, _meta={"traceparent": inside})
    told = asker.http("POST", "/mcp", body, {"traceparent": header}, metadata=metadata)

    assert told.allowed
    noted.require_between(parent, linked, server)


def test_each_outcome_is_told(asker: Asker, noted: Noted) -> None:
    """Of messages of MCP, and of requests by a table; no argument and no handle is."""
    for name in ("note", "closed", "pay"):
        asker.post(call(name, {"amount": 734_211}))
    asker.post(call("note", [734_211]))
    asker.post(call("note", {"amount": 734_211}), x_pdp_session="")
    asker.http("GET", "/notes/734211", route=ROUTE)
    asker.http("GET", "/closed", route=ROUTE)

    assert noted.shown == [
        ("tools/call note", "allow", ""),
        ("tools/call", "deny", ""),
        ("tools/call", "waiting", ""),
        ("tools/call", "refused", ""),
        ("tools/call", "deny", ""),
        ("execute_tool note", "allow", ""),
        ("execute_tool", "deny", ""),
    ]
    assert [] == noted.reasons
    noted.require_nothing_of(asker.handle, "734211")


def test_a_call_names_its_decision(asker: Asker, noted: Noted, server: RunningServer) -> None:
    """User, agent and session are together on its span."""
    told = asker.post(call("note", {"text": "hello"}))

    (span,) = noted.spans
    shown = dict(span.attributes)
    assert shown.pop("pdp.phase.question_us") > 0
    assert shown == {
        "gen_ai.operation.name": "execute_tool",
        "mcp.method.name": "tools/call",
        "gen_ai.tool.name": "note",
        "pdp.server": "desk",
        "jsonrpc.request.id": "1",
        "network.transport": "tcp",
        "session.id": told.metadata["session_id"],
        "enduser.id": "alice",
        "gen_ai.agent.id": "coder",
        "pdp.door.outcome": "allow",
        "pdp.basis": "permit",
        "pdp.decision.id": told.headers["x-pdp-decision"],
        "pdp.bundle.version": server.evidence.decision_spans[-1]["pdp.bundle.version"],
    }


def test_requests_that_are_no_calls_are_counted_by_why_they_are_refused(asker: Asker, noted: Noted) -> None:
    """Each once."""
    asker.post(b"{")
    asker.post(request("tools/call", {"name": "note"}), mcp_method="tools/list")
    asker.post(request("tasks/list"))
    asker.post(request("tools/list"), x_pdp_session="")
    asker.http("GET", "/mcp", headers={"mcp-session-id": "s1", "x-pdp-session": ""})
    asker.http("PATCH", "/mcp")
    asker.http("GET", "/elsewhere", route=ROUTE)
    asker.http("GET", "/notes/a", route={})
    asker.http("CONNECT", "/")

    assert noted.reasons == [
        Refusal.MALFORMED,
        Refusal.MISMATCH,
        Refusal.METHOD,
        Refusal.SESSION,
        Refusal.SESSION,
        Refusal.METHOD,
        Refusal.PLACE,
        Refusal.PLACE,
        Refusal.MALFORMED,
    ]
    assert [] == noted.calls
