"""What is counted."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import AggregationTemporality, HistogramDataPoint, NumberDataPoint
from opentelemetry.sdk.resources import Resource

from pdp.errors import StoreUnavailableError
from pdp.model import Basis, CacheResult, Outcome, SessionState, TraceParent
from pdp.observer import Event, EventKind
from pdp.telemetry.metrics import Metrics
from pdp.telemetry.observer import Telemetry
from pdp.telemetry.pipeline import Flow
from pdp.telemetry.settings import Temporality
from pdp.testing.decisions import a_decision

NO_PARENT = TraceParent()


class Metered:
    """Telemetry and what it would export."""

    def __init__(self, *, temporality: Temporality = "cumulative", exemplars: bool = True) -> None:
        self.metrics = Metrics(Resource({}), "1", temporality=temporality, exemplars=exemplars)
        self.telemetry = Telemetry(spans=lambda _: None, metrics=self.metrics)

    def decide(self, **changes: Any) -> None:
        """Observe one decision."""
        self.telemetry.decision(a_decision(**changes), NO_PARENT)

    def event(self, kind: str, **facts: str) -> None:
        """Observe one event."""
        self.telemetry.event(Event(kind=EventKind(kind), at=1_800_000_000.0, facts=facts))

    def events(self, kind: str, times: int) -> None:
        """Observe the same event several times."""
        for _ in range(times):
            self.event(kind)

    def points(self, name: str) -> list[Any]:
        """Return the data points of a metric."""
        return [
            point
            for resource in self.metrics.collect().resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def values(self, name: str) -> dict[tuple[tuple[str, object], ...], int | float]:
        """Return the values of a metric by its labels."""
        points: list[NumberDataPoint] = self.points(name)
        return {tuple(sorted((point.attributes or {}).items())): point.value for point in points}


def test_decisions_by_outcome_and_basis() -> None:
    """Each decision is counted once, by outcome and basis."""
    metered = Metered()

    metered.decide()
    metered.decide()
    metered.decide(outcome=Outcome.DENY, basis=Basis.FORBID)

    assert metered.values("pdp.decisions") == {
        (("pdp.basis", "permit"), ("pdp.outcome", "allow")): 2,
        (("pdp.basis", "forbid"), ("pdp.outcome", "deny")): 1,
    }


def test_duration_in_seconds() -> None:
    """The histogram is in seconds and tells a remembered answer from an evaluated one."""
    metered = Metered()

    metered.decide(duration_us=4.0)
    metered.decide(duration_us=70.0)

    (point,) = metered.points("pdp.decision.duration")
    assert isinstance(point, HistogramDataPoint)
    assert dict(point.attributes or {}) == {"pdp.outcome": "allow"}
    assert point.sum == pytest.approx(74e-6)
    assert [bound for bound, count in zip(point.explicit_bounds, point.bucket_counts, strict=False) if count] == [
        5e-6,
        8e-5,
    ]


def test_cache_lookups_by_result() -> None:
    """A decision of the gate, which never asked the cache, is no look-up."""
    metered = Metered()

    for result in CacheResult:
        metered.decide(cache_result=result)

    assert metered.values("pdp.cache.lookups") == {
        (("pdp.cache", "hit"),): 1,
        (("pdp.cache", "miss"),): 1,
        (("pdp.cache", "bypass"),): 1,
    }


def test_policy_errors_by_policy() -> None:
    """Each policy that could not be evaluated is counted under its id."""
    metered = Metered()

    metered.decide(errors=("a/broken", "b/broken"))
    metered.decide(errors=("a/broken",))

    assert metered.values("pdp.policy.errors") == {
        (("pdp.policy", "a/broken"),): 2,
        (("pdp.policy", "b/broken"),): 1,
    }


def test_refused_requests_by_rpc_and_status() -> None:
    """A request without an answer is counted by RPC and status."""
    metered = Metered()

    metered.event("request.refused", rpc="pdp.v1.SessionService/EndSession", status="UNAVAILABLE", field="")

    assert metered.values("pdp.requests.refused") == {
        (("rpc.method", "pdp.v1.SessionService/EndSession"), ("rpc.response.status_code", "UNAVAILABLE")): 1
    }


@pytest.mark.parametrize("event", ["requested", "approved", "denied", "ended", "revoked", "narrowed", "recaptured"])
def test_session_events_by_kind(event: str) -> None:
    """What happens to sessions is counted by its kind."""
    metered = Metered()

    metered.event(f"session.{event}")

    assert metered.values("pdp.session.events") == {(("pdp.session.event", event),): 1}


def test_the_bundle_in_force() -> None:
    """The gauge shows the last activated version alone; a refused bundle changes a count and not the gauge."""
    metered = Metered()

    metered.event("bundle.activated", version="sha256:1")
    metered.event("bundle.activated", version="sha256:2")
    metered.event("bundle.refused")

    assert metered.values("pdp.bundle.info") == {(("pdp.bundle.version", "sha256:2"),): 1}
    assert metered.values("pdp.bundle.activations") == {(): 2}
    assert metered.values("pdp.bundle.reload.failures") == {(): 1}


def test_record_failures() -> None:
    """A record that could not be written is counted."""
    metered = Metered()

    metered.telemetry.record_failed()

    assert metered.values("pdp.record.failures") == {(): 1}


def test_sessions_by_state() -> None:
    """Sessions are counted when metrics are collected, by asking; a silent store is a gap, not a zero."""
    metered = Metered()
    answers: list[Mapping[SessionState, int] | None] = [{SessionState.ACTIVE: 2, SessionState.ENDED: 1}, None]

    def count() -> Mapping[SessionState, int]:
        answer = answers.pop(0)
        if answer is None:
            raise StoreUnavailableError("the store does not answer")
        return answer

    metered.telemetry.watch_sessions(count)

    assert metered.values("pdp.sessions") == {
        (("pdp.session.state", "active"),): 2,
        (("pdp.session.state", "ended"),): 1,
    }
    assert metered.values("pdp.sessions") == {}


def test_freezes() -> None:
    """Freezes are counted when metrics are collected; a silent store is a gap, not a zero."""
    metered = Metered()
    answers: list[int | None] = [0, 2, None]

    def count() -> int:
        answer = answers.pop(0)
        if answer is None:
            raise StoreUnavailableError("the store does not answer")
        return answer

    metered.telemetry.watch_freezes(count)

    assert [{(): 0}, {(): 2}, {}] == [metered.values("pdp.freezes") for _ in range(3)]


def test_fences_by_what_ended_them() -> None:
    """How long changes waited for other servers, apart for those that were confirmed."""
    metered = Metered()
    for by, seconds in (("confirmed", 0.004), ("confirmed", 0.02), ("waited", 1.01)):
        metered.telemetry.fenced(by, seconds)

    assert [("confirmed", 2, 0.024), ("waited", 1, 1.01)] == [
        (point.attributes["pdp.fence.by"], point.count, round(point.sum, 6))
        for point in metered.points("pdp.fence.duration")
    ]


def test_the_age_of_a_lease() -> None:
    """It is looked at when metrics are collected, and only where there are leases."""
    metered = Metered()
    before = metered.values("pdp.lease.age")
    ages = [0.25, 7.5]
    metered.telemetry.watch_lease(lambda: ages.pop(0))

    assert [{}, {(): 0.25}, {(): 7.5}] == [before, *(metered.values("pdp.lease.age") for _ in range(2))]


def test_labels_are_bounded() -> None:
    """Beyond 500 different label values everything is counted together, and nothing is lost."""
    metered = Metered()

    for number in range(600):
        metered.event("request.refused", rpc=f"odd/path{number}", status="UNIMPLEMENTED")

    values = metered.values("pdp.requests.refused")
    assert len(values) == 501
    assert values[("rpc.method", "_OTHER"), ("rpc.response.status_code", "_OTHER")] == 100


def test_threads_lose_no_count() -> None:
    """Events of many threads are all counted, also when the interpreter changes threads all the time."""
    metered = Metered()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-7)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: metered.events("bundle.refused", 2000), range(8)))
    finally:
        sys.setswitchinterval(interval)

    assert metered.values("pdp.bundle.reload.failures") == {(): 16_000}


def test_a_slow_decision_leads_to_its_trace() -> None:
    """Each bucket of the histogram has the trace and span of its latest decision as exemplar, once."""
    metered = Metered()

    metered.decide(duration_us=4.0)
    metered.decide(duration_us=4.5, trace_id="0af7651916cd43dd8448eb211c80319c", span_id="b7ad6b7169203331")
    metered.decide(duration_us=900.0, trace_id="1af7651916cd43dd8448eb211c80319c", span_id="17ad6b7169203331")

    (first,), (second,) = metered.points("pdp.decision.duration"), metered.points("pdp.decision.duration")
    assert [(f"{one.trace_id:x}", f"{one.span_id:x}", one.value) for one in first.exemplars] == [
        ("af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 4.5e-6),
        ("1af7651916cd43dd8448eb211c80319c", "17ad6b7169203331", 9e-4),
    ]
    assert second.exemplars == []


def test_no_exemplars_when_they_are_not_wanted() -> None:
    """`OTEL_METRICS_EXEMPLAR_FILTER=always_off` is heard."""
    metered = Metered(exemplars=False)

    metered.decide()

    (point,) = metered.points("pdp.decision.duration")
    assert point.exemplars == []


def test_delta_temporality() -> None:
    """With `delta`, each collection holds what is new since the one before, with its own start."""
    metered = Metered(temporality="delta")
    flows = [Flow(queued=0, capacity=9, processed={"": count}, exported={"": count}) for count in (3, 5)]
    metered.metrics.watch_flow("traces", lambda: flows.pop(0))

    metered.decide()
    metered.event("bundle.refused")
    first = _points(metered)
    metered.decide()
    metered.decide()
    second = _points(metered)

    assert [first[name] for name in ("pdp.decisions", "pdp.bundle.reload.failures", _PROCESSED)] == [1, 1, 3]
    assert [second[name] for name in ("pdp.decisions", "pdp.bundle.reload.failures", _PROCESSED)] == [2, 0, 2]
    assert (first["pdp.decision.duration"], second["pdp.decision.duration"]) == (1, 2)


_PROCESSED = "otel.sdk.processor.span.processed"


def _points(metered: Metered) -> dict[str, int | float]:
    """Return the first point of each metric, all of which count from the collection before."""
    (resource,) = metered.metrics.collect().resource_metrics
    (scope,) = resource.scope_metrics
    found: dict[str, int | float] = {}
    for metric in scope.metrics:
        data: Any = metric.data
        point = data.data_points[0]
        found[metric.name] = point.count if isinstance(point, HistogramDataPoint) else point.value
        assert "queue" in metric.name or data.aggregation_temporality is AggregationTemporality.DELTA
    return found


def test_what_becomes_of_spans() -> None:
    """Spans that were dropped or not taken are counted by what went wrong, and the queue is shown beside its bound."""
    metered = Metered()
    flow = Flow(queued=7, capacity=9, processed={"": 5, "queue_full": 2}, exported={"": 4, "UNAVAILABLE": 1})

    metered.metrics.watch_flow("traces", lambda: flow)

    assert metered.values(_PROCESSED) == {(): 5, (("error.type", "queue_full"),): 2}
    assert metered.values("otel.sdk.exporter.span.exported") == {(): 4, (("error.type", "UNAVAILABLE"),): 1}
    assert metered.values("otel.sdk.processor.span.queue.size") == {(): 7}
    assert metered.values("otel.sdk.processor.span.queue.capacity") == {(): 9}


@pytest.mark.parametrize("name", ["pdp.bundle.activations", "pdp.bundle.reload.failures", "pdp.record.failures"])
def test_counters_without_labels_begin_at_zero(name: str) -> None:
    """The first failure is an increase that an alert can see."""
    assert Metered().values(name) == {(): 0}
