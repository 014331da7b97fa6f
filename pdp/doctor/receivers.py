"""Check that each receiver of telemetry accepts a request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Final

from pdp.doctor.finding import Deployment, Finding, fine, warning
from pdp.doctor.finding import problem as broken
from pdp.errors import ConfigurationError
from pdp.telemetry.settings import Endpoint, TelemetrySettings
from pdp.telemetry.transport import open_attempt

_CHECK: Final = "telemetry"
_SECONDS: Final = 5.0


def receivers(deployment: Deployment) -> Iterator[Finding]:
    """Send an empty request, which is valid, to each receiver."""
    chosen = deployment.settings.telemetry.exporter
    try:
        wanted = TelemetrySettings.from_environment(deployment.environ, exporter="" if chosen == "auto" else chosen)
        for endpoint in wanted.endpoints.values():
            yield _asked(endpoint)
    except ConfigurationError as error:
        yield broken(_CHECK, str(error), "fix the variable: with this value the server does not start")
        return
    if not wanted.endpoints:
        yield fine(_CHECK, "nothing is sent; `OTEL_EXPORTER_OTLP_ENDPOINT` names a receiver")


def _asked(endpoint: Endpoint) -> Finding:
    with closing(open_attempt(endpoint)) as way:
        answer = way.attempt(b"", min(endpoint.timeout, _SECONDS))
    target = f"`{endpoint.target}`"
    if answer.problem:
        # Decisions do not wait for telemetry: a server works without it.
        remedy = "is the receiver running, and are the `OTEL_EXPORTER_OTLP_*` variables right?"
        return warning(_CHECK, f"{target} does not accept {endpoint.signal}: {answer.problem}", remedy)
    return fine(_CHECK, f"{target} accepts {endpoint.signal}")
