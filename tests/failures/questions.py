"""One question about a session for each RPC, and what its answer says in a word."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from google.protobuf.message import Message

from pdp.policy.contents import version_of
from pdp.v1 import audit_pb2, explain_pb2, policy_pb2
from pdp.v1.authorization_pb2 import AuthorizeStreamRequest, BatchAuthorizeRequest, ListToolsRequest
from pdp.v1.session_pb2 import (
    ApproveSessionRequest,
    DenySessionRequest,
    EndSessionRequest,
    GetSessionRequest,
    ListSessionsRequest,
    NarrowSessionRequest,
    RequestSessionRequest,
    ReviewSessionRequest,
    RevokeSessionsRequest,
    SessionState,
)
from tests.failures.service import FILES, a_call, basis_of


class Named(Protocol):
    """A session by everything that an RPC may name it by."""

    @property
    def handle(self) -> str:
        """Return the secret handle."""
        ...

    @property
    def id(self) -> str:
        """Return the public id."""
        ...

    @property
    def digest(self) -> str:
        """Return the digest of what an approver was shown."""
        ...

    @property
    def decision_id(self) -> str:
        """Return the id of a decision about a call in the session."""
        ...


MESSAGES: Mapping[str, Callable[[Named], Message]] = {
    "Authorize": lambda session: a_call(session.handle),
    "BatchAuthorize": lambda session: BatchAuthorizeRequest(requests=[a_call(session.handle)]),
    "AuthorizeStream": lambda session: AuthorizeStreamRequest(request=a_call(session.handle)),
    "ListTools": lambda session: ListToolsRequest(session_handle=session.handle),
    "RequestSession": lambda session: RequestSessionRequest(
        user="ada", agent="coder", purpose="errand", tool_patterns=["git/*"], parent_session_handle=session.handle
    ),
    "ApproveSession": lambda session: ApproveSessionRequest(session_id=session.id, request_digest=session.digest),
    "DenySession": lambda session: DenySessionRequest(session_id=session.id),
    "EndSession": lambda session: EndSessionRequest(session_handle=session.handle),
    "RevokeSessions": lambda session: RevokeSessionsRequest(session_id=session.id, reason="a test"),
    "ReviewSession": lambda session: ReviewSessionRequest(session_id=session.id),
    "GetSession": lambda session: GetSessionRequest(session_id=session.id),
    "ListSessions": lambda _: ListSessionsRequest(page_size=1000),
    "NarrowSession": lambda session: NarrowSessionRequest(session_id=session.id, labels=["harmless"]),
    "GetBundle": lambda _: policy_pb2.GetBundleRequest(),
    "ListBundles": lambda _: policy_pb2.ListBundlesRequest(),
    "ActivateBundle": lambda _: policy_pb2.ActivateBundleRequest(version=version_of(FILES)),
    "ReloadBundle": lambda _: policy_pb2.ReloadBundleRequest(),
    "CheckBundle": lambda _: policy_pb2.CheckBundleRequest(),
    "Evaluate": lambda _: policy_pb2.EvaluateRequest(policies="permit (principal, action, resource);"),
    "Explain": lambda session: explain_pb2.ExplainRequest(
        session_id=session.id, server="git", tool="log", arguments_json=b'{"repo": "web"}'
    ),
    "GetRecord": lambda session: audit_pb2.GetRecordRequest(decision_id=session.decision_id),
    "ListRecords": lambda session: audit_pb2.ListRecordsRequest(
        filter=audit_pb2.RecordFilter(session_id=session.id, kind="session.requested")
    ),
    "ListApprovals": lambda session: audit_pb2.ListApprovalsRequest(session_id=session.id),
    "ListTouched": lambda session: audit_pb2.ListTouchedRequest(filter=audit_pb2.RecordFilter(session_id=session.id)),
    "PlanRevocation": lambda session: audit_pb2.PlanRevocationRequest(session_id=session.id),
}


def _shown(session: Any) -> str:
    return SessionState.Name(session.state).removeprefix("SESSION_STATE_").lower()


def _recorded(approval: Any) -> str:
    return audit_pb2.RecordedState.Name(approval.state).removeprefix("RECORDED_STATE_").lower()


READ: Mapping[str, Callable[[Any, Named], str]] = {
    "Authorize": lambda found, _: basis_of(found.decision.basis),
    "BatchAuthorize": lambda found, _: basis_of(found.decisions[0].basis),
    "AuthorizeStream": lambda found, _: basis_of(found.decision.basis),
    "Explain": lambda found, _: basis_of(found.basis),
    "RevokeSessions": lambda found, session: f"revokes {list(found.session_ids).count(session.id)}",
    "ReviewSession": lambda found, _: _shown(found.session),
    "GetSession": lambda found, _: _shown(found.session),
    "ListSessions": lambda found, session: next(
        (_shown(one) for one in found.sessions if one.session_id == session.id), "not listed"
    ),
    "ListRecords": lambda found, _: "1 record" if found.records else "no record",
    "ListApprovals": lambda found, _: _recorded(found.approvals[0]),
    "PlanRevocation": lambda found, session: (
        "revoke it" if [session.id] == [one.session_id for one in found.sessions] else "nothing to revoke"
    ),
}
