"""Count decisions and events as OpenTelemetry metrics with few label values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from threading import Lock

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from pdp.errors import PDPError
from pdp.model import CacheResult, Decision, SessionState
from pdp.observer import Event
from pdp.telemetry import names
from pdp.telemetry.spans import bounded

CountSessions = Callable[[], Mapping[SessionState, int]]

_LABEL_SETS = 500
# A remembered answer takes some µs, an evaluated one some tens, and a slow disk shows in the upper half.
_DURATION_BUCKETS = (5e-6, 1e-5, 2e-5, 4e-5, 8e-5, 1.6e-4, 3.2e-4, 6.4e-4, 1.28e-3, 2.5e-3, 5e-3, 1e-2, 5e-2, 0.25, 1)


class Metrics:
    """All metrics of the PDP."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._bundle_version = ""
        self._decisions = _Tally(
            meter, names.DECISIONS, "{decision}", "Decisions by outcome and basis.", (names.OUTCOME, names.BASIS)
        )
        self._duration = meter.create_histogram(
            names.DURATION,
            "s",
            "Time that a decision takes, without transport.",
            explicit_bucket_boundaries_advisory=_DURATION_BUCKETS,
        )
        self._cache_lookups = _Tally(
            meter, names.CACHE_LOOKUPS, "{lookup}", "Look-ups in the decision cache.", (names.CACHE,)
        )
        self._policy_errors = _Tally(
            meter, names.POLICY_ERRORS, "{error}", "Policies that could not be evaluated.", (names.POLICY,)
        )
        self._session_events = _Tally(
            meter, names.SESSION_EVENTS, "{event}", "What happened to sessions.", (names.SESSION_EVENT,)
        )
        self._bundle_activations = _Tally(
            meter, names.BUNDLE_ACTIVATIONS, "{activation}", "Bundles that were put into force."
        )
        self._bundle_failures = _Tally(meter, names.BUNDLE_FAILURES, "{failure}", "Bundles that could not be loaded.")
        self._refused = _Tally(
            meter, names.REFUSED, "{request}", "Requests without an answer.", (names.RPC_METHOD, names.RPC_STATUS)
        )
        self.record_failures = _Tally(meter, names.RECORD_FAILURES, "{record}", "Records that could not be written.")
        meter.create_observable_gauge(names.BUNDLE, [self._observe_bundle], "1", "The bundle in force; always 1.")

    def decision(self, decision: Decision) -> None:
        """Count a decision."""
        outcome = decision.ruling.outcome.value
        self._decisions.add(outcome, decision.ruling.basis.value)
        self._duration.record(decision.duration_us / 1_000_000, {names.OUTCOME: outcome})
        if decision.cache_result is not CacheResult.NONE:
            self._cache_lookups.add(decision.cache_result.value)
        for policy in decision.ruling.errors:
            self._policy_errors.add(policy)

    def event(self, event: Event) -> None:
        """Count an event."""
        if event.kind == "request.refused":
            self._refused.add(bounded(event.facts.get("rpc", "")), event.facts.get("status", ""))
        elif event.kind == "bundle.activated":
            self._bundle_version = event.facts.get("version", "")
            self._bundle_activations.add()
        elif event.kind == "bundle.refused":
            self._bundle_failures.add()
        elif event.kind.startswith("session."):
            self._session_events.add(event.kind.removeprefix("session."))

    def watch_sessions(self, count: CountSessions) -> None:
        """Report sessions by state."""

        def observe(_: CallbackOptions) -> Iterator[Observation]:
            try:
                counts = count()
            except PDPError:
                return  # a gap in the curve says that the store is silent
            for state, sessions in counts.items():
                yield Observation(sessions, {names.STATE: state.value})

        self._meter.create_observable_gauge(names.SESSIONS, [observe], "{session}", "Sessions by state.")

    def _observe_bundle(self, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(1, {names.BUNDLE_VERSION: self._bundle_version})] if self._bundle_version else []


class _Tally:
    """A counter by labels.

    The SDK's own counter takes about 5 µs to add; this one adds to a dictionary that is read when metrics are
    collected. Label values beyond the first `_LABEL_SETS` combinations are counted together.
    """

    def __init__(self, meter: Meter, name: str, unit: str, description: str, labels: tuple[str, ...] = ()) -> None:
        self._labels = labels
        self._counts: dict[tuple[str, ...], int] = {}
        self._lock = Lock()
        meter.create_observable_counter(name, [self._observe], unit, description)

    def add(self, *values: str) -> None:
        """Count one for these label values."""
        with self._lock:
            if values not in self._counts and len(self._counts) >= _LABEL_SETS:
                values = (names.OTHER,) * len(values)
            self._counts[values] = self._counts.get(values, 0) + 1

    def _observe(self, _: CallbackOptions) -> Iterable[Observation]:
        with self._lock:
            counts = dict(self._counts)
        return [Observation(count, dict(zip(self._labels, values, strict=True))) for values, count in counts.items()]
