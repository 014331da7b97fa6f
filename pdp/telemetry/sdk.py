"""Our spans as the SDK's own objects: for the console, and for tests that compare our encoder with the SDK's."""

from __future__ import annotations

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from pdp.telemetry import wire


def readable_span(span: wire.Span, resource: Resource, scope: InstrumentationScope) -> ReadableSpan:
    """Return a span as the SDK would make it."""
    state = TraceState.from_header([span.trace_state]) if span.trace_state else None
    return ReadableSpan(
        name=span.name,
        context=_context(span.trace_id, span.span_id, state, remote=False),
        parent=_context(span.trace_id, span.parent_id, state, remote=True) if span.parent_id else None,
        resource=resource,
        attributes=span.attributes,
        links=[Link(_context(trace_id, span_id, None, remote=True)) for trace_id, span_id in span.links],
        kind=SpanKind.SERVER,
        status=Status(StatusCode.ERROR if span.failed else StatusCode.UNSET),
        start_time=span.start,
        end_time=span.end,
        instrumentation_scope=scope,
    )


def _context(trace_id: str, span_id: str, state: TraceState | None, *, remote: bool) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), remote, TraceFlags(TraceFlags.SAMPLED), state)
