"""RPCs about access requests: calls that wait for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pdp.v1.access_pb2 import (
    ACCESS_STATE_OPEN,
    AccessState,
    ApproveCallRequest,
    ApproveCallResponse,
    CompareCallRequest,
    CompareCallResponse,
    DenyCallRequest,
    DenyCallResponse,
    GetAccessRequestRequest,
    GetAccessRequestResponse,
    ListAccessRequestsRequest,
    ListAccessRequestsResponse,
    RequestedAccess,
    RevokeAccessRequest,
    RevokeAccessResponse,
    WatchAccessRequestsRequest,
)
from tests.machinery.rpcs.asking import BIDI, DIGEST, FOREIGN_TOKENS, LONG_ID
from tests.machinery.rpcs.row import RECORD, STORE, Row, Wrapped, opener, tenant
from tests.machinery.rpcs.states import ALL_STATES, in_states

_ACCESS = RequestedAccess(access_request_id="acc_1", user="alice")

# A request of a session that is over, or not yet active, has expired.
_LIVE_ONLY = in_states(
    live="OK",
    over="FAILED_PRECONDITION",
    requested="FAILED_PRECONDITION",
    unknown="NOT_FOUND",
    of_another_tenant="NOT_FOUND",
    of_another_gateway="OK",
)
_SHOWN = in_states(
    live="open",
    over="expired",
    requested="expired",
    unknown="NOT_FOUND",
    of_another_tenant="NOT_FOUND",
    of_another_gateway="open",
)

_LISTED = dict.fromkeys(("approver", "auditor", "admin"), tenant("open", hidden="not listed")) | {
    "pep": opener("open", hidden="not listed")
}


def _state(shown: Any) -> str:
    return AccessState.Name(shown.state).removeprefix("ACCESS_STATE_").lower()


def _first(found: Any) -> str:
    return _state(found.access_requests[0]) if found.access_requests else "not listed"


ACCESS: Mapping[str, Row] = {
    "ApproveCall": Row(
        ask=lambda session: ApproveCallRequest(
            access_request_id=session.access_request_id, request_digest=session.access_digest
        ),
        roles={"approver": tenant("OK")},
        states=_LIVE_ONLY,
        wrong=(
            (ApproveCallRequest(request_digest=DIGEST), "access_request_id"),
            (ApproveCallRequest(access_request_id="acc 1", request_digest=DIGEST), "access_request_id"),
            (ApproveCallRequest(access_request_id="acc_1"), "request_digest"),
            (ApproveCallRequest(access_request_id="acc_1", request_digest=DIGEST.upper()), "request_digest"),
            (ApproveCallRequest(access_request_id="acc_1", request_digest=DIGEST, calls=-1), "calls"),
            (ApproveCallRequest(access_request_id="acc_1", request_digest=DIGEST, request_id="a b"), "request_id"),
        ),
        wrapped=Wrapped(
            lambda client: client.approve_call("acc_1", request_digest=DIGEST, calls=3),
            ApproveCallRequest(access_request_id="acc_1", request_digest=DIGEST, calls=3),
            ApproveCallResponse(access_request=_ACCESS),
            _ACCESS,
        ),
        spends=True,
    ),
    "DenyCall": Row(
        ask=lambda session: DenyCallRequest(access_request_id=session.access_request_id),
        roles=dict.fromkeys(("approver", "admin"), tenant("OK")),
        # A no needs no live session.
        states=dict.fromkeys(ALL_STATES, "OK") | {"unknown": "NOT_FOUND", "of_another_tenant": "NOT_FOUND"},
        wrong=(
            (DenyCallRequest(), "access_request_id"),
            (DenyCallRequest(access_request_id=LONG_ID), "access_request_id"),
            (DenyCallRequest(access_request_id="acc_1", reason=BIDI), "reason"),
            (DenyCallRequest(access_request_id="acc_1", reason="a\nb"), "reason"),
            (DenyCallRequest(access_request_id="acc_1", request_id="a b"), "request_id"),
        ),
        wrapped=Wrapped(
            lambda client: client.deny_call("acc_1", reason="not now"),
            DenyCallRequest(access_request_id="acc_1", reason="not now"),
            DenyCallResponse(access_request=_ACCESS),
            _ACCESS,
        ),
        seen_again={"reason": {RECORD, STORE}},
        spends=True,
        without_bundle="OK",
    ),
    "RevokeAccess": Row(
        ask=lambda session: RevokeAccessRequest(session_id=session.id, reason="enough"),
        said=lambda found, _: f"revokes {len(found.access_request_ids)}",
        roles=dict.fromkeys(("approver", "admin"), tenant("revokes 0")),
        states=dict.fromkeys(ALL_STATES, "revokes 0") | {"unknown": "NOT_FOUND", "of_another_tenant": "NOT_FOUND"},
        wrong=(
            (RevokeAccessRequest(reason="enough"), "selector"),
            (RevokeAccessRequest(access_request_id="acc 1", reason="enough"), "access_request_id"),
            (RevokeAccessRequest(session_id="ses 1", reason="enough"), "session_id"),
            (RevokeAccessRequest(session_id="ses_1"), "reason"),
            (RevokeAccessRequest(session_id="ses_1", reason=BIDI), "reason"),
            (RevokeAccessRequest(session_id="ses_1", reason="enough", request_id="a b"), "request_id"),
        ),
        wrapped=Wrapped(
            lambda client: client.revoke_access(reason="enough", access_request_id="acc_1"),
            RevokeAccessRequest(access_request_id="acc_1", reason="enough"),
            RevokeAccessResponse(access_request_ids=["acc_1"]),
            ("acc_1",),
        ),
        without_bundle="OK",
    ),
    "GetAccessRequest": Row(
        ask=lambda session: GetAccessRequestRequest(access_request_id=session.access_request_id),
        said=lambda found, _: _state(found.access_request),
        roles=dict.fromkeys(("approver", "auditor", "admin"), tenant("open")) | {"pep": opener("open")},
        states=_SHOWN,
        wrong=(
            (GetAccessRequestRequest(), "access_request_id"),
            (GetAccessRequestRequest(access_request_id="acc 1"), "access_request_id"),
        ),
        wrapped=Wrapped(
            lambda client: client.get_access_request("acc_1"),
            GetAccessRequestRequest(access_request_id="acc_1"),
            GetAccessRequestResponse(access_request=_ACCESS),
            GetAccessRequestResponse(access_request=_ACCESS),
        ),
    ),
    "CompareCall": Row(
        ask=lambda session: CompareCallRequest(access_request_id=session.access_request_id),
        roles={"approver": tenant("OK")},
        states=_LIVE_ONLY,
        wrong=(
            (CompareCallRequest(), "access_request_id"),
            (CompareCallRequest(access_request_id="acc 1"), "access_request_id"),
        ),
        wrapped=Wrapped(
            lambda client: client.compare_call("acc_1"),
            CompareCallRequest(access_request_id="acc_1"),
            CompareCallResponse(not_compared="x"),
            CompareCallResponse(not_compared="x"),
        ),
    ),
    "ListAccessRequests": Row(
        ask=lambda session: ListAccessRequestsRequest(session_id=session.access_session_id),
        said=lambda found, _: _first(found),
        roles=_LISTED,
        states=_SHOWN | {"unknown": "not listed", "of_another_tenant": "not listed"},
        wrong=(
            (ListAccessRequestsRequest(state=7), "state"),  # type: ignore[arg-type]  # a number that is no state
            (ListAccessRequestsRequest(session_id="ses 1"), "session_id"),
            (ListAccessRequestsRequest(user="a b"), "user"),
            (ListAccessRequestsRequest(page_size=-1), "page_size"),
            (ListAccessRequestsRequest(page_size=1001), "page_size"),
            *((ListAccessRequestsRequest(page_token=token), "page_token") for token in ("nonsense", *FOREIGN_TOKENS)),
        ),
        wrapped=Wrapped(
            lambda client: client.list_access_requests(state="open", session_id="ses_1", user="alice", page_size=2),
            ListAccessRequestsRequest(state=ACCESS_STATE_OPEN, session_id="ses_1", user="alice", page_size=2),
            ListAccessRequestsResponse(access_requests=[_ACCESS]),
            [_ACCESS],
        ),
    ),
    "WatchAccessRequests": Row(
        ask=lambda session: WatchAccessRequestsRequest(session_id=session.access_session_id),
        said=lambda found, _: _first(found),
        roles=_LISTED,
        states=in_states(
            live="open",
            over="not listed",
            requested="not listed",
            unknown="not listed",
            of_another_tenant="not listed",
            of_another_gateway="open",
        ),
        wrong=(
            (WatchAccessRequestsRequest(session_id="ses 1"), "session_id"),
            (WatchAccessRequestsRequest(user=BIDI), "user"),
        ),
    ),
}
