"""The variables by which OpenTelemetry is told to send something, known without loading it, which takes a moment."""

from __future__ import annotations

from collections.abc import Iterable


def ask_to_send(variables: Iterable[str]) -> bool:
    """Say whether one of these variables concerns what is sent."""
    return any(
        one.startswith("OTEL_EXPORTER_OTLP_") or (one.startswith("OTEL_") and one.endswith("_EXPORTER"))
        for one in variables
    )
