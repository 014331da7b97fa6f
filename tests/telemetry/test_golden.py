"""Everything that is sent, pinned: `golden.json` changes only on purpose, for dashboards and queries rely on it.

To change it, run `python -m tests.telemetry.test_golden` and read the difference.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from pdp import __version__
from pdp.model import Basis, Obligation, Outcome, SessionState, TraceParent
from pdp.observer import Event, EventKind
from pdp.telemetry import names
from pdp.telemetry.build import build_telemetry
from pdp.telemetry.settings import TelemetrySettings
from pdp.testing.decisions import a_decision
from pdp.testing.otlp import OTLPReceiver, attributes_of

GOLDEN = Path(__file__).parent / "golden.json"
PARENT = TraceParent(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", tracestate="vendor=1")
EVENTS = (
    Event(kind=EventKind.SESSION_APPROVED, at=1.0),
    Event(
        kind=EventKind.SESSION_DECIDED,
        at=1.0,
        caller_id="lead",
        session_id="ses_a",
        user="alice",
        agent="coder",
        tenant="default",
        facts={
            "action": "pdp/approve_session",
            "basis": "forbid",
            "bundle_version": "sha256:1",
            "decision_id": "dec_a",
            "errors_left_out": "1",
            "outcome": "deny",
            "policies_left_out": "2",
            "principal": "lead",
        },
        lists={"errors": ("sessions/broken",), "policies": ("sessions/a", "sessions/b")},
    ),
    Event(kind=EventKind.BUNDLE_ACTIVATED, at=1.0, facts={"version": "sha256:1"}),
    Event(
        kind=EventKind.REQUEST_REFUSED,
        at=1.0,
        caller_id="gateway-1",
        session_id="ses_a",
        user="alice",
        agent="coder",
        tenant="default",
        facts={"rpc": "pdp.v1.AuthorizationService/Authorize", "status": "INTERNAL", "field": "call.server"},
    ),
)
_MANY = tuple(f"guardrails/{number:02}" for number in range(65))
DECISIONS = (
    a_decision(obligations=(Obligation("notice", '{"text":"x"}'),)),
    a_decision(
        outcome=Outcome.DENY,
        basis=Basis.ANCESTOR_DENIED,
        errors=("guardrails/broken",),
        log_resource=False,
        ancestor_id="ses_cccccccccccccccccccccccccc",
        ancestor_basis=Basis.POLICY_ERROR,
        detail="a policy could not be evaluated",
    ),
    a_decision(outcome=Outcome.DENY, basis=Basis.POLICY_ERROR, errors=("guardrails/broken",)),
    a_decision(policies=_MANY, errors=_MANY),
    a_decision(
        labels_added=("untrusted",),
        debits=(("max_calls", 3),),
        phases=(("gate", 4.5), ("policy", 80.0), ("ledger", 900.0)),
    ),
    a_decision(policies_lifted=("guardrails/after-reading",), access_request_id="acc_cccccccccccccccccccccccccc"),
)


class _Standing:
    """How a record stands."""

    waiting, unsigned, lost = 1, 2, 3


class _Served:
    """How a receiver of messages is served."""

    receiver, waiting, dead = "on-call", 1, 2


def sent() -> dict[str, Any]:
    """Return everything that is sent when everything happens: names, kinds, units, descriptions, labels."""
    with OTLPReceiver() as receiver, pytest.MonkeyPatch.context() as environment:
        environment.delenv("OTEL_RESOURCE_ATTRIBUTES", raising=False)
        settings = TelemetrySettings.from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint})
        telemetry = build_telemetry(settings, digest_key=b"k" * 32)
        telemetry.watch_sessions(lambda: {SessionState.ACTIVE: 1})
        telemetry.watch_freezes(lambda: 0)
        telemetry.watch_record(_Standing)
        telemetry.watch_messages(lambda: [_Served()])
        telemetry.message_tried("on-call", "500")
        telemetry.watch_lease(lambda: 0.5)
        telemetry.fenced("waited", 1.01)
        for decision in DECISIONS:
            telemetry.decision(decision, PARENT)
        for event in EVENTS:
            telemetry.event(event)
        assert telemetry.shutdown(timeout=30.0)
    return {
        "resource": sorted(receiver.resource),
        "scopes": _scopes(receiver),
        "spans": _spans(receiver),
        "log records": _logs(receiver),
        "metrics": _metrics(receiver),
    }


def _spans(receiver: OTLPReceiver) -> dict[str, Any]:
    return {
        span.name: {
            "kind": Span.SpanKind.Name(span.kind),
            "attributes": _merged(one.attributes for one in receiver.spans if one.name == span.name),
        }
        for span in receiver.spans
    }


def _logs(receiver: OTLPReceiver) -> dict[str, Any]:
    return {
        "event names": sorted({record.event_name for record in receiver.logs}),
        "severities": sorted({record.severity_text for record in receiver.logs}),
        "bodies": [record.body.string_value for record in receiver.logs],
        "attributes": _merged(record.attributes for record in receiver.logs),
    }


def _metrics(receiver: OTLPReceiver) -> dict[str, Any]:
    found = {}
    for name, metric in sorted(receiver.metrics.items()):
        kind = metric.WhichOneof("data") or ""
        data = getattr(metric, kind)
        points = list(data.data_points)
        found[name] = {
            "kind": kind,
            "unit": metric.unit,
            "description": metric.description,
            "labels": sorted({label for point in points for label in attributes_of(point)}),
            **({"monotonic": data.is_monotonic} if kind == "sum" else {}),
            **({} if kind == "gauge" else {"temporality": data.aggregation_temporality}),
            **({"bounds": list(points[0].explicit_bounds)} if kind == "histogram" else {}),
        }
    return found


def _scopes(receiver: OTLPReceiver) -> list[list[str]]:
    scopes = set()
    for request in receiver.requests:
        ((_, resources),) = request.ListFields()
        for resource in resources:
            scoped = next(value for field, value in resource.ListFields() if field.name.startswith("scope_"))
            scopes |= {(one.scope.name, one.scope.version.replace(__version__, "VERSION")) for one in scoped}
    return sorted(map(list, scopes))


def _merged(found: Any) -> dict[str, str]:
    kinds = {one.key: str(one.value.WhichOneof("value")) for attributes in found for one in attributes}
    return dict(sorted(kinds.items()))


def test_what_is_sent_is_what_was_sent_before() -> None:
    """Names, kinds, units, descriptions and labels of everything are those of the file."""
    assert json.loads(GOLDEN.read_text(encoding="utf-8")) == sent()


@pytest.mark.parametrize(
    ("on", "path"),
    [
        (names.DECIDED, ("spans", "pdp.authorize", "attributes")),
        (names.SESSION_DECIDED, ("spans", "pdp.session.decide", "attributes")),
        (names.REFUSED_REQUEST, ("spans", "pdp.request.refused", "attributes")),
        (names.LOGGED, ("log records", "attributes")),
    ],
)
def test_the_file_has_every_attribute_of_the_table(on: str, path: tuple[str, ...]) -> None:
    """The tables name what is pinned, no more and no less."""
    found = json.loads(GOLDEN.read_text(encoding="utf-8"))
    for name in path:
        found = found[name]

    assert {one.name for one in names.ATTRIBUTES if on in one.on} == set(found)


def test_the_file_has_every_metric_of_the_table() -> None:
    """The same for metrics."""
    assert {one.name for one in names.METRICS} == set(json.loads(GOLDEN.read_text(encoding="utf-8"))["metrics"])


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(sent(), indent=2) + "\n", encoding="utf-8")
