"""The trace in which a framework makes a call, so that the decision joins it."""

from __future__ import annotations

try:
    from opentelemetry import trace
except ImportError:  # An agent without OpenTelemetry has no trace to join.
    trace = None  # type: ignore[assignment]  # says that the library is absent


def current_trace() -> tuple[str, str]:
    """Return `traceparent` and `tracestate` of the current OpenTelemetry span; both empty without one."""
    span = None if trace is None else trace.get_current_span().get_span_context()
    if span is None or not span.is_valid:
        return "", ""
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}", span.trace_state.to_header()
