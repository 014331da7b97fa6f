"""Answers the standard services: health for probes, reflection for people on a command line."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from google.protobuf import descriptor_pool, text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import ReflectionServicer
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from pdp.errors import NotFoundError
from pdp.server.rpcs import AUTHORIZATION, POLICIES, SESSIONS
from pdp.serving.origin import Origin

# Health names that are no services of the API: whether the record is kept as configured, and whether sessions and
# bundles can change, while the server still serves.
RECORD = "pdp.record"
STORE = "pdp.store"
SERVICES = ("", AUTHORIZATION, SESSIONS, POLICIES, RECORD, STORE)


class HealthHandlers:
    """Says whether the server serves: it does while it has a bundle and a live store, until it drains.

    `healthy`, `record_healthy` for the record and `store_healthy` for writing the store are called each time and never
    raise. `every` is the interval of a watcher's checks, in seconds.
    """

    def __init__(
        self,
        healthy: Callable[[], bool],
        *,
        every: float,
        record_healthy: Callable[[], bool] = lambda: True,
        store_healthy: Callable[[], bool] = lambda: True,
    ) -> None:
        self._healthy, self._parts = healthy, {RECORD: record_healthy, STORE: store_healthy}
        self._every = every
        self._draining = threading.Event()

    def drain(self) -> None:
        """Answer from now on that the server does not serve."""
        self._draining.set()

    def check(self, request: HealthCheckRequest, _: Origin) -> HealthCheckResponse:
        """Say whether a service is served now; the empty name means the whole server."""
        if request.service not in SERVICES:
            raise NotFoundError("no such service")
        return self._answer(request.service)

    def watch(self, request: HealthCheckRequest, _: Origin, over: threading.Event) -> Iterator[HealthCheckResponse]:
        """Yield whether a service is served, now and on every change, until `over`."""
        last: HealthCheckResponse | None = None
        while not over.is_set():
            answer = self._answer(request.service)
            if answer != last:
                last = answer
                yield answer
            over.wait(self._every)

    def _answer(self, service: str) -> HealthCheckResponse:
        if service not in SERVICES:
            return HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
        healthy = self._parts.get(service, self._healthy)
        serving = not self._draining.is_set() and healthy()
        return HealthCheckResponse(status=HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING)


class ReflectionHandlers:
    """Describes the API to tools without its files, and the reflection service itself in both versions."""

    def __init__(self, services: tuple[str, ...]) -> None:
        _describe_reflection(descriptor_pool.Default())
        self._servicer = ReflectionServicer(services)

    def server_reflection_info(self, request: ServerReflectionRequest, _: Origin) -> ServerReflectionResponse:
        """Answer one question about the API."""
        answer: ServerReflectionResponse = next(self._servicer.ServerReflectionInfo(iter((request,)), None))
        return answer


def _describe_reflection(pool: descriptor_pool.DescriptorPool) -> None:
    """Add reflection v1 to the pool: the library knows only `v1alpha`, which has the same bytes."""
    old = FileDescriptorProto.FromString(reflection_pb2.DESCRIPTOR.serialized_pb)
    new = text_format.Parse(text_format.MessageToString(old).replace("v1alpha", "v1"), FileDescriptorProto())
    pool.AddSerializedFile(new.SerializeToString())
