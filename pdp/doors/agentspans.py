"""The span of a call in the agent's own trace, and its metrics, by the API of OpenTelemetry alone.

An adapter runs in the agent's process: what the agent has set up there shows and sends them. Without the API nothing is
made, and nothing is imported for it.
"""

from __future__ import annotations

import logging
import sys
from functools import cache
from typing import Any

from pdp import __version__
from pdp.doors.observing import CallUnderWay
from pdp.model import TraceParent
from pdp.observer import DoorCall
from pdp.telemetry import doornames
from pdp.telemetry.doorspans import attributes_of, name_of
from pdp.telemetry.names import Metric

_LOG = logging.getLogger(__name__)

_TRACE, _METRICS = "opentelemetry.trace", "opentelemetry.metrics"


def begin_call(tool: str, tool_call_id: str) -> CallUnderWay:
    """Return a call that has arrived, below the current span."""
    # A program that has a span has imported it.
    api = sys.modules.get(_TRACE)
    observer = None if api is None else _AgentSpan(api)
    return CallUnderWay(observer, doornames.EXECUTE_TOOL, tool=tool, tool_call_id=tool_call_id)


class _AgentSpan:
    """Observes one call. What the agent has set up may raise, and that concerns no call."""

    def __init__(self, api: Any) -> None:  # noqa: ANN401 - a module
        self._api = api
        self._span: Any = None

    def began(self, parent: TraceParent) -> TraceParent:
        """Begin the span. Without an SDK the API makes none, and returns the current one."""
        try:
            tracer = self._api.get_tracer(doornames.SCOPE, __version__)
            self._span = tracer.start_span(doornames.EXECUTE_TOOL)
            return _below(self._span.get_span_context())
        except Exception as error:  # noqa: BLE001 - a trace never affects a decision
            _LOG.warning("a call has no span: %s", type(error).__name__)
            return parent

    def over(self, call: DoorCall) -> None:
        """End the span, and count the call."""
        try:
            if self._span is not None:
                self._end(call)
            api = sys.modules.get(_METRICS)
            if api is not None and (measures := _measures(api)):
                measures.add(call)
        except Exception as error:  # noqa: BLE001 - a trace never affects a decision
            _LOG.warning("a call is not shown: %s", type(error).__name__)

    def _end(self, call: DoorCall) -> None:
        if self._span.is_recording():
            self._span.update_name(name_of(call))
            self._span.set_attributes(attributes_of(call))
            if call.error:
                self._span.set_status(self._api.StatusCode.ERROR)
        self._span.end()


class _Measures:
    """The metrics of an agent's calls. A framework does not tell of each call's end, so none says how many are open."""

    def __init__(self, meter: Any) -> None:  # noqa: ANN401 - of the API
        def histogram(metric: Metric) -> Any:  # noqa: ANN401 - of the API
            return meter.create_histogram(
                metric.name,
                metric.unit,
                metric.description,
                explicit_bucket_boundaries_advisory=doornames.BOUNDS,
            )

        calls = doornames.CALLS
        self._calls = meter.create_counter(calls.name, calls.unit, calls.description)
        self._question, self._upstream = histogram(doornames.QUESTION), histogram(doornames.UPSTREAM)

    def add(self, call: DoorCall) -> None:
        """Count a call that is over."""
        outcome = {doornames.OUTCOME: call.outcome.value}
        self._calls.add(1, outcome)
        if call.question_seconds is not None:
            self._question.record(call.question_seconds, outcome)
        if call.upstream_seconds is not None:
            self._upstream.record(call.upstream_seconds)


@cache
def _measures(api: Any) -> _Measures | None:  # noqa: ANN401 - a module
    """Return the metrics, of which the API keeps each that is made; None where it has none of this kind."""
    try:
        return _Measures(api.get_meter(doornames.SCOPE, __version__))
    except Exception as error:  # noqa: BLE001 - an older API
        _LOG.warning("calls are not counted: %s", type(error).__name__)
        return None


def _below(context: Any) -> TraceParent:  # noqa: ANN401 - of the API
    if not context.is_valid:
        return TraceParent()
    return TraceParent(
        traceparent=f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}",
        tracestate=context.trace_state.to_header(),
    )
