"""Show what the PDP does: one span per decision and per refused request, and metrics with few labels.

The trace is a view and may lose spans while the receiver is away; the decision log is the record.
"""

from pdp.telemetry.export import TelemetrySettings, build_telemetry
from pdp.telemetry.metrics import CountSessions
from pdp.telemetry.observer import Telemetry

__all__ = ["CountSessions", "Telemetry", "TelemetrySettings", "build_telemetry"]
