"""The one table of RPCs for tests. A new RPC has a row in the module of its service, and nothing else lists it."""

from __future__ import annotations

from collections.abc import Mapping

from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

from tests.machinery.rpcs.access import ACCESS
from tests.machinery.rpcs.audit import AUDIT
from tests.machinery.rpcs.authorization import AUTHORIZATION
from tests.machinery.rpcs.callers import CALLERS
from tests.machinery.rpcs.calltokens import CALL_TOKENS
from tests.machinery.rpcs.freezes import FREEZES
from tests.machinery.rpcs.policies import POLICIES
from tests.machinery.rpcs.reach import REACH
from tests.machinery.rpcs.row import ANY, EVERYONE, READERS, Row
from tests.machinery.rpcs.sessions import SESSIONS

# Those of the API, in its order.
OWN: Mapping[str, Row] = {
    **AUTHORIZATION,
    **SESSIONS,
    **ACCESS,
    **FREEZES,
    **POLICIES,
    **AUDIT,
    **CALLERS,
    **REACH,
    **CALL_TOKENS,
}
STANDARD: Mapping[str, Row] = {
    "Check": Row(ask=lambda _: HealthCheckRequest(), roles=dict.fromkeys(EVERYONE, ANY)),
    "Watch": Row(ask=lambda _: HealthCheckRequest(), roles=dict.fromkeys(EVERYONE, ANY)),
    "ServerReflectionInfo": Row(
        ask=lambda _: ServerReflectionRequest(list_services=""), roles=dict.fromkeys(READERS, ANY)
    ),
}
ALL: Mapping[str, Row] = {**OWN, **STANDARD}
