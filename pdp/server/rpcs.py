"""The one table of RPCs: who may call what. An RPC that is not listed is not served."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from google.protobuf.message import Message
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

from pdp.model import Role
from pdp.serving.health import HEALTH
from pdp.serving.rpc import PUBLIC, RPC, Lane, Shape
from pdp.v1 import access_pb2 as access
from pdp.v1 import audit_pb2 as audit
from pdp.v1 import authorization_pb2 as calls
from pdp.v1 import caller_pb2 as callers
from pdp.v1 import calltoken_pb2 as calltokens
from pdp.v1 import explain_pb2 as explanations
from pdp.v1 import freeze_pb2 as freezes
from pdp.v1 import policy_pb2 as policies
from pdp.v1 import reach_pb2 as reach
from pdp.v1 import session_pb2 as sessions

AUTHORIZATION = "pdp.v1.AuthorizationService"
SESSIONS = "pdp.v1.SessionService"
ACCESS = "pdp.v1.AccessService"
POLICIES = "pdp.v1.PolicyService"
AUDIT = "pdp.v1.AuditService"
CALLERS = "pdp.v1.CallerService"
FREEZES = "pdp.v1.FreezeService"
REACH = "pdp.v1.ReachService"
CALL_TOKENS = "pdp.v1.CallTokenService"
REFLECTION = "grpc.reflection.v1.ServerReflection"
# The former name of the same service, which most tools still try.
OLD_REFLECTION = "grpc.reflection.v1alpha.ServerReflection"

# Names for questions about health that are no services: whether the record is kept as configured, and whether sessions
# and bundles can change, while the server still serves.
RECORD, STORE = "pdp.record", "pdp.store"

# The lanes that the control address serves too, and no others.
CONTROL: Final = frozenset({Lane.ENDING, Lane.GATEWAY_ENDING, Lane.ACTIVATION, Lane.PROBES, Lane.WATCHES})

_EVERY_CALLER = frozenset(Role)
# A revoker ends authority and learns nothing but who it is itself.
_READERS = _EVERY_CALLER - {Role.REVOKER}


def _row(
    service: str,
    method: str,
    request: type[Message],
    roles: set[Role] | frozenset[Role] | Literal["public"],
    lane: Lane,
    *,
    shape: Shape = Shape.UNARY,
    presence: bool = False,
) -> RPC:
    allowed = roles if roles == PUBLIC else frozenset(roles)
    return RPC(
        service=service, method=method, request=request, roles=allowed, lane=lane, shape=shape, presence=presence
    )


def _authorization() -> tuple[RPC, ...]:
    of, pep = AUTHORIZATION, {Role.PEP}
    return (
        _row(of, "Authorize", calls.AuthorizeRequest, pep, Lane.CALLS),
        _row(of, "BatchAuthorize", calls.BatchAuthorizeRequest, pep, Lane.CALLS),
        _row(of, "AuthorizeStream", calls.AuthorizeStreamRequest, pep, Lane.STREAMS, shape=Shape.EXCHANGE),
        _row(of, "ReportOutcome", calls.ReportOutcomeRequest, pep, Lane.REPORTS),
        _row(of, "ListTools", calls.ListToolsRequest, pep, Lane.CALLS),
    )


def _sessions() -> tuple[RPC, ...]:
    of, lane, ending = SESSIONS, Lane.CALLS, Lane.ENDING
    pep, approver, auditor, admin = Role.PEP, Role.APPROVER, Role.AUDITOR, Role.ADMIN
    return (
        _row(of, "RequestSession", sessions.RequestSessionRequest, {pep}, lane),
        _row(of, "ApproveSession", sessions.ApproveSessionRequest, {approver}, lane, presence=True),
        _row(of, "DenySession", sessions.DenySessionRequest, {approver}, ending),
        _row(of, "EndSession", sessions.EndSessionRequest, {pep}, ending),
        _row(of, "RevokeSessions", sessions.RevokeSessionsRequest, {approver, admin, Role.REVOKER}, ending),
        _row(of, "ReviewSession", sessions.ReviewSessionRequest, {approver}, Lane.REVIEWS),
        _row(of, "GetSession", sessions.GetSessionRequest, {pep, approver, auditor, admin}, lane),
        _row(of, "ListSessions", sessions.ListSessionsRequest, {pep, approver, auditor, admin}, lane),
        _row(of, "NarrowSession", sessions.NarrowSessionRequest, {pep, approver}, ending),
        _row(
            of,
            "WatchSessions",
            sessions.WatchSessionsRequest,
            {pep, approver, auditor, admin, Role.BROKER},
            Lane.SESSION_WATCHES,
            shape=Shape.WATCH,
        ),
    )


def _access() -> tuple[RPC, ...]:
    of, lane, ending, watches = ACCESS, Lane.CALLS, Lane.ENDING, Lane.ACCESS_WATCHES
    approver, admin, seeing = Role.APPROVER, Role.ADMIN, {Role.PEP, Role.APPROVER, Role.AUDITOR, Role.ADMIN}
    return (
        _row(of, "ApproveCall", access.ApproveCallRequest, {approver}, lane, presence=True),
        _row(of, "DenyCall", access.DenyCallRequest, {approver, admin}, ending),
        _row(of, "RevokeAccess", access.RevokeAccessRequest, {approver, admin}, ending),
        _row(of, "GetAccessRequest", access.GetAccessRequestRequest, seeing, lane),
        _row(of, "CompareCall", access.CompareCallRequest, {approver}, Lane.REVIEWS),
        _row(of, "ListAccessRequests", access.ListAccessRequestsRequest, seeing, lane),
        _row(of, "WatchAccessRequests", access.WatchAccessRequestsRequest, seeing, watches, shape=Shape.FEED),
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
        _row(of, "VerifySegment", audit.VerifySegmentRequest, roles, lane),
        _row(of, "PlanRevocation", audit.PlanRevocationRequest, roles, lane),
    )


def _freezes() -> tuple[RPC, ...]:
    of, ending = FREEZES, Lane.ENDING
    approver, auditor, admin, operator = Role.APPROVER, Role.AUDITOR, Role.ADMIN, Role.OPERATOR
    return (
        _row(of, "SetFreeze", freezes.SetFreezeRequest, {approver, admin, operator, Role.REVOKER}, ending),
        # It gives authority back, so it takes nothing of what is kept for ending it.
        _row(of, "LiftFreeze", freezes.LiftFreezeRequest, {approver, admin, operator}, Lane.CALLS),
        _row(of, "ListFreezes", freezes.ListFreezesRequest, {approver, auditor, admin, operator}, ending),
    )


def _callers() -> tuple[RPC, ...]:
    return (_row(CALLERS, "GetCaller", callers.GetCallerRequest, _EVERY_CALLER, Lane.CALLS),)


def _reach() -> tuple[RPC, ...]:
    return (_row(REACH, "GetReach", reach.GetReachRequest, {Role.APPROVER, Role.AUDITOR, Role.ADMIN}, Lane.REVIEWS),)


def _call_tokens() -> tuple[RPC, ...]:
    of, lane = CALL_TOKENS, Lane.CALLS
    return (
        _row(of, "GetCallTokenKeys", calltokens.GetCallTokenKeysRequest, _READERS, lane),
        _row(of, "CheckCallToken", calltokens.CheckCallTokenRequest, {Role.BROKER}, lane),
        _row(of, "WithdrawCallTokenKey", calltokens.WithdrawCallTokenKeyRequest, {Role.ADMIN}, Lane.ENDING),
    )


def _standard() -> tuple[RPC, ...]:
    info = ServerReflectionRequest
    return (
        _row(HEALTH, "Check", HealthCheckRequest, PUBLIC, Lane.PROBES),
        _row(HEALTH, "Watch", HealthCheckRequest, PUBLIC, Lane.WATCHES, shape=Shape.FEED),
        # Served only when the setting enables it.
        *(
            _row(one, "ServerReflectionInfo", info, _READERS, Lane.STREAMS, shape=Shape.EXCHANGE)
            for one in (REFLECTION, OLD_REFLECTION)
        ),
    )


RPCS: Mapping[str, RPC] = MappingProxyType(
    {
        row.path: row
        for row in (
            *(*_authorization(), *_sessions(), *_access(), *_freezes()),
            *(*_policies(), *_audit(), *_callers(), *_reach(), *_call_tokens(), *_standard()),
        )
    }
)
