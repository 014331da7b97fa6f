"""Counts and durations as they grow, and as OpenTelemetry's metrics when they are collected."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    Sum,
)

from pdp.telemetry import names
from pdp.telemetry.pipeline import Flow

Labels = tuple[str, ...]
Counts = dict[Labels, int]

T = TypeVar("T")

_LABEL_SETS = 500
_FLOWS = {
    "traces": (names.SPANS_PROCESSED, names.SPANS_EXPORTED, names.SPAN_QUEUE, names.SPAN_CAPACITY),
    "logs": (names.LOGS_PROCESSED, names.LOGS_EXPORTED, names.LOG_QUEUE, names.LOG_CAPACITY),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """From when to when points tell, in nanoseconds; with `delta` they are no totals."""

    since: int
    at: int
    delta: bool

    def numbers(self, metric: names.Metric, counts: Mapping[Labels, float]) -> Metric:
        """Return a counter or a gauge."""
        counted = metric.kind == "counter"
        points = [
            NumberDataPoint(named(metric, labels), self.since, self.at, count) for labels, count in counts.items()
        ]
        data: Sum | Gauge = (
            Gauge(points)
            if metric.kind == "gauge"
            else Sum(points, aggregation_temporality=_temporality(delta=counted and self.delta), is_monotonic=counted)
        )
        return Metric(metric.name, metric.description, metric.unit, data)

    def durations(
        self,
        metric: names.Metric,
        rows: Mapping[Labels, Durations[T]],
        exemplar: Callable[[T], Exemplar] | None = None,
    ) -> Metric:
        """Return a histogram. `exemplar` makes one of the latest in a bucket; None for none."""
        points = [
            HistogramDataPoint(
                attributes=named(metric, labels),
                start_time_unix_nano=self.since,
                time_unix_nano=self.at,
                count=row.count,
                sum=row.sum,
                bucket_counts=row.buckets,
                explicit_bounds=row.bounds,
                min=row.least,
                max=row.most,
                exemplars=[] if exemplar is None else [exemplar(one) for one in row.latest.values()],
            )
            for labels, row in rows.items()
            if row.count
        ]
        return Metric(metric.name, metric.description, metric.unit, Histogram(points, _temporality(delta=self.delta)))


class Durations(Generic[T]):
    """How long things took, by bucket, and the latest of each bucket."""

    __slots__ = ("bounds", "buckets", "count", "latest", "least", "most", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.count, self.sum = 0, 0.0
        self.least, self.most = float("inf"), 0.0
        self.buckets = [0] * (len(bounds) + 1)
        self.latest: dict[int, T] = {}

    def take(self, seconds: float, one: T | None) -> None:
        """Add one that took so long; None is not kept."""
        bucket = bisect_left(self.bounds, seconds)
        self.count += 1
        self.sum += seconds
        self.buckets[bucket] += 1
        if seconds < self.least:  # noqa: PLR1730 - each decision comes here, and a call of `min` takes a quarter of it
            self.least = seconds
        if seconds > self.most:  # noqa: PLR1730 - as above
            self.most = seconds
        # The latest of each bucket: a reader who sees a slow one wants its trace.
        if one is not None:
            self.latest[bucket] = one

    def copy(self) -> Durations[T]:
        """Return a row with the same content."""
        new: Durations[T] = Durations(self.bounds)
        new.add(self)
        return new

    def add(self, other: Durations[T]) -> None:
        """Add what another row holds."""
        self.count += other.count
        self.sum += other.sum
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)
        self.buckets = [one + more for one, more in zip(self.buckets, other.buckets, strict=True)]
        self.latest |= other.latest


class Flows:
    """The flow of spans and log records to their receivers. With `delta` it is told since the last time."""

    def __init__(self, *, delta: bool) -> None:
        self._delta = delta
        self._before: dict[str, Mapping[str, int]] = {}
        self._flows: list[tuple[str, Callable[[], Flow]]] = []

    def watch(self, what: str, flow: Callable[[], Flow]) -> None:
        """Report the flow of the spans (`traces`) or the log records (`logs`)."""
        self._flows.append((what, flow))

    def counts(self) -> dict[str, Counts]:
        """Return the counts of all flows, by metric."""
        found: dict[str, Counts] = {}
        for what, look in self._flows:
            flow = look()
            processed, exported, queue, capacity = _FLOWS[what]
            found[processed.name] = self.since_last(processed, flow.processed)
            found[exported.name] = self.since_last(exported, flow.exported)
            found[queue.name] = {(): flow.queued}
            found[capacity.name] = {(): flow.capacity}
        return found

    def since_last(self, metric: names.Metric, counts: Mapping[str, int]) -> Counts:
        """Return counts since the last collection, or from the beginning."""
        before, self._before[metric.name] = self._before.get(metric.name, {}), counts
        return {
            (problem,): count - before.get(problem, 0) if self._delta else count for problem, count in counts.items()
        }


def count_one(counts: Counts, labels: Labels) -> None:
    """Count one; label sets after the first `_LABEL_SETS` are counted together."""
    if labels not in counts and len(counts) >= _LABEL_SETS:
        labels = (names.OTHER,) * len(labels)
    counts[labels] = counts.get(labels, 0) + 1


def named(metric: names.Metric, values: Iterable[str]) -> dict[str, str]:
    """Return labels by name, without those that have no value."""
    return {label: value for label, value in zip(metric.labels, values, strict=True) if value}


def no_counts(metrics: Iterable[names.Metric]) -> dict[str, Counts]:
    """Return the counts of counters before anything is counted.

    Those without labels are reported from the beginning, so that the first increase shows as an increase.
    """
    return {metric.name: {} if metric.labels else {(): 0} for metric in metrics if metric.kind == "counter"}


def _temporality(*, delta: bool) -> AggregationTemporality:
    return AggregationTemporality.DELTA if delta else AggregationTemporality.CUMULATIVE
