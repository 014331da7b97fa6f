"""Ask a server whether it serves."""

from __future__ import annotations

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from pdp.client.connection import Connection, checked_timeout
from pdp.client.errors import from_status


def is_serving(connection: Connection, service: str = "", *, timeout: float) -> bool:
    """Say whether a service is served; the empty name means the whole server.

    No token is needed. `timeout` is seconds. Raise `PDPClientError` when there is no answer.
    """
    checked_timeout("timeout", timeout)
    with connection.open(grpc) as channel:
        try:
            answer = HealthStub(channel).Check(HealthCheckRequest(service=service), timeout=timeout)
        except grpc.RpcError as error:
            raise from_status(error, connection.diagnosis) from None
    return bool(answer.status == HealthCheckResponse.SERVING)
