"""Answers the standard questions about health, for probes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping

from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from pdp.errors import NotFoundError

HEALTH = "grpc.health.v1.Health"


class HealthHandlers:
    """Says whether the server serves, until it drains.

    `healthy` says it of each service by name, is called each time, and never raises; the empty name means the whole
    server. `every` is the interval of a watcher's checks, in seconds.
    """

    def __init__(self, healthy: Mapping[str, Callable[[], bool]], *, every: float) -> None:
        self._healthy = healthy
        self._every = every
        self._draining = threading.Event()

    def drain(self) -> None:
        """Answer from now on that the server does not serve."""
        self._draining.set()

    def check(self, request: HealthCheckRequest, _: object = None) -> HealthCheckResponse:
        """Say whether a service is served now. Raise `NotFoundError` for one that there is not."""
        if request.service not in self._healthy:
            raise NotFoundError("no such service")
        return self._answer(request.service)

    def watch(self, request: HealthCheckRequest, _: object, over: threading.Event) -> Iterator[HealthCheckResponse]:
        """Yield whether a service is served, now and on every change, until `over`."""
        last: HealthCheckResponse | None = None
        while not over.is_set():
            answer = self._answer(request.service)
            if answer != last:
                last = answer
                yield answer
            over.wait(self._every)

    def _answer(self, service: str) -> HealthCheckResponse:
        healthy = self._healthy.get(service)
        if healthy is None:
            return HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
        serving = not self._draining.is_set() and healthy()
        return HealthCheckResponse(status=HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING)
