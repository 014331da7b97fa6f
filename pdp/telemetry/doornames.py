"""Every name that the telemetry of a door uses; what it shares with the server has the server's names.

The page `pdp/doors/TELEMETRY.md` holds them as tables; a test compares them.
"""

from __future__ import annotations

from pdp.telemetry import names
from pdp.telemetry.names import Attribute, Metric

# The instrumentation scope
SCOPE = "pdp.doors"

# Attributes, by OpenTelemetry's semantic conventions for generative AI and MCP
OPERATION = "gen_ai.operation.name"
METHOD = "mcp.method.name"
JSONRPC_ID = "jsonrpc.request.id"
TRANSPORT = "network.transport"

# The value of `gen_ai.operation.name`
EXECUTE_TOOL = "execute_tool"

# The bounds of histograms, in seconds: of the conventions for MCP; those below 0.01 are for a PDP on this machine
BOUNDS = (1e-3, 2.5e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)

# Attributes and labels, ours
OUTCOME = "pdp.door.outcome"
REASON = "pdp.door.reason"
SIGNAL_STATE = "pdp.signal.state"
CHECKOUT_STATE = "pdp.broker.state"
QUESTION_US, UPSTREAM_US = f"{names.PHASE_PREFIX}question_us", f"{names.PHASE_PREFIX}upstream_us"

_AT_DOOR = ("call at a door",)

# Every attribute of a span; one without a value is left out
ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute(OPERATION, _AT_DOOR, "always `execute_tool`"),
    Attribute(METHOD, _AT_DOOR, "the method of MCP, where a message of MCP is asked about"),
    Attribute(names.TOOL, _AT_DOOR, "the tool, as the agent wrote it, cut to 128 printable characters"),
    Attribute(names.SERVER, _AT_DOOR, "the tool server, cut like the tool"),
    Attribute(JSONRPC_ID, _AT_DOOR, "the client's id of the request, cut like the tool"),
    Attribute(names.TOOL_CALL_ID, _AT_DOOR, "the model's id of the call, cut like the tool"),
    Attribute(TRANSPORT, _AT_DOOR, "`pipe` or `tcp`"),
    Attribute(names.SESSION_ID, _AT_DOOR, "public id of the session"),
    Attribute(names.USER, _AT_DOOR, "the user whose authority is used"),
    Attribute(names.AGENT, _AT_DOOR, "the agent that performs the call"),
    Attribute(OUTCOME, _AT_DOOR, "what became of the call"),
    Attribute(names.BASIS, _AT_DOOR, "what the decision rests on"),
    Attribute(names.DECISION_ID, _AT_DOOR, "id of the decision"),
    Attribute(names.BUNDLE_VERSION, _AT_DOOR, "the bundle that decided"),
    Attribute(names.ACCESS_REQUEST, _AT_DOOR, "id of the request to a person that the call waits for"),
    Attribute(names.ERROR_TYPE, _AT_DOOR, "what went wrong, in one word"),
    Attribute(QUESTION_US, _AT_DOOR, "microseconds that the question to the PDP took, with the wait for a person"),
    Attribute(UPSTREAM_US, _AT_DOOR, "microseconds that the tool took"),
)

CALLS = Metric("pdp.door.calls", "counter", "{call}", "Calls by what became of them.", (OUTCOME,))
ACTIVE = Metric("pdp.door.calls.active", "updowncounter", "{call}", "Calls that have no answer yet.")
QUESTION = Metric(
    "pdp.door.question.duration",
    "histogram",
    "s",
    "Time that the question to the PDP takes, with the wait for a person.",
    (OUTCOME,),
)
UPSTREAM = Metric("pdp.door.upstream.duration", "histogram", "s", "Time that the tool takes.")
REFUSED = Metric("pdp.door.messages.refused", "counter", "{message}", "Messages that are no call, refused.", (REASON,))
SESSIONS = Metric("pdp.door.sessions", "gauge", "{session}", "Sessions that the door holds.")
SIGNALS = Metric(
    "pdp.signals",
    "gauge",
    "{signal}",
    "Signals that wait for the server, or for a person.",
    (SIGNAL_STATE,),
)
CHECKOUTS = Metric(
    "pdp.broker.checkouts",
    "gauge",
    "{credential}",
    "Credentials that left the broker: all; overdue ones; those that could not be ended; and roles of none.",
    (CHECKOUT_STATE,),
)

METRICS: tuple[Metric, ...] = (
    CALLS,
    ACTIVE,
    QUESTION,
    UPSTREAM,
    REFUSED,
    SESSIONS,
    SIGNALS,
    CHECKOUTS,
    names.SPANS_PROCESSED,
    names.SPANS_EXPORTED,
    names.SPAN_QUEUE,
    names.SPAN_CAPACITY,
)
