"""Make spans and metrics of the calls at a door.

A call has one span of kind SERVER, from its arrival to its answer. The PDP's span of the decision is below it.
`pdp.telemetry.doorspans` says what the span shows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from threading import Lock

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from pdp import __version__
from pdp.model import TraceParent
from pdp.observer import DoorCall, Refusal
from pdp.telemetry import doornames, wire
from pdp.telemetry.build import resource_of
from pdp.telemetry.console import write_metrics, write_span
from pdp.telemetry.doorspans import attributes_of, name_of
from pdp.telemetry.encoder import nanoseconds
from pdp.telemetry.limits import AttributeLimits
from pdp.telemetry.observer import Closing, shut_down
from pdp.telemetry.parent import below, read_parent
from pdp.telemetry.pipeline import Flow, Pipeline
from pdp.telemetry.points import Counts, Durations, Flows, Interval, Labels, count_one, no_counts
from pdp.telemetry.reporting import MetricReporter
from pdp.telemetry.settings import TelemetrySettings
from pdp.telemetry.transport import open_sender

_Rows = dict[Labels, Durations[DoorCall]]


class DoorTelemetry:
    """The observer of a door that makes spans and metrics. Pass None for a part that is not wanted.

    `spans` never waits and never raises. The groups in `closing` are shut down one after the other.
    """

    def __init__(
        self,
        *,
        spans: Callable[[DoorCall], None] | None,
        metrics: DoorMetrics | None,
        closing: tuple[tuple[Closing, ...], ...] = (),
    ) -> None:
        self._spans = spans
        self._metrics = metrics
        self._closing = closing

    def began(self, parent: TraceParent) -> TraceParent:
        """Count a call as under way, and return the place below its span."""
        if self._metrics is not None:
            self._metrics.began()
        return parent if self._spans is None else below(parent)

    def over(self, call: DoorCall) -> None:
        """Count and show a call."""
        if self._metrics is not None:
            self._metrics.over(call)
        if self._spans is not None:
            self._spans(call)

    def refused(self, why: Refusal) -> None:
        """Count a refused message."""
        if self._metrics is not None:
            self._metrics.refused(why)

    def watch_sessions(self, count: Callable[[], int]) -> None:
        """Report how many sessions the door holds, as `count` returns it at each collection."""
        if self._metrics is not None:
            self._metrics.watch_sessions(count)

    def watch_signals(self, count: Callable[[], Mapping[str, int]]) -> None:
        """Report how many signals are open in each state, as `count` returns it at each collection."""
        if self._metrics is not None:
            self._metrics.watch_signals(count)

    def watch_checkouts(self, count: Callable[[], Mapping[str, int]]) -> None:
        """Report how many credentials have left a broker, by state, as `count` returns it at each collection."""
        if self._metrics is not None:
            self._metrics.watch_checkouts(count)

    def shutdown(self, timeout: float = 5.0) -> bool:
        """Send what waits and end; return False when `timeout` seconds were not enough."""
        groups, self._closing = self._closing, ()
        return shut_down(groups, timeout)


class DoorMetrics:
    """All metrics of a door. Safe for threads, except that `collect` is for one thread."""

    def __init__(
        self,
        resource: Resource,
        *,
        delta: bool = False,
        exemplars: bool = True,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._resource = resource
        self._scope = InstrumentationScope(doornames.SCOPE, __version__)
        self._delta = delta
        self._exemplars = exemplars
        self._now = now
        self._started = now()
        self._lock = Lock()
        self._active = 0
        self._counts = no_counts(doornames.METRICS)
        self._questions: _Rows = {}
        self._upstream: Durations[DoorCall] = Durations(doornames.BOUNDS)
        self._flows = Flows(delta=delta)
        self._count_sessions: Callable[[], int] | None = None
        self._count_signals: Callable[[], Mapping[str, int]] | None = None
        self._count_checkouts: Callable[[], Mapping[str, int]] | None = None

    def began(self) -> None:
        """Count a call as under way."""
        with self._lock:
            self._active += 1

    def over(self, call: DoorCall) -> None:
        """Count a call that is over."""
        shown = call if call.span_id else None
        labels = (call.outcome.value,)
        with self._lock:
            self._active -= 1
            count_one(self._counts[doornames.CALLS.name], labels)
            if call.question_seconds is not None:
                row = self._questions.get(labels)
                if row is None:
                    row = self._questions[labels] = Durations(doornames.BOUNDS)
                row.take(call.question_seconds, shown)
            if call.upstream_seconds is not None:
                self._upstream.take(call.upstream_seconds, shown)

    def refused(self, why: Refusal) -> None:
        """Count a refused message."""
        with self._lock:
            count_one(self._counts[doornames.REFUSED.name], (why.value,))

    def watch_sessions(self, count: Callable[[], int]) -> None:
        """Report how many sessions the door holds."""
        self._count_sessions = count

    def watch_signals(self, count: Callable[[], Mapping[str, int]]) -> None:
        """Report how many signals are open in each state."""
        self._count_signals = count

    def watch_checkouts(self, count: Callable[[], Mapping[str, int]]) -> None:
        """Report how many credentials have left a broker, by state."""
        self._count_checkouts = count

    def watch_flow(self, flow: Callable[[], Flow]) -> None:
        """Report the flow of the spans."""
        self._flows.watch("traces", flow)

    def collect(self) -> MetricsData:
        """Return all metrics as they are now, and reset those that are reported only once."""
        at = self._now()
        with self._lock:
            active = self._active
            counts = {name: dict(found) for name, found in self._counts.items()}
            questions = {labels: row.copy() for labels, row in self._questions.items()}
            upstreams: _Rows = {(): self._upstream.copy()}
            self._forget()
        found: dict[str, Counts] = {**counts, **self._flows.counts(), doornames.ACTIVE.name: {(): active}}
        if self._count_sessions is not None:
            found[doornames.SESSIONS.name] = {(): self._count_sessions()}
        if self._count_signals is not None:
            found[doornames.SIGNALS.name] = {(state,): number for state, number in self._count_signals().items()}
        if self._count_checkouts is not None:
            found[doornames.CHECKOUTS.name] = {(state,): number for state, number in self._count_checkouts().items()}
        told = Interval(since=self._started, at=at, delta=self._delta)
        metrics = [told.numbers(one, found[one.name]) for one in doornames.METRICS if found.get(one.name)]
        for metric, rows, seconds in (
            (doornames.QUESTION, questions, _question_seconds),
            (doornames.UPSTREAM, upstreams, _upstream_seconds),
        ):
            if any(row.count for row in rows.values()):
                exemplar = _exemplar_of(seconds) if self._exemplars else None
                metrics.append(told.durations(metric, rows, exemplar))
        if self._delta:
            self._started = at
        scoped = ScopeMetrics(self._scope, metrics, self._scope.schema_url or "")
        return MetricsData([ResourceMetrics(self._resource, [scoped], self._resource.schema_url)])

    def _forget(self) -> None:
        if self._delta:
            self._counts, self._questions = no_counts(doornames.METRICS), {}
            self._upstream = Durations(doornames.BOUNDS)
        for row in (*self._questions.values(), self._upstream):
            row.latest = {}


def build_door_telemetry(
    service: str, *, exporter: str = "", environ: Mapping[str, str] = os.environ
) -> DoorTelemetry | None:
    """Build the telemetry of a door with its own threads; None when nothing is to be sent.

    `service` is its name unless the operator sets another, and `exporter` that of `TelemetrySettings`. Raise
    `ConfigurationError` for settings that cannot work.
    """
    settings = TelemetrySettings.from_environment(environ, exporter=exporter)
    if settings.traces == settings.metrics == "none":
        return None
    resource = resource_of(service)
    metrics = None
    if settings.metrics != "none":
        metrics = DoorMetrics(resource, delta=settings.temporality != "cumulative", exemplars=settings.exemplars)
    spans, queues = _spans(settings, resource, metrics)
    return DoorTelemetry(spans=spans, metrics=metrics, closing=(queues, _reporters(settings, metrics)))


def _spans(
    settings: TelemetrySettings, resource: Resource, metrics: DoorMetrics | None
) -> tuple[Callable[[DoorCall], None] | None, tuple[Closing, ...]]:
    limits = settings.span_limits
    if settings.traces == "none":
        return None, ()
    if settings.traces == "console":
        scope = InstrumentationScope(doornames.SCOPE, __version__)
        return lambda call: write_span(span_of(call, limits), resource, scope), ()
    queue: Pipeline[DoorCall] = Pipeline(
        "spans",
        lambda call: wire.span(span_of(call, limits)),
        wire.source(resource.attributes, doornames.SCOPE, __version__),
        open_sender(settings.endpoints["traces"]),
        settings.span_queue,
    )
    if metrics is not None:
        metrics.watch_flow(queue.flow)
    return queue.put, (queue,)


def _reporters(settings: TelemetrySettings, metrics: DoorMetrics | None) -> tuple[Closing, ...]:
    if metrics is None:
        return ()
    sent = settings.metrics == "otlp"
    return (
        MetricReporter(
            metrics.collect,
            interval=settings.metric_interval,
            sender=open_sender(settings.endpoints["metrics"]) if sent else None,
            write=None if sent else write_metrics,
        ),
    )


def span_of(call: DoorCall, limits: AttributeLimits) -> wire.Span:
    """Return the span of a call whose ids are set."""
    above, beside = read_parent(call.parent), read_parent(call.linked)
    links = ((beside.trace_id, beside.span_id),) if beside is not None else ()
    shown, dropped = limits.applied(attributes_of(call))
    start = nanoseconds(call.began_at)
    return wire.Span(
        name=name_of(call),
        trace_id=call.trace_id,
        span_id=call.span_id,
        start=start,
        end=start + int(call.seconds * 1_000_000_000),
        attributes=shown,
        dropped_attributes=dropped,
        parent_id=above.span_id if above else "",
        trace_state=above.trace_state if above else "",
        links=links[: limits.links],
        dropped_links=len(links[limits.links :]),
        failed=bool(call.error),
    )


def _question_seconds(call: DoorCall) -> float:
    return call.question_seconds or 0.0


def _upstream_seconds(call: DoorCall) -> float:
    return call.upstream_seconds or 0.0


def _exemplar_of(seconds: Callable[[DoorCall], float]) -> Callable[[DoorCall], Exemplar]:
    return lambda call: Exemplar(
        filtered_attributes={},
        value=seconds(call),
        time_unix_nano=nanoseconds(call.began_at + call.seconds),
        span_id=int(call.span_id, 16),
        trace_id=int(call.trace_id, 16),
    )
