"""The trace in which a call is made, so that its decision joins it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

try:
    from opentelemetry import trace
except ImportError:  # An agent without OpenTelemetry has no trace to join.
    trace = None  # type: ignore[assignment]  # says that the library is absent

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def current_trace() -> tuple[str, str]:
    """Return `traceparent` and `tracestate` of the current OpenTelemetry span; both empty without one."""
    span = None if trace is None else trace.get_current_span().get_span_context()
    if span is None or not span.is_valid:
        return "", ""
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}", span.trace_state.to_header()


def trace_of(meta: Mapping[str, Any], traceparent: str, tracestate: str) -> tuple[str, str]:
    """Return the trace that a message of MCP names in its `_meta`, or else the one around it, which is given."""
    inside, state = meta.get("traceparent"), meta.get("tracestate")
    if isinstance(inside, str) and _TRACEPARENT.fullmatch(inside):
        return inside, state if isinstance(state, str) else ""
    return traceparent, tracestate
