"""The page of a session that has been answered: what it may do, what it asked about, and how it is narrowed."""

from __future__ import annotations

from starlette.responses import Response

from pdp.client.enumwords import session_state
from pdp.console.visits import Desk, Visit
from pdp.console.waiting import first
from pdp.v1.session_pb2 import Session

_MOST_CALLS = 50


async def session_page(desk: Desk, visit: Visit, session: Session, *, status: int = 200, said: str = "") -> Response:
    """Return the page; `said` is why something could not be done."""
    review = None
    if session_state(session) == "active":
        review = await desk.client.review_session(session.session_id)
    calls = await first(
        desk.client.list_access_requests(session_id=session.session_id, page_size=_MOST_CALLS), _MOST_CALLS
    )
    return desk.show(visit, "session.html", status, session=session, review=review, calls=calls, said_by_server=said)
