"""The access request profile of AuthZEN, on top of calls that a person must approve.

The server opens an access request with its decision; the profile's submission finds it again, and its task shows how it
stands. Everything is read from the server, so that another door can go on where this one stops.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pdp.client import AsyncClient, OverloadedError, PDPClientError, UnauthenticatedError, UnavailableError
from pdp.doors.authzen.handles import Handles
from pdp.doors.authzen.mapping import Mapped, UnknownTargetError
from pdp.doors.authzen.questions import LIMITS, Question, read_question
from pdp.doors.authzen.verdicts import UNAUTHORIZED, UNKNOWN_CALLER, NoDecisionError, timestamp
from pdp.foundation import jsontext
from pdp.observer import Refusal
from pdp.serving.web import BAD_REQUEST, NOT_FOUND
from pdp.v1 import access_pb2
from pdp.v1.access_pb2 import GetAccessRequestResponse, RequestedAccess

CREATED, ACCEPTED, GONE = 201, 202, 410
PENDING: Final = "pending"

_PROBLEM: Final = "urn:openid:authzen:access-request:error:"
_ID = re.compile(r"acc_[a-z0-9]{1,64}")
# A task that was approved stays so: whether the approval still lets the call run is what the next evaluation says.
_STATUSES: Final[Mapping[int, str]] = {
    access_pb2.ACCESS_STATE_OPEN: PENDING,
    access_pb2.ACCESS_STATE_APPROVED: "approved",
    access_pb2.ACCESS_STATE_USED: "approved",
    access_pb2.ACCESS_STATE_DENIED: "denied",
    access_pb2.ACCESS_STATE_REVOKED: "cancelled",
    access_pb2.ACCESS_STATE_EXPIRED: "expired",
}


class AccessProblemError(Exception):
    """A submission or a task is refused, with a problem type of the profile."""

    def __init__(self, status: int, problem: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.type = _PROBLEM + problem


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRequests:
    """The access requests that one door shows. `endpoint` is its URL for them."""

    mapped: Mapped
    endpoint: str

    async def submit(self, body: Mapping[str, Any], handles: Handles, client: AsyncClient) -> Mapping[str, Any]:
        """Return the task of a denied question that is submitted.

        Raise `AccessProblemError` unless it is bound to the denied call, in the session of the handle.
        """
        question = read_question(body)
        denial = body.get("denial")
        if not isinstance(denial, dict) or not isinstance(token := denial.get("binding_token"), str):
            raise _unbound()
        found = await _visible(token, client)
        if found is None or not await _belongs(found.access_request, handles.of(question.subject), client):
            raise _unbound()
        request = found.access_request
        if request.state == access_pb2.ACCESS_STATE_EXPIRED:
            raise AccessProblemError(GONE, "expired_denial", "nobody can answer this request any more: ask again")
        if not self._is_about(found, question, denial):
            raise _unbound()
        return self._task(request)

    async def status(self, task: str, handles: Handles, client: AsyncClient) -> Mapping[str, Any]:
        """Return a task as it stands. Raise `AccessProblemError` for one that is not of the session of the handle."""
        found = await _visible(task, client)
        request = None if found is None else found.access_request
        if request is None or not await _belongs(request, handles.of(request.user), client):
            raise AccessProblemError(NOT_FOUND, "unknown_task", "there is no such task for this caller and session")
        return self._task(request)

    def _is_about(self, found: GetAccessRequestResponse, question: Question, denial: Mapping[str, Any]) -> bool:
        request = found.access_request
        try:
            server, tool, arguments = self.mapped.target(question)
        except UnknownTargetError:
            return False
        if (server, tool, question.subject) != (request.server, request.tool, request.user):
            return False
        if request.state != access_pb2.ACCESS_STATE_OPEN:
            # The arguments are kept only while the call waits.
            return True
        # Python takes 1 for true.
        sent, kept = (
            jsontext.canonical_as_typed(jsontext.parse(text, LIMITS)) for text in (arguments, found.arguments_json)
        )
        return sent == kept and denial.get("expires_at") == timestamp(request.expire_time.seconds)

    def _task(self, request: RequestedAccess) -> Mapping[str, Any]:
        status = _STATUSES.get(request.state, "failed")
        number, until = request.access_request_id, timestamp(request.expire_time.seconds)
        task = {"id": number, "status": status, "status_endpoint": f"{self.endpoint}/{number}"}
        if status == PENDING:
            return {"task": {**task, "expires_at": until}}
        if status != "approved":
            return {"task": task}
        approval = {"id": number, "approved_at": timestamp(request.answer_time.seconds), "approved_until": until}
        return {"task": task, "result": {"mode": "reevaluate", "approval": approval}}


async def _visible(number: str, client: AsyncClient) -> GetAccessRequestResponse | None:
    """Return an access request that the caller itself has asked for; None for any other."""
    if not _ID.fullmatch(number):
        return None
    try:
        return await client.get_access_request(number)
    except PDPClientError as error:
        _require_an_answer(error)
        return None


async def _belongs(request: RequestedAccess, handle: str, client: AsyncClient) -> bool:
    """Say whether a request is of the session of a handle: its id alone shows nothing."""
    if not handle:
        return False
    try:
        await client.list_tools(handle, session_id=request.session_id)
    except PDPClientError as error:
        _require_an_answer(error)
        return False
    return True


def _require_an_answer(error: PDPClientError) -> None:
    """Raise `NoDecisionError` for an error that says nothing about what was asked for."""
    if isinstance(error, UnauthenticatedError):
        raise NoDecisionError(UNAUTHORIZED, UNKNOWN_CALLER, why=Refusal.CREDENTIAL) from None
    if isinstance(error, UnavailableError | OverloadedError):
        raise NoDecisionError(why=Refusal.UNDECIDED) from None


def _unbound() -> AccessProblemError:
    told = "the submission is not bound to a denied call of this session that a person can approve"
    return AccessProblemError(BAD_REQUEST, "invalid_denial_binding", told)
