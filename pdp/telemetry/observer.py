"""Make spans and metrics of what the PDP is told to observe.

- A span is made after the fact, as a child of the caller's `traceparent`, whatever its sampling flag says.
- Its kind is SERVER: it is the PDP's side of a question that somebody else asked, and traces show it as that.
- Its name is the same for all tools, because tool names are written by agents and may be anything.
- A deny is an answer: the span's status stays unset. Attributes without a value are left out.
"""

from __future__ import annotations

import time
from dataclasses import replace
from threading import Thread
from typing import Self

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, StatusCode, format_span_id, format_trace_id

from pdp.model import Decision, TraceParent
from pdp.observer import Event
from pdp.telemetry import names
from pdp.telemetry.metrics import CountSessions, Metrics
from pdp.telemetry.spans import decision_attributes, refusal_attributes, start_context, trace_id_of

# What OpenTelemetry's conventions for RPC servers call an error; the other statuses are the caller's doing.
_SERVER_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})


class Telemetry:
    """The observer that makes spans and metrics. Pass None for what is not wanted.

    The tracer provider must sample everything by itself (`ALWAYS_ON`); the caller's flag is never its reason not to.
    `digest_key` keys the digest of resource ids that must not be shown; without a key they are left out.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None,
        meter_provider: MeterProvider | None,
        *,
        digest_key: bytes = b"",
    ) -> None:
        self._providers = tuple(provider for provider in (tracer_provider, meter_provider) if provider)
        self._tracer = tracer_provider.get_tracer("pdp") if tracer_provider else None
        self._metrics = Metrics(meter_provider.get_meter("pdp")) if meter_provider else None
        self._digest_key = digest_key

    @classmethod
    def off(cls) -> Self:
        """Return telemetry that makes nothing and only passes the caller's trace id on."""
        return cls(None, None)

    def decision(self, decision: Decision, parent: TraceParent) -> Decision:
        """Count a decision and make its span; return the decision with the ids of trace and span."""
        if self._metrics is not None:
            self._metrics.decision(decision)
        if self._tracer is None:
            # Without a span of our own, the decision still says to which trace of the caller it belongs.
            trace_id = trace_id_of(parent)
            return replace(decision, trace_id=trace_id) if trace_id else decision
        end = _nanoseconds(decision.decided_at)
        span = self._tracer.start_span(
            names.SPAN_DECISION,
            start_context(parent),
            kind=SpanKind.SERVER,
            attributes=decision_attributes(decision, self._digest_key),
            start_time=end - int(decision.duration_us * 1000),
        )
        span.end(end)
        trace_id, span_id = _ids(span)
        return replace(decision, trace_id=trace_id, span_id=span_id)

    def event(self, event: Event) -> None:
        """Count an event; a refused request gets a span as well, below the fact `traceparent` when there is one."""
        if self._metrics is not None:
            self._metrics.event(event)
        if self._tracer is None or event.kind != "request.refused":
            return
        at = _nanoseconds(event.at)
        span = self._tracer.start_span(
            names.SPAN_REFUSED,
            start_context(TraceParent(traceparent=event.facts.get("traceparent", ""))),
            kind=SpanKind.SERVER,
            attributes=refusal_attributes(event),
            start_time=at,
        )
        if event.facts.get("status") in _SERVER_FAULTS:
            span.set_status(StatusCode.ERROR)
        span.end(at)

    def record_failed(self) -> None:
        """Count a record that could not be written."""
        if self._metrics is not None:
            self._metrics.record_failures.add()

    def watch_sessions(self, count: CountSessions) -> None:
        """Report sessions by state, as `count` returns them whenever metrics are collected. Call it once."""
        if self._metrics is not None:
            self._metrics.watch_sessions(count)

    def shutdown(self, timeout: float = 5.0) -> bool:
        """Send what is waiting and shut the providers down; return False when `timeout` seconds were not enough."""
        # The providers' own bounds add up to more than a minute with a silent receiver.
        threads = [Thread(target=provider.shutdown, daemon=True) for provider in self._providers]
        self._providers = ()
        end = time.monotonic() + timeout
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)


def _ids(span: Span) -> tuple[str, str]:
    context = span.get_span_context()
    return format_trace_id(context.trace_id), format_span_id(context.span_id)


def _nanoseconds(at: float) -> int:
    # A float of today's size is good for microseconds and no finer.
    return round(at * 1_000_000) * 1000
