"""Translate names into Prometheus's, as the OpenTelemetry Collector and Prometheus's own OTLP receiver do.

https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/#otlp-metric-points-to-prometheus
"""

from __future__ import annotations

import re

from pdp.telemetry.names import Metric

_UNITS = {"s": "seconds"}
_FOREIGN = re.compile(r"[^a-zA-Z0-9:]+")


def series(metric: Metric) -> tuple[str, ...]:
    """Return the names under which Prometheus keeps a metric."""
    name = label(metric.name)
    # A unit in braces says what is counted; Prometheus omits it.
    unit = _UNITS.get(metric.unit, "")
    name = f"{name}_{unit}" if unit else name
    if metric.kind == "counter":
        return (f"{name}_total",)
    if metric.kind == "histogram":
        return (f"{name}_bucket", f"{name}_count", f"{name}_sum")
    return (name,)


def label(name: str) -> str:
    """Return the name under which Prometheus keeps a label."""
    return _FOREIGN.sub("_", name)


def labels(metric: Metric) -> tuple[str, ...]:
    """Return a metric's labels as Prometheus keeps them."""
    own = tuple(label(name) for name in metric.labels)
    return (*own, "le") if metric.kind == "histogram" else own
