"""What every command of a door sends to receivers of OpenTelemetry, by the same settings as a server."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pdp.config.settings import Settings
from pdp.foundation import extras
from pdp.observer import DoorObserver
from pdp.telemetry.variables import ask_to_send

_LOG = logging.getLogger("pdp.doors")

_AUTO = "auto"
# Clients of MCP wait two seconds for the end of a server.
_END_SECONDS = 1.5


@contextmanager
def observing(
    settings: Settings, door: str, *, environ: Mapping[str, str] = os.environ
) -> Iterator[DoorObserver | None]:
    """Provide what observes the calls at a door, and send what waits at the end; None when nothing is sent.

    The service is named after the `door`. Raise `ConfigurationError` for settings that cannot work.
    """
    exporter = "" if settings.telemetry.exporter == _AUTO else settings.telemetry.exporter
    if not (exporter or ask_to_send(environ)):
        yield None
        return
    try:
        # Imported here: a door that sends nothing needs no OpenTelemetry, which takes a moment to load.
        from pdp.telemetry.doors import build_door_telemetry  # noqa: PLC0415
    except ImportError as error:
        # The variables may be meant for the agent alone: no call fails for want of telemetry.
        _LOG.warning("nothing is sent to receivers of OpenTelemetry: %s", extras.missing(error) or error)
        yield None
        return
    telemetry = build_door_telemetry(f"pdp-{door}", exporter=exporter, environ=environ)
    if telemetry is None:
        yield None
        return
    try:
        yield telemetry
    finally:
        telemetry.shutdown(_END_SECONDS)
