"""The calls about access requests as values, like `operations`: for approvers, and for gateways that wait."""

from __future__ import annotations

from dataclasses import replace

from pdp.client.errors import InvalidRequestError
from pdp.client.operations import Method, Operation, Page, Reply, new_request_id, presence
from pdp.client.values import Answer
from pdp.v1 import access_pb2
from pdp.v1.access_pb2 import AccessState, RequestedAccess


def approve_call(
    access_request_id: str, *, request_digest: str, calls: int, id_token: str
) -> Operation[access_pb2.ApproveCallResponse, RequestedAccess]:
    """Approve exactly what was shown."""
    return Operation(
        method=_method("ApproveCall", access_pb2.ApproveCallResponse),
        request=access_pb2.ApproveCallRequest(
            access_request_id=access_request_id,
            request_digest=request_digest,
            calls=calls,
            request_id=new_request_id(),
        ),
        read=lambda reply: reply.access_request,
        metadata=presence(id_token),
    )


def deny_call(access_request_id: str, *, reason: str) -> Operation[access_pb2.DenyCallResponse, RequestedAccess]:
    """Refuse a call."""
    return Operation(
        method=_method("DenyCall", access_pb2.DenyCallResponse),
        request=access_pb2.DenyCallRequest(
            access_request_id=access_request_id, reason=reason, request_id=new_request_id()
        ),
        read=lambda reply: reply.access_request,
    )


def revoke_access(
    *, access_request_id: str, session_id: str, reason: str
) -> Operation[access_pb2.RevokeAccessResponse, tuple[str, ...]]:
    """Take back the approvals that one selector names."""
    if bool(access_request_id) == bool(session_id):
        raise InvalidRequestError("exactly one of `access_request_id` and `session_id` is required")
    request = access_pb2.RevokeAccessRequest(reason=reason, request_id=new_request_id())
    if access_request_id:
        request.access_request_id = access_request_id
    else:
        request.session_id = session_id
    return Operation(
        method=_method("RevokeAccess", access_pb2.RevokeAccessResponse),
        request=request,
        read=lambda reply: tuple(reply.access_request_ids),
    )


def compare_call(
    access_request_id: str,
) -> Operation[access_pb2.CompareCallResponse, access_pb2.CompareCallResponse]:
    """Compare a call that waits with the last one like it."""
    return Operation(
        method=_method("CompareCall", access_pb2.CompareCallResponse),
        request=access_pb2.CompareCallRequest(access_request_id=access_request_id),
        read=lambda reply: reply,
    )


def get_access_request(
    access_request_id: str,
) -> Operation[access_pb2.GetAccessRequestResponse, access_pb2.GetAccessRequestResponse]:
    """Show one request."""
    return Operation(
        method=_method("GetAccessRequest", access_pb2.GetAccessRequestResponse),
        request=access_pb2.GetAccessRequestRequest(access_request_id=access_request_id),
        read=lambda reply: reply,
    )


def list_access_requests(
    *, state: str, session_id: str, user: str, page_size: int, page_token: str
) -> Operation[access_pb2.ListAccessRequestsResponse, Page[RequestedAccess]]:
    """List one page of requests."""
    name = f"ACCESS_STATE_{state.upper()}" if state else "ACCESS_STATE_UNSPECIFIED"
    if name not in AccessState.keys():  # noqa: SIM118 - the enum wrapper is no mapping
        raise InvalidRequestError(f"`state`: unknown state of an access request: `{state}`")
    return Operation(
        method=_method("ListAccessRequests", access_pb2.ListAccessRequestsResponse),
        request=access_pb2.ListAccessRequestsRequest(
            state=name, session_id=session_id, user=user, page_size=page_size, page_token=page_token
        ),
        read=lambda reply: Page(items=reply.access_requests, next_token=reply.next_page_token),
    )


def watch_access_requests(*, session_id: str, user: str) -> access_pb2.WatchAccessRequestsRequest:
    """Return the question of a watch."""
    return access_pb2.WatchAccessRequestsRequest(session_id=session_id, user=user)


def waits(request: RequestedAccess) -> bool:
    """Say whether a request waits for a person."""
    return bool(request.state == access_pb2.ACCESS_STATE_OPEN)


def lets_ask_again(request: RequestedAccess) -> bool:
    """Say whether to ask about the call again: a person has approved it."""
    return request.state in (access_pb2.ACCESS_STATE_APPROVED, access_pb2.ACCESS_STATE_USED)


def unapproved(answer: Answer, request: RequestedAccess, waited: float) -> Answer:
    """Return the deny for a call that no person has approved, with what to do about it.

    `waited` is how long the client has waited, in seconds.
    """
    why = f" (`{request.reason}`)" if request.reason else ""
    match request.state:
        case access_pb2.ACCESS_STATE_OPEN:
            told = f"no person has answered within {waited:g} s: go on with something else, or ask again later"
        case access_pb2.ACCESS_STATE_DENIED:
            told = f"a person refused this call{why}: do not ask for it again; find another way, or tell the user"
        case access_pb2.ACCESS_STATE_REVOKED:
            told = f"the approval of this call was taken back{why}: do not ask for it again; tell the user"
        case _:
            told = (
                "no person answered before the request, its session or the rules ended: tell the user, and ask again "
                "only if the user wants it"
            )
    return replace(answer, advice=(told,))


def _method(name: str, reply: type[Reply]) -> Method[Reply]:
    return Method(path=f"/pdp.v1.AccessService/{name}", reply=reply)


WATCH = _method("WatchAccessRequests", access_pb2.WatchAccessRequestsResponse)
