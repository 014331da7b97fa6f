"""What the whole service sends to a real receiver."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from pdp.client import ToolCall
from pdp.record import read_records
from pdp.serving.transports import LOOP
from pdp.telemetry import names
from pdp.telemetry.encoder import Item, SpanEncoder
from pdp.testing.otlp import OTLPReceiver, attributes_of
from tests.machinery.servers.running import PATIENCE
from tests.telemetry.service import PARENT, REPORTED, TRACE, TRACEPARENT, Service, everything, refused, serving


def test_one_span_and_one_log_record_for_each_of_10000_decisions(tmp_path: Path) -> None:
    """Every decision arrives once as a span and once as a log record, and is once in the decision log."""
    with OTLPReceiver() as receiver:
        with serving(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint) as service:
            answers = [
                answer.decision_id for _ in range(100) for answer in service.pep.batch([_call(service, "plan")] * 100)
            ]

        spans = [attributes_of(span)["pdp.decision.id"] for span in receiver.spans if span.name == "pdp.authorize"]
        logs = [attributes_of(record)["pdp.decision.id"] for record in receiver.logs]

    records = [located.record for located in read_records(tmp_path / "data" / "record")]
    kept = [record["id"] for record in records if record["kind"] == "decision"]
    assert 10_000 == len(set(answers))
    assert sorted(answers) == sorted(spans) == sorted(logs) == sorted(kept)


def test_what_the_loop_decides_is_encoded_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every decision of the loop arrives once as a span and once as a log record, and its thread has encoded them."""
    pytest.importorskip("ngh2", reason="`ngh2` is not installed: run `make`")
    threads, encode = set[str](), SpanEncoder.__call__

    def noted(encoder: SpanEncoder, item: Item) -> bytes:
        threads.add(threading.current_thread().name)
        return encode(encoder, item)

    monkeypatch.setattr(SpanEncoder, "__call__", noted)
    with OTLPReceiver() as receiver:
        with serving(tmp_path, listener=LOOP, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint) as service:
            answers = [service.session.authorize("desk", "read", {"what": "plan"}).decision_id for _ in range(100)]

        spans = [attributes_of(span)["pdp.decision.id"] for span in receiver.spans if span.name == "pdp.authorize"]
        logs = [attributes_of(record)["pdp.decision.id"] for record in receiver.logs]

    assert sorted(answers) == sorted(spans) == sorted(logs)
    assert "pdp-loop" in threads


def test_answer_trace_log_and_record_name_the_same_span(tmp_path: Path) -> None:
    """One decision has one trace and one span, wherever it is told of; the caller's sampling flag changes nothing."""
    with OTLPReceiver() as receiver:
        with serving(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint) as service:
            answer = service.session.authorize("desk", "read", {"what": "plan"}, traceparent=TRACEPARENT)

        (span,) = [span for span in receiver.spans if span.name == "pdp.authorize"]
        (log,) = receiver.logs

    (record,) = [one.record for one in read_records(tmp_path / "data" / "record") if one.record["kind"] == "decision"]
    ids = (answer.trace_id, answer.span_id)
    assert (TRACE, PARENT) == (answer.trace_id, span.parent_span_id.hex())
    assert ids == (span.trace_id.hex(), span.span_id.hex()) == (log.trace_id.hex(), log.span_id.hex())
    assert ids == (record["trace_id"], record["span_id"])


@pytest.mark.parametrize(("token", "child"), [("pep", True), ("approver", False), ("nobody", False)])
def test_whose_trace_a_refused_request_joins(tmp_path: Path, token: str, child: bool) -> None:  # noqa: FBT001 - a column of the table
    """A gateway's trace is joined; that of a caller in another role, or of a stranger, is linked."""
    with OTLPReceiver() as receiver:
        with serving(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint) as service:
            refused(service, token)

        (span,) = [span for span in receiver.spans if span.name == "pdp.request.refused"]

    links = [(link.trace_id.hex(), link.span_id.hex()) for link in span.links]
    place = (span.trace_id.hex() == TRACE, span.parent_span_id.hex(), links)
    assert (True, PARENT, []) == place if child else (False, "", [(TRACE, PARENT)]) == place


def test_every_metric_of_the_table_is_sent(tmp_path: Path) -> None:
    """The server sends its metrics as `names.py` has them, with these labels and no other metric."""
    with OTLPReceiver() as receiver:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_METRIC_EXPORT_INTERVAL": "50",
        }
        with serving(tmp_path, **variables) as service:
            everything(service)
            # At the end the store is closed before the last report, which then says nothing of sessions.
            assert receiver.wait_for(lambda: {"pdp.sessions", "pdp.messages.sent"} <= set(receiver.metrics), PATIENCE)

    sent = receiver.metrics
    assert {metric.name for metric in REPORTED} == set(sent)
    for metric in REPORTED:
        found = sent[metric.name]
        assert (metric.unit, metric.description, metric.kind) == (found.unit, found.description, _kind(found))
        labels = {label for point in _points(found) for label in attributes_of(point)}
        # `error.type` stands where something was dropped: `test_metrics.py`.
        assert set(metric.labels) - {names.ERROR_TYPE} == labels - {names.ERROR_TYPE}, metric.name


def test_the_slow_decisions_lead_to_their_traces(tmp_path: Path) -> None:
    """An exemplar of the histogram names the trace and span of a decision that was answered."""
    with OTLPReceiver() as receiver:
        with serving(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint) as service:
            answer = service.session.authorize("desk", "read", {"what": "plan"})

        (point,) = receiver.metrics["pdp.decision.duration"].histogram.data_points

    (exemplar,) = point.exemplars
    assert (answer.trace_id, answer.span_id) == (exemplar.trace_id.hex(), exemplar.span_id.hex())


def _call(service: Service, what: str) -> ToolCall:
    return ToolCall(server="desk", tool="read", arguments={"what": what}, session_handle=service.session.handle)


def _kind(metric: Metric) -> str:
    kind = metric.WhichOneof("data")
    if kind != "sum":
        return str(kind)
    return "counter" if metric.sum.is_monotonic else "updowncounter"


def _points(metric: Metric) -> list[Any]:
    return list(getattr(metric, metric.WhichOneof("data") or "").data_points)
