"""Provide what a program with settings of its own sends to receivers of OpenTelemetry."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pdp.observer import DoorObserver
from pdp.telemetry.variables import ask_to_send

_END_SECONDS: Final = 3.0


@contextmanager
def observing(service: str, exporter: str) -> Iterator[DoorObserver | None]:
    """Provide what sends traces and metrics, and send what waits at the end; None when nothing is sent.

    An empty exporter leaves it to the variables `OTEL_…`.
    """
    if not exporter and not ask_to_send(os.environ):
        yield None
        return
    from pdp.telemetry.doors import build_door_telemetry  # noqa: PLC0415 - only what sends needs OpenTelemetry

    telemetry = build_door_telemetry(service, exporter=exporter)
    try:
        yield telemetry
    finally:
        if telemetry is not None:
            telemetry.shutdown(_END_SECONDS)
