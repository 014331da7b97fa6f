"""The page of a session: what an approver needs to decide about a request, and their answer."""

from __future__ import annotations

import secrets
from urllib.parse import urlencode

from starlette.responses import Response

from pdp.client import InvalidRequestError, WrongStateError
from pdp.client.enumwords import session_state
from pdp.client.fencing import Fence
from pdp.client.reviewing import changes
from pdp.console.drafts import EVERYTHING, Draft, InvalidChoiceError, draft_of
from pdp.console.onesession import session_page
from pdp.console.visits import Desk, Entry, UnprovenError, Visit, see
from pdp.v1.session_pb2 import ReviewSessionResponse, Session

_BAD_REQUEST, _CONFLICT = 400, 409
_DRAFT_BYTES = 12
_FORGOTTEN = "what you chose is no longer known; choose again"


class Requests:
    """Requests for sessions."""

    def __init__(self, desk: Desk, entry: Entry) -> None:
        self._desk = desk
        self._entry = entry

    async def show(self, visit: Visit) -> Response:
        """Show a session: with buttons while it waits, and as it is after that."""
        session_id = visit.request.path_params["session_id"]
        session = await self._desk.client.get_session(session_id)
        if session_state(session) != "requested":
            return await self._later(visit, session)
        name = visit.request.query_params.get("choice", "")
        draft = visit.login.drafts.get(name) if name else EVERYTHING
        if draft is None:
            # Never all of it instead of what somebody chose.
            return await self._form(visit, _FORGOTTEN)
        review = await self._desk.client.review_session(session_id, **draft.asked)
        return self._decide(visit, session, review, draft, name)

    async def choose(self, visit: Visit) -> Response:
        """Show the form in which a person chooses less, or grants."""
        return await self._form(visit, "")

    async def chosen(self, visit: Visit) -> Response:
        """Take what a person chose, and lead to the request as it would then be approved."""
        session_id = visit.request.path_params["session_id"]
        try:
            draft = draft_of(await self._desk.client.get_session(session_id), visit.form.values)
            review = await self._desk.client.review_session(session_id, **draft.asked)
            _require_known(draft, review)
        except (InvalidChoiceError, InvalidRequestError) as error:
            return await self._form(visit, str(error))
        name = secrets.token_urlsafe(_DRAFT_BYTES)
        visit.login.drafts.keep(name, draft)
        return see(f"/sessions/{session_id}?{urlencode({'choice': name})}")

    async def approve(self, visit: Visit) -> Response:
        """Approve exactly what was shown."""
        session_id, name = visit.request.path_params["session_id"], visit.form.one("choice")
        draft = visit.login.drafts.get(name) if name else EVERYTHING
        if draft is None:
            return await self._form(visit, _FORGOTTEN)
        digest, fences = visit.form.one("digest"), list[Fence]()
        try:
            # INVARIANT: the digest is of what the page showed; if anything has changed since, the server refuses.
            await self._desk.proven(
                visit,
                lambda id_token: self._desk.client.approve_session(
                    session_id, request_digest=digest, id_token=id_token, on_fence=fences.append, **draft.asked
                ),
            )
        except WrongStateError as error:
            return await self._changed(visit, draft, name, str(error))
        except UnprovenError as error:
            back = f"/sessions/{session_id}" + (f"?{urlencode({'choice': name})}" if name else "")
            return self._entry.again(visit, error, back)
        visit.login.drafts.take(name)
        return self._desk.done(visit, f"/sessions/{session_id}", fences[-1])

    async def deny(self, visit: Visit) -> Response:
        """Refuse the request."""
        session_id = visit.request.path_params["session_id"]
        await self._desk.client.deny_session(session_id, reason=visit.form.one("reason"))
        return see(f"/sessions/{session_id}")

    def _decide(
        self,
        visit: Visit,
        asked: Session,
        review: ReviewSessionResponse,
        draft: Draft,
        name: str,
        *,
        changed: tuple[str, ...] = (),
        status: int = 200,
    ) -> Response:
        self._desk.shown.keep(_seen(visit, review.session.request_digest), review)
        return self._desk.show(
            visit, "request.html", status, review=review, asked=asked, draft=draft, choice=name, changed=changed
        )

    async def _form(self, visit: Visit, problem: str) -> Response:
        session = await self._desk.client.get_session(visit.request.path_params["session_id"])
        if session_state(session) != "requested":
            return await self._later(visit, session)
        review = await self._desk.client.review_session(session.session_id)
        status = _BAD_REQUEST if problem else 200
        chosen = visit.form.values if problem else {}
        return self._desk.show(visit, "less.html", status, review=review, problem=problem, chosen=chosen)

    async def _changed(self, visit: Visit, draft: Draft, name: str, said: str) -> Response:
        """Show the request anew, and what is otherwise than what the person saw."""
        session = await self._desk.client.get_session(visit.request.path_params["session_id"])
        if session_state(session) != "requested":
            return await self._later(visit, session, status=_CONFLICT, said=said)
        before = self._desk.shown.get(_seen(visit, visit.form.one("digest")))
        after = await self._desk.client.review_session(session.session_id, **draft.asked)
        found = _changes(before, after) or (said,)
        return self._decide(visit, session, after, draft, name, changed=found, status=_CONFLICT)

    async def _later(self, visit: Visit, session: Session, *, status: int = 200, said: str = "") -> Response:
        return await session_page(self._desk, visit, session, status=status, said=said)


def _seen(visit: Visit, digest: str) -> str:
    return f"{visit.login.caller.caller_id} {visit.request.path_params['session_id']} {digest}"


def _require_known(draft: Draft, review: ReviewSessionResponse) -> None:
    """Raise `InvalidChoiceError` for a grant that an approval would refuse: a review takes any."""
    for grant in draft.grants:
        if grant not in review.known_grants:
            raise InvalidChoiceError(f"no policy knows the grant `{grant}`")


def _changes(before: ReviewSessionResponse | None, after: ReviewSessionResponse) -> tuple[str, ...]:
    return changes(before, after) if before is not None else ()
