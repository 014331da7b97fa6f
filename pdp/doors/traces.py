"""The traces of others that a call is part of, so that its decision joins them. They never affect a decision."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pdp.model import TraceParent

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")
_SAMPLED = "01"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Where a call is in traces: the span above it, and another one that it is part of. Either can be empty."""

    parent: TraceParent = field(default_factory=TraceParent)
    linked: TraceParent = field(default_factory=TraceParent)


def placed(meta: Mapping[str, Any], traceparent: str = "", tracestate: str = "") -> Placed:
    """Return the place of a message of MCP: below the span that its `_meta` names, or else the one around it.

    What is malformed counts as absent. The one around it is linked where `_meta` names another.
    """
    inside, around = _read(meta.get("traceparent"), meta.get("tracestate")), _read(traceparent, tracestate)
    if not inside.traceparent:
        return Placed(parent=around)
    return Placed(parent=inside, linked=around if around.traceparent != inside.traceparent else TraceParent())


def trace_of(meta: Mapping[str, Any], traceparent: str, tracestate: str) -> tuple[str, str]:
    """Return the trace that a message of MCP names in its `_meta`, or else the one around it, which is given."""
    parent = placed(meta, traceparent, tracestate).parent
    return parent.traceparent, parent.tracestate


def carried_on(parent: TraceParent, new_trace_id: str, span_id: str) -> TraceParent:
    """Return the place below a new span, which is itself below a parent, or else begins a new trace."""
    if not parent.traceparent:
        return TraceParent(traceparent=f"00-{new_trace_id}-{span_id}-{_SAMPLED}")
    _, trace_id, _, flags = parent.traceparent.split("-")
    return TraceParent(traceparent=f"00-{trace_id}-{span_id}-{flags}", tracestate=parent.tracestate)


def current_trace() -> tuple[str, str]:
    """Return `traceparent` and `tracestate` of the current OpenTelemetry span; both empty without one."""
    # A program that has a span has imported it.
    trace = sys.modules.get("opentelemetry.trace")
    span = None if trace is None else trace.get_current_span().get_span_context()
    if span is None or not span.is_valid:
        return "", ""
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}", span.trace_state.to_header()


def _read(traceparent: object, tracestate: object) -> TraceParent:
    if not isinstance(traceparent, str) or not _TRACEPARENT.fullmatch(traceparent):
        return TraceParent()
    state = tracestate if isinstance(tracestate, str) and _TRACESTATE.fullmatch(tracestate) else ""
    return TraceParent(traceparent=traceparent, tracestate=state)
