"""Count decisions and events, with few label values, and report the counts as OpenTelemetry's metrics.

Each addition to one of the SDK's counters or histograms takes 5 to 8 µs, and one decision would need three. Here a
decision is one addition to one row, and the metrics are computed from the rows when they are collected.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from threading import Lock
from typing import Protocol

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from pdp.errors import PDPError
from pdp.model import Basis, CacheResult, Decision, Outcome, SessionState
from pdp.observer import Event, EventKind
from pdp.telemetry import names
from pdp.telemetry.attributes import bounded
from pdp.telemetry.pipeline import Flow
from pdp.telemetry.points import Counts, Durations, Flows, Interval, Labels, count_one, no_counts
from pdp.telemetry.settings import Temporality

CountSessions = Callable[[], Mapping[SessionState, int]]
_Rows = dict[tuple[Outcome, Basis, CacheResult], Durations[Decision]]

# A remembered answer takes some µs, an evaluated one some tens; a slow disk shows in the upper half.
DURATION_BOUNDS = (5e-6, 1e-5, 2e-5, 4e-5, 8e-5, 1.6e-4, 3.2e-4, 6.4e-4, 1.28e-3, 2.5e-3, 5e-3, 1e-2, 5e-2, 0.25, 1)
# Servers confirm within some milliseconds; leases last from 0.3 to 5 seconds.
FENCE_BOUNDS = (1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 0.75, 1.1, 2.5, 5.1)


class RecordStanding(Protocol):
    """The state of the record: how many records wait, are not signed yet, and are lost for good."""

    @property
    def waiting(self) -> int: ...  # noqa: D102 - see above

    @property
    def unsigned(self) -> int: ...  # noqa: D102 - see above

    @property
    def lost(self) -> int: ...  # noqa: D102 - see above


class MessageStanding(Protocol):
    """How a receiver of messages is served: how many wait for it, and how many were given up."""

    @property
    def receiver(self) -> str: ...  # noqa: D102 - see above

    @property
    def waiting(self) -> int: ...  # noqa: D102 - see above

    @property
    def dead(self) -> int: ...  # noqa: D102 - see above


LookAtMessages = Callable[[], Iterable[MessageStanding]]


class Metrics:
    """All metrics of the PDP. Safe for threads, except that `collect` is for one thread."""

    def __init__(
        self,
        resource: Resource,
        version: str,
        *,
        temporality: Temporality = "cumulative",
        exemplars: bool = True,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._resource = resource
        self._scope = InstrumentationScope(names.SCOPE, version)
        self._delta = temporality != "cumulative"
        self._exemplars = exemplars
        self._now = now
        self._started = now()
        self._lock = Lock()
        self._rows: _Rows = {}
        self._counts = no_counts(names.METRICS)
        self._flows = Flows(delta=self._delta)
        self._bundle_version = ""
        self._look_at_bundle: Callable[[], str] | None = None
        self._count_sessions: CountSessions | None = None
        self._count_freezes: Callable[[], int] | None = None
        self._look_at_record: Callable[[], RecordStanding] | None = None
        self._look_at_messages: LookAtMessages | None = None
        self._fences: dict[str, Durations[None]] = {}
        self._look_at_lease: Callable[[], float] | None = None

    def decision(self, decision: Decision) -> None:
        """Count a decision."""
        ruling = decision.ruling
        seconds = decision.duration_us / 1_000_000
        key = (ruling.outcome, ruling.basis, decision.cache_result)
        with self._lock:
            row = self._rows.get(key)
            if row is None:
                row = self._rows[key] = Durations(DURATION_BOUNDS)
            row.take(seconds, decision if decision.span_id else None)
        for policy in ruling.errors:
            self.count(names.POLICY_ERRORS, policy)

    def event(self, event: Event) -> None:
        """Count an event."""
        if event.kind is EventKind.REQUEST_REFUSED:
            self.count(names.REFUSED, bounded(event.facts.get("rpc", "")), event.facts.get("status", ""))
        elif event.kind is EventKind.BUNDLE_ACTIVATED:
            self._bundle_version = event.facts.get("version", "")
            self.count(names.BUNDLE_ACTIVATIONS)
        elif event.kind is EventKind.BUNDLE_REFUSED:
            self.count(names.BUNDLE_FAILURES)
        elif event.kind.startswith("session."):
            self.count(names.SESSION_EVENTS, event.kind.removeprefix("session."))

    def count(self, metric: names.Metric, *labels: str) -> None:
        """Count one."""
        with self._lock:
            count_one(self._counts[metric.name], labels)

    def fenced(self, by: str, seconds: float) -> None:
        """Count a change that has waited for other servers, for so many seconds."""
        with self._lock:
            self._fences.setdefault(by, Durations(FENCE_BOUNDS)).take(seconds, None)

    def watch_lease(self, look: Callable[[], float]) -> None:
        """Report how many seconds ago the last lease of the machine began, as `look` returns it at each collection."""
        self._look_at_lease = look

    def watch_sessions(self, count: CountSessions) -> None:
        """Report sessions by state, as `count` returns them at each collection."""
        self._count_sessions = count

    def watch_freezes(self, count: Callable[[], int]) -> None:
        """Report how many freezes there are, as `count` returns it at each collection."""
        self._count_freezes = count

    def watch_bundle(self, look: Callable[[], str]) -> None:
        """Report the bundle in force, whose version `look` returns.

        Without it, the version is the one that was activated here.
        """
        self._look_at_bundle = look
        self._bundle_version = look()

    def watch_record(self, look: Callable[[], RecordStanding]) -> None:
        """Report the state of the record, as `look` returns it at each collection."""
        self._look_at_record = look

    def watch_messages(self, look: LookAtMessages) -> None:
        """Report how receivers of messages are served, as `look` returns it at each collection."""
        self._look_at_messages = look

    def watch_flow(self, what: str, flow: Callable[[], Flow]) -> None:
        """Report the flow of the spans (`traces`) or the log records (`logs`)."""
        self._flows.watch(what, flow)

    def collect(self) -> MetricsData:
        """Return all metrics as they are now, and reset those that are reported only once.

        These are exemplars, and counts that are not totals.
        """
        return self._read(forget=True)

    def peek(self) -> MetricsData:
        """Return all metrics as they are now, without a reset.

        Only for totals; can be used beside `collect`.
        """
        return self._read(forget=False)

    def _read(self, *, forget: bool) -> MetricsData:
        at = self._now()
        with self._lock:
            rows = {key: row.copy() for key, row in self._rows.items()}
            counts = {name: dict(found) for name, found in self._counts.items()}
            fences: dict[Labels, Durations[None]] = {(by,): row.copy() for by, row in self._fences.items()}
            if forget:
                self._forget()
        found: dict[str, Counts] = {**counts, **_of_rows(rows), **self._flows.counts(), **self._of_record()}
        found |= self._of_messages()
        found[names.SESSIONS.name], found[names.FREEZES.name] = self._sessions(), self._freezes()
        if self._look_at_bundle is not None:
            # While the version is unknown, as at the very end, report the last known one.
            self._bundle_version = self._look_at_bundle() or self._bundle_version
        found[names.BUNDLE.name] = {(self._bundle_version,): 1} if self._bundle_version else {}
        told = Interval(since=self._started, at=at, delta=self._delta)
        metrics = [told.numbers(metric, found[metric.name]) for metric in names.METRICS if found.get(metric.name)]
        if rows:
            by_outcome: dict[Labels, Durations[Decision]] = {}
            for (outcome, _, _), row in rows.items():
                by_outcome.setdefault((outcome.value,), Durations(DURATION_BOUNDS)).add(row)
            metrics.append(told.durations(names.DURATION, by_outcome, _exemplar if self._exemplars else None))
        if fences:
            metrics.append(told.durations(names.FENCE_DURATION, fences))
        if self._look_at_lease is not None:
            metrics.append(told.numbers(names.LEASE_AGE, {(): self._look_at_lease()}))
        if self._delta:
            self._started = at
        scoped = ScopeMetrics(self._scope, metrics, self._scope.schema_url or "")
        return MetricsData([ResourceMetrics(self._resource, [scoped], self._resource.schema_url)])

    def _forget(self) -> None:
        """Reset, after a collection, the values that are not totals."""
        if self._delta:
            self._rows, self._counts, self._fences = {}, no_counts(names.METRICS), {}
        for row in self._rows.values():
            row.latest = {}

    def _sessions(self) -> Counts:
        if self._count_sessions is None:
            return {}
        try:
            return {(state.value,): sessions for state, sessions in self._count_sessions().items()}
        except PDPError:
            return {}  # a gap in the curve shows that the store does not answer

    def _freezes(self) -> Counts:
        try:
            return {} if self._count_freezes is None else {(): self._count_freezes()}
        except PDPError:
            return {}  # as for sessions

    def _of_messages(self) -> dict[str, Counts]:
        try:
            standings = () if self._look_at_messages is None else tuple(self._look_at_messages())
        except PDPError:
            return {}  # as for sessions
        return {
            names.MESSAGES_WAITING.name: {(one.receiver,): one.waiting for one in standings},
            names.MESSAGES_DEAD.name: {(one.receiver,): one.dead for one in standings},
        }

    def _of_record(self) -> dict[str, Counts]:
        if self._look_at_record is None:
            return {}
        standing = self._look_at_record()
        lost = self._flows.since_last(names.RECORD_LOST, {"": standing.lost})
        return {
            names.RECORD_LOST.name: {(): lost["",]},
            names.RECORD_WAITING.name: {(): standing.waiting},
            names.RECORD_UNSIGNED.name: {(): standing.unsigned},
        }


def _of_rows(rows: _Rows) -> dict[str, Counts]:
    decisions: Counts = {}
    lookups: Counts = {}
    for (outcome, basis, cache), row in rows.items():
        decided = (outcome.value, basis.value)
        decisions[decided] = decisions.get(decided, 0) + row.count
        if cache is not CacheResult.NONE:
            lookups[cache.value,] = lookups.get((cache.value,), 0) + row.count
    return {names.DECISIONS.name: decisions, names.CACHE_LOOKUPS.name: lookups}


def _exemplar(decision: Decision) -> Exemplar:
    return Exemplar(
        filtered_attributes={},
        value=decision.duration_us / 1_000_000,
        time_unix_nano=round(decision.decided_at * 1_000_000) * 1000,
        span_id=int(decision.span_id, 16),
        trace_id=int(decision.trace_id, 16),
    )
