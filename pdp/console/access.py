"""The page of a single call that wants a person's yes: the exact arguments, and the answer."""

from __future__ import annotations

from starlette.responses import Response

from pdp.client import OverloadedError, UnavailableError, WrongStateError
from pdp.client.arguments import member_texts
from pdp.console.forms import whole_number
from pdp.console.live import by_script
from pdp.console.visits import Desk, Entry, UnprovenError, Visit, see
from pdp.v1.access_pb2 import CompareCallResponse, GetAccessRequestResponse
from pdp.v1.session_pb2 import Session

_BAD_REQUEST, _CONFLICT = 400, 409
_MOST_DIGITS = 6


class Calls:
    """Access requests."""

    def __init__(self, desk: Desk, entry: Entry) -> None:
        self._desk = desk
        self._entry = entry

    async def show(self, visit: Visit) -> Response:
        """Show a call, with buttons while it waits."""
        return await self._shown(visit)

    async def approve(self, visit: Visit) -> Response:
        """Approve exactly the call that was shown, or so many like it."""
        request_id, digest = visit.request.path_params["request_id"], visit.form.one("digest")
        calls = whole_number(visit.form.one("calls"), _MOST_DIGITS, otherwise=1)
        try:
            # INVARIANT: the digest is of what the page showed; if anything has changed since, the server refuses.
            await self._desk.proven(
                visit,
                lambda id_token: self._desk.client.approve_call(
                    request_id, request_digest=digest, calls=calls, id_token=id_token
                ),
            )
        except WrongStateError as error:
            return await self._shown(visit, changed=str(error), status=_CONFLICT)
        except UnprovenError as error:
            return self._entry.again(visit, error, f"/approvals/{request_id}")
        return see(f"/approvals/{request_id}")

    async def deny(self, visit: Visit) -> Response:
        """Refuse the call."""
        request_id = visit.request.path_params["request_id"]
        await self._desk.client.deny_call(request_id, reason=visit.form.one("reason"))
        return see(f"/approvals/{request_id}")

    async def revoke(self, visit: Visit) -> Response:
        """Take an approval back that is not used up."""
        request_id, reason = visit.request.path_params["request_id"], visit.form.one("reason")
        if not reason:
            return await self._shown(visit, changed="say why, for the record", status=_BAD_REQUEST)
        await self._desk.client.revoke_access(access_request_id=request_id, reason=reason)
        return see(f"/approvals/{request_id}")

    async def _shown(self, visit: Visit, changed: str = "", status: int = 200) -> Response:
        review = await self._desk.client.get_access_request(visit.request.path_params["request_id"])
        # The script asks at each change anywhere, and looks only whether the call is as it was.
        earlier = None if by_script(visit.request) else await self._earlier(review)
        return self._desk.show(
            visit,
            "call.html",
            status,
            review=review,
            call=review.access_request,
            approved=await self._approved_session(review),
            arguments=member_texts(review.arguments_json),
            earlier=earlier,
            compared={one.name: one for one in earlier.arguments} if earlier else {},
            changed=changed,
        )

    async def _earlier(self, review: GetAccessRequestResponse) -> CompareCallResponse | None:
        """Return the call beside the last one like it; None when it does not wait, and for those who may not answer."""
        if not review.request_digest:
            return None
        try:
            return await self._desk.client.compare_call(review.access_request.access_request_id)
        except (WrongStateError, OverloadedError, UnavailableError) as error:
            # A person can decide without it.
            return CompareCallResponse(not_compared=str(error))

    async def _approved_session(self, review: GetAccessRequestResponse) -> Session | None:
        """Return the nearest session, of the call or above it, that a person approved; None for who may not see it."""
        if not review.HasField("session"):
            return None
        session = review.session
        # As long as the session above, and no person, approved it.
        while session.parent_session_id and session.approved_by == session.parent_session_id:
            session = await self._desk.client.get_session(session.parent_session_id)
        return session
