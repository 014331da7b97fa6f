"""What the MCP proxy sends to a receiver of OpenTelemetry about its calls: over pipes here, and over HTTP."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from pdp.cli.doors.observing import observing
from pdp.config.settings import Settings
from pdp.observer import CallOutcome, Refusal
from pdp.telemetry import doornames
from pdp.telemetry.doors import DoorTelemetry, build_door_telemetry
from pdp.telemetry.wire import Span
from pdp.testing.inprocess import RunningServer
from pdp.testing.otlp import OTLPReceiver, attributes_of
from tests.doors.mcp.conversation import LEGACY, MODERN, PATIENCE, STATED, approved, conversation
from tests.doors.mcp.toolserver import ToolServer
from tests.doors.mcp.webworld import message_of, world

AGENTS = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
GATEWAYS = "00-1bf7651916cd43dd8448eb211c80319d-c7ad6b7169203332-00"


@dataclass
class Sent:
    """The telemetry of a door, and what of it a receiver has got once it is `closed`."""

    telemetry: DoorTelemetry
    receiver: OTLPReceiver
    _closed: bool = field(default=False)

    def close(self) -> None:
        """Send what waits."""
        if not self._closed:
            self._closed = True
            assert self.telemetry.shutdown(PATIENCE)

    @property
    def spans(self) -> list[Any]:
        """Return all spans in the order in which they ended."""
        self.close()
        return self.receiver.spans

    def numbers(self, name: str) -> dict[str, int]:
        """Return the points of a counter or a gauge, by their label."""
        self.close()
        metric = self.receiver.metrics[name]
        data = metric.gauge if metric.HasField("gauge") else metric.sum
        return {"".join(map(str, attributes_of(point).values())): point.as_int for point in data.data_points}

    def durations(self, name: str) -> dict[str, int]:
        """Return how often a histogram was added to, by its label."""
        self.close()
        points = self.receiver.metrics[name].histogram.data_points
        return {"".join(map(str, attributes_of(point).values())): point.count for point in points}


@pytest.fixture
def sent(receiver: OTLPReceiver) -> Iterator[Sent]:
    """Return the telemetry of one door."""
    receiver.requests.clear()
    telemetry = build_door_telemetry("pdp-mcp", environ={"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint})
    assert telemetry is not None
    found = Sent(telemetry, receiver)
    yield found
    found.close()


def decision_of(pdp: RunningServer) -> Span:
    """Return the PDP's span of the last decision."""
    return [span for span in pdp.evidence.spans if span.name == "pdp.authorize"][-1]


async def test_a_call_has_a_span_between_the_agents_and_that_of_the_decision(pdp: RunningServer, sent: Sent) -> None:
    """User, agent and session are together on it, with the decision; names are those of OpenTelemetry's conventions."""
    opened = approved(pdp)
    meta = {"traceparent": AGENTS, "tracestate": "a=b"}
    async with conversation(pdp, handle=opened.session_handle, observer=sent.telemetry) as it:
        await it.ask("tools/call", {"name": "read", "arguments": {"path": "/a"}, "_meta": meta}, "seven")
    decision = decision_of(pdp)
    (span,) = sent.spans

    assert ("tools/call read", 2, 0) == (span.name, span.kind, span.status.code)
    assert AGENTS.split("-")[1:3] == [span.trace_id.hex(), span.parent_span_id.hex()]
    assert (span.trace_id.hex(), span.span_id.hex()) == (decision.trace_id, decision.parent_id)
    assert "a=b" == span.trace_state == decision.trace_state
    found = attributes_of(span)
    assert {found.pop(name) > 0 for name in (doornames.QUESTION_US, doornames.UPSTREAM_US)} == {True}  # type: ignore[operator]
    assert found == {
        "gen_ai.operation.name": "execute_tool",
        "mcp.method.name": "tools/call",
        "gen_ai.tool.name": "read",
        "pdp.server": "files",
        "jsonrpc.request.id": "seven",
        "network.transport": "pipe",
        "session.id": opened.session.session_id,
        "enduser.id": "alice",
        "gen_ai.agent.id": "coder",
        "pdp.door.outcome": "allow",
        "pdp.basis": "permit",
        "pdp.decision.id": decision.attributes["pdp.decision.id"],
        "pdp.bundle.version": decision.attributes["pdp.bundle.version"],
    }
    assert "pdp-mcp" == sent.receiver.resource["service.name"]


async def test_each_outcome_is_shown_and_counted(pdp: RunningServer, sent: Sent) -> None:
    """A deny is an answer, and no error; what a tool or the proxy could not do is one."""
    server = ToolServer()
    server.results["people"] = {"content": [{"type": "text", "text": "not JSON"}]}
    server.results["read"] = {"content": [], "isError": True}
    async with conversation(pdp, server=server, observer=sent.telemetry) as it:
        for tool in ("read", "write", "reset", "people"):
            await it.call(tool, {"path": "/a"})
        await it.call("read", {"path": "/a"}, task={})

    shown = [(span.name, attributes_of(span).get("error.type"), span.status.code) for span in sent.spans]
    assert shown == [
        ("tools/call read", "tool_error", 2),
        ("tools/call", None, 0),
        ("tools/call", None, 0),
        ("tools/call people", "result_withheld", 2),
        ("tools/call", None, 0),
    ]
    expected = dict.fromkeys(("allow", "deny", "waiting", "withheld", "refused"), 1)
    assert expected == sent.numbers("pdp.door.calls")
    assert {name: 1 for name in expected if name != "refused"} == sent.durations("pdp.door.question.duration")
    assert {"": 2} == sent.durations("pdp.door.upstream.duration")
    assert {"": 0} == sent.numbers("pdp.door.calls.active")


async def test_a_call_without_a_decision_is_an_error(sent: Sent) -> None:
    """While the PDP is away there is a span all the same."""
    nowhere: dict[str, Any] = {"handle": "pdps_none", "token": "any", "patience": 0.5}
    async with conversation("127.0.0.1:1", observer=sent.telemetry, **nowhere) as it:
        await it.call("read", {"path": "/a"})

    (span,) = sent.spans
    assert ("undecided", "undecided") == tuple(attributes_of(span)[one] for one in ("error.type", "pdp.door.outcome"))
    assert {"undecided": 1} == sent.numbers("pdp.door.calls")


async def test_nothing_secret_is_sent(pdp: RunningServer, sent: Sent) -> None:
    """Neither the handle, nor an argument, nor a result, nor what a tool is not called."""
    opened = approved(pdp)
    server = ToolServer()
    server.results["read"] = {"content": [{"type": "text", "text": "result-8e1f"}]}
    async with conversation(pdp, handle=opened.session_handle, server=server, observer=sent.telemetry) as it:
        await it.call("read", {"path": "argument-8e1f"})
        await it.call("x" * 200, {"path": "argument-8e1f"})
        await it.say(b'{"secret-8e1f"')
    sent.close()

    bytes_of_all = b"".join(one.SerializeToString() for one in sent.receiver.requests)
    assert not any(word in bytes_of_all for word in (opened.session_handle.encode(), b"8e1f", b"x" * 129))
    assert b"x" * 128 in bytes_of_all
    assert all("xxx" not in span.name for span in sent.spans)


async def test_refused_messages_are_counted_by_their_reason(pdp: RunningServer, sent: Sent) -> None:
    """They are no calls and have no span."""
    async with conversation(pdp, observer=sent.telemetry) as it:
        await it.say(b"{")
        await it.ask("tasks/list")

    assert {"malformed": 1, "method": 1} == sent.numbers("pdp.door.messages.refused")
    assert [] == sent.spans


@pytest.mark.parametrize(
    ("inside", "header", "parent", "linked"),
    [
        (AGENTS, GATEWAYS, "b7ad6b7169203331", ["c7ad6b7169203332"]),
        ("", GATEWAYS, "c7ad6b7169203332", []),
        ("no trace", GATEWAYS, "c7ad6b7169203332", []),
        (AGENTS, "no trace", "b7ad6b7169203331", []),
        ("", "no trace", "", []),
    ],
)
async def test_over_http_the_header_is_the_parent_unless_the_message_names_one(
    desk_pdp: RunningServer, sent: Sent, inside: str, header: str, parent: str, linked: list[str]
) -> None:
    """With both, the header is a link; what is malformed counts as absent. The server gets a header with our span."""
    async with world(desk_pdp, observer=sent.telemetry, json_answers=True) as here:
        _, handle = here.session()
        meta = {**STATED, **({"traceparent": inside} if inside else {})}
        params = {"name": "echo", "arguments": {"text": "a"}, "_meta": meta}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        stated = {"mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": "echo"}
        said = await here.post(body, {**stated, "traceparent": header}, handle=handle)
        got = here.desk.headers["traceparent"]
        decision = decision_of(desk_pdp)
    (span,) = sent.spans

    assert "result" in message_of(said)
    assert (parent, linked) == (span.parent_span_id.hex(), [link.span_id.hex() for link in span.links])
    assert (span.trace_id.hex(), span.span_id.hex()) == (decision.trace_id, decision.parent_id)
    assert [span.trace_id.hex(), span.span_id.hex()] == got.split("-")[1:3]


async def test_over_http_without_spans_the_header_is_passed_on(desk_pdp: RunningServer) -> None:
    """The decision joins its trace, and the server gets it as it came."""
    async with world(desk_pdp, json_answers=True) as here:
        _, handle = here.session()
        said = await here.call("echo", {"text": "a"}, handle=handle, traceparent=AGENTS)
        got = here.desk.headers["traceparent"]

    assert "a" in said.text
    assert AGENTS == got
    assert AGENTS.split("-")[1] == decision_of(desk_pdp).trace_id


async def test_over_http_sessions_and_refusals_are_counted(desk_pdp: RunningServer, sent: Sent) -> None:
    """A call without a session is a call that is denied; other requests are counted by their reason."""
    async with world(desk_pdp, observer=sent.telemetry, json_answers=True) as here:
        handles = [here.session()[1] for _ in range(2)]
        for handle in (*handles, "pdps_none"):
            await here.call("echo", {"text": "a"}, handle=handle)
        await here.call("echo", {"text": "a"}, handle=handles[0], mcp_name="other")
        await here.post(b"{", handle=handles[0])
        await here.post({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}, handle="pdps_none")
        sent.close()

    assert {"allow": 2, "deny": 1} == sent.numbers("pdp.door.calls")
    assert {"mismatch": 1, "malformed": 1, "session": 1} == sent.numbers("pdp.door.messages.refused")
    assert {"": 2} == sent.numbers("pdp.door.sessions")


async def test_a_receiver_that_is_away_changes_no_call(pdp: RunningServer) -> None:
    """Spans that nobody takes fill a queue of a size that is set, and are dropped."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_BSP_MAX_QUEUE_SIZE": "2"}
    telemetry = build_door_telemetry("pdp-mcp", environ=environ)
    assert telemetry is not None
    async with conversation(pdp, observer=telemetry) as it:
        said = [await it.call("read", {"path": "/a"}) for _ in range(5)]
    telemetry.shutdown(0.1)

    assert all(one["result"]["isError"] is False for one in said)


@pytest.mark.parametrize(
    ("environ", "blocked", "observed"),
    [
        ({"OTEL_SERVICE_NAME": "agent"}, (), False),
        ({"OTEL_TRACES_EXPORTER": "none"}, (), False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, (), True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, ("opentelemetry", "pdp.telemetry.doors"), False),
    ],
)
def test_a_command_sends_what_variables_say_if_it_can(
    environ: dict[str, str],
    blocked: tuple[str, ...],
    observed: bool,  # noqa: FBT001 - a column
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Without a variable nothing is made; without the library the log says so, and the door goes on."""
    for library in blocked:
        monkeypatch.setitem(sys.modules, library, None)
    with observing(Settings(), "mcp", environ=environ) as observer:
        made = observer is not None

    assert observed is made
    assert bool(blocked) is ("nothing is sent" in caplog.text)


def test_labels_have_few_values() -> None:
    """Each label of the metrics has words of a closed list, and none that an agent writes."""
    labels = {label for metric in doornames.METRICS for label in metric.labels}

    assert {
        doornames.OUTCOME,
        doornames.REASON,
        doornames.SIGNAL_STATE,
        doornames.CHECKOUT_STATE,
        "error.type",
    } == labels
    assert len(CallOutcome) + len(Refusal) < 20


async def test_both_eras_are_traced(pdp: RunningServer, sent: Sent) -> None:
    """The era without a handshake states more in `_meta`, and is traced alike."""
    for era in (LEGACY, MODERN):
        async with conversation(pdp, era, observer=sent.telemetry) as it:
            said = json.dumps(await it.call("read", {"path": "/a"}))
            assert "ran read" in said

    assert ["tools/call read"] * 2 == [span.name for span in sent.spans]
