"""The one table of RPCs: who may call what. What is not listed is not served."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final, Literal

from google.protobuf.message import Message
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

from pdp.model import Caller, Role
from pdp.v1 import audit_pb2 as audit
from pdp.v1 import authorization_pb2 as calls
from pdp.v1 import explain_pb2 as explanations
from pdp.v1 import policy_pb2 as policies
from pdp.v1 import session_pb2 as sessions

AUTHORIZATION = "pdp.v1.AuthorizationService"
SESSIONS = "pdp.v1.SessionService"
POLICIES = "pdp.v1.PolicyService"
AUDIT = "pdp.v1.AuditService"
HEALTH = "grpc.health.v1.Health"
REFLECTION = "grpc.reflection.v1.ServerReflection"
# The same under its former name, which most tools still try.
OLD_REFLECTION = "grpc.reflection.v1alpha.ServerReflection"

# Open to everyone without credentials, which probes cannot send. Says whether the server serves and nothing else.
PUBLIC: Final = "public"


class Shape(Enum):
    """How messages go: one and its answer; many and an answer to each; one and many answers; many and one answer."""

    UNARY = "unary"
    EXCHANGE = "exchange"
    FEED = "feed"
    UPLOAD = "upload"


class Lane(Enum):
    """Which threads serve an RPC. Lanes do not wait for each other."""

    CALLS = "calls"
    STREAMS = "streams"
    # What ends authority waits for nothing that a gateway does: a gateway has a lane of its own for it.
    ENDING = "ending"
    GATEWAY_ENDING = "ending by gateways"
    # Makes another bundle the running one, which may be what ends authority. Compiling it can take seconds.
    ACTIVATION = "activation"
    # Compiling and evaluating in the child process can take seconds.
    AUTHORING = "authoring"
    # A question may read many records, and first those that its index does not know yet.
    AUDIT = "audit"
    # Callers without credentials can fill these two and no other.
    PROBES = "probes"
    WATCHES = "watches"


# What is served at the control address too, and nothing else there.
CONTROL: Final = frozenset({Lane.ENDING, Lane.GATEWAY_ENDING, Lane.ACTIVATION, Lane.PROBES, Lane.WATCHES})
# A caller with the role of a gateway, whatever its other roles are, does not enter these.
_WITHOUT_GATEWAYS: Final = frozenset({Lane.ENDING, Lane.ACTIVATION})


@dataclass(frozen=True, slots=True, kw_only=True)
class RPC:
    """One row: an RPC, who may call it, and how it is served."""

    service: str
    method: str
    request: type[Message]
    roles: frozenset[Role] | Literal["public"]
    lane: Lane
    shape: Shape = Shape.UNARY

    @property
    def path(self) -> str:
        """Return the path under which the RPC is called."""
        return f"/{self.service}/{self.method}"

    @property
    def name(self) -> str:
        """Return the full name, as traces and the record spell it."""
        return f"{self.service}/{self.method}"

    def lane_for(self, caller: Caller) -> Lane:
        """Return the lane in which a call of this caller is served."""
        barred = Role.PEP in caller.roles and self.lane in _WITHOUT_GATEWAYS
        return Lane.GATEWAY_ENDING if barred else self.lane

    @property
    def handler(self) -> str:
        """Return the name of the function that answers: the method's, in lower case with underscores."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", self.method).lower()


_EVERY_CALLER = frozenset(Role)


def _row(
    service: str,
    method: str,
    request: type[Message],
    roles: set[Role] | frozenset[Role] | Literal["public"],
    lane: Lane,
    *,
    shape: Shape = Shape.UNARY,
) -> RPC:
    allowed = roles if roles == PUBLIC else frozenset(roles)
    return RPC(service=service, method=method, request=request, roles=allowed, lane=lane, shape=shape)


def _authorization() -> tuple[RPC, ...]:
    of, pep = AUTHORIZATION, {Role.PEP}
    return (
        _row(of, "Authorize", calls.AuthorizeRequest, pep, Lane.CALLS),
        _row(of, "BatchAuthorize", calls.BatchAuthorizeRequest, pep, Lane.CALLS),
        _row(of, "AuthorizeStream", calls.AuthorizeStreamRequest, pep, Lane.STREAMS, shape=Shape.EXCHANGE),
        _row(of, "ListTools", calls.ListToolsRequest, pep, Lane.CALLS),
    )


def _sessions() -> tuple[RPC, ...]:
    of, lane, ending = SESSIONS, Lane.CALLS, Lane.ENDING
    pep, approver, auditor, admin = Role.PEP, Role.APPROVER, Role.AUDITOR, Role.ADMIN
    return (
        _row(of, "RequestSession", sessions.RequestSessionRequest, {pep}, lane),
        _row(of, "ApproveSession", sessions.ApproveSessionRequest, {approver}, lane),
        _row(of, "DenySession", sessions.DenySessionRequest, {approver}, ending),
        _row(of, "EndSession", sessions.EndSessionRequest, {pep}, ending),
        _row(of, "RevokeSessions", sessions.RevokeSessionsRequest, {approver, admin}, ending),
        _row(of, "ReviewSession", sessions.ReviewSessionRequest, {approver}, lane),
        _row(of, "GetSession", sessions.GetSessionRequest, {pep, approver, auditor, admin}, lane),
        _row(of, "ListSessions", sessions.ListSessionsRequest, {pep, approver, auditor, admin}, lane),
        _row(of, "NarrowSession", sessions.NarrowSessionRequest, {pep, approver}, ending),
    )


def _policies() -> tuple[RPC, ...]:
    of, lane, activation = POLICIES, Lane.AUTHORING, Lane.ACTIVATION
    author, auditor, admin = Role.AUTHOR, Role.AUDITOR, Role.ADMIN
    return (
        _row(of, "GetBundle", policies.GetBundleRequest, {author, auditor, admin}, lane),
        _row(of, "ListBundles", policies.ListBundlesRequest, {author, auditor, admin}, lane),
        _row(of, "ActivateBundle", policies.ActivateBundleRequest, {author, admin}, activation),
        _row(of, "ReloadBundle", policies.ReloadBundleRequest, {author, admin}, activation),
        _row(of, "CheckBundle", policies.CheckBundleRequest, {author, admin}, lane, shape=Shape.UPLOAD),
        _row(of, "Evaluate", policies.EvaluateRequest, {author}, lane, shape=Shape.UPLOAD),
        _row(of, "Explain", explanations.ExplainRequest, {author, auditor}, lane),
    )


def _audit() -> tuple[RPC, ...]:
    of, lane, roles = AUDIT, Lane.AUDIT, {Role.AUDITOR, Role.ADMIN}
    return (
        _row(of, "GetRecord", audit.GetRecordRequest, roles, lane),
        _row(of, "ListRecords", audit.ListRecordsRequest, roles, lane),
        _row(of, "ListApprovals", audit.ListApprovalsRequest, roles, lane),
        _row(of, "ListTouched", audit.ListTouchedRequest, roles, lane),
        _row(of, "PlanRevocation", audit.PlanRevocationRequest, roles, lane),
    )


def _standard() -> tuple[RPC, ...]:
    info = ServerReflectionRequest
    return (
        _row(HEALTH, "Check", HealthCheckRequest, PUBLIC, Lane.PROBES),
        _row(HEALTH, "Watch", HealthCheckRequest, PUBLIC, Lane.WATCHES, shape=Shape.FEED),
        # Served only when the setting asks for it.
        *(
            _row(one, "ServerReflectionInfo", info, _EVERY_CALLER, Lane.STREAMS, shape=Shape.EXCHANGE)
            for one in (REFLECTION, OLD_REFLECTION)
        ),
    )


RPCS: Mapping[str, RPC] = MappingProxyType(
    {row.path: row for row in (*_authorization(), *_sessions(), *_policies(), *_audit(), *_standard())}
)
