"""Write telemetry to standard error as JSON, one object per line: for development."""

from __future__ import annotations

import json
import sys
import time

from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from pdp import __version__
from pdp.observer import Event
from pdp.telemetry import names, wire
from pdp.telemetry.encoder import Item, decision_record, span_of
from pdp.telemetry.limits import AttributeLimits
from pdp.telemetry.observer import Sink
from pdp.telemetry.sdk import readable_span


def span_writer(digest_key: bytes, limits: AttributeLimits, resource: Resource) -> Sink:
    """Return a sink that writes each span as the SDK does."""
    scope = InstrumentationScope(names.SCOPE, __version__)

    def write(item: Item) -> None:
        write_span(span_of(item, digest_key, limits), resource, scope)

    return write


def write_span(span: wire.Span, resource: Resource, scope: InstrumentationScope) -> None:
    """Write a span as the SDK does."""
    _write(readable_span(span, resource, scope).to_json(indent=None))


def record_writer(digest_key: bytes, limits: AttributeLimits) -> Sink:
    """Return a sink that writes each log record."""

    def write(item: Item) -> None:
        decision, _ = item
        if isinstance(decision, Event):
            return
        record = decision_record(decision, digest_key, limits, time.time_ns())
        shown = {
            "event": record.event,
            "time_unix_nano": record.at,
            "severity": record.severity_text,
            "body": record.body,
            "trace_id": record.trace_id,
            "span_id": record.span_id,
            "attributes": dict(record.attributes),
        }
        _write(json.dumps(shown))

    return write


def write_metrics(collected: MetricsData) -> None:
    """Write all metrics."""
    _write(collected.to_json(indent=None))


def _write(line: str) -> None:
    sys.stderr.write(f"{line}\n")
