"""What the span of a call at a door shows, whoever makes it.

- Its name holds the tool only where the call was allowed: else an agent could have written anything.
- A deny is an answer: the status of the span stays unset. It is an error where something went wrong.
"""

from __future__ import annotations

from pdp.observer import CallOutcome, DoorCall
from pdp.telemetry import doornames, names
from pdp.telemetry.attributes import Attributes, bounded


def name_of(call: DoorCall) -> str:
    """Return the name of a call's span."""
    allowed = call.outcome in (CallOutcome.ALLOW, CallOutcome.WITHHELD)
    return f"{call.operation} {bounded(call.tool)}" if allowed and call.tool else call.operation


def attributes_of(call: DoorCall) -> Attributes:
    """Return the attributes of a call's span."""
    found: Attributes = {
        doornames.OPERATION: doornames.EXECUTE_TOOL,
        doornames.METHOD: bounded(call.operation) if call.operation != doornames.EXECUTE_TOOL else "",
        names.TOOL: bounded(call.tool),
        names.SERVER: bounded(call.server),
        doornames.JSONRPC_ID: bounded(call.request_id),
        names.TOOL_CALL_ID: bounded(call.tool_call_id),
        doornames.TRANSPORT: call.transport,
        names.SESSION_ID: call.session_id,
        names.USER: call.user,
        names.AGENT: call.agent,
        doornames.OUTCOME: call.outcome.value,
        names.BASIS: call.basis,
        names.DECISION_ID: call.decision_id,
        names.BUNDLE_VERSION: call.bundle_version,
        names.ACCESS_REQUEST: call.access_request_id,
        names.ERROR_TYPE: call.error,
        doornames.QUESTION_US: _microseconds(call.question_seconds),
        doornames.UPSTREAM_US: _microseconds(call.upstream_seconds),
    }
    return {name: value for name, value in found.items() if value}


def _microseconds(seconds: float | None) -> float:
    return 0.0 if seconds is None else round(seconds * 1_000_000, 1)
