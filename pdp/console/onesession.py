"""The page of a session that has been answered: what it may do, called and asked about, and how it is narrowed."""

from __future__ import annotations

from starlette.responses import Response

from pdp.client import OverloadedError, UnavailableError
from pdp.client.enumwords import session_state
from pdp.console.live import by_script
from pdp.console.visits import Desk, Visit
from pdp.console.waiting import first
from pdp.console.words import AUDITORS, REVOKERS, may, unix
from pdp.v1.audit_pb2 import RecordFilter, Touch
from pdp.v1.session_pb2 import Session

_MOST_CALLS = 50
_MOST_TOUCHED, _MOST_SHOWN = 1000, 10


async def session_page(desk: Desk, visit: Visit, session: Session, *, status: int = 200, said: str = "") -> Response:
    """Return the page; `said` is why something could not be done."""
    review = None
    if session_state(session) == "active" and may(visit.login.caller, REVOKERS):
        review = await desk.client.review_session(session.session_id)
    calls = await first(
        desk.client.list_access_requests(session_id=session.session_id, page_size=_MOST_CALLS), _MOST_CALLS
    )
    return desk.show(
        visit,
        "session.html",
        status,
        session=session,
        review=review,
        calls=calls,
        called=await _called(desk, visit, session.session_id),
        said_by_server=said,
    )


async def _called(desk: Desk, visit: Visit, session_id: str) -> list[Touch]:
    """Return what the session has called lately, the latest first; nothing for who may not read the record."""
    # The script asks at each change anywhere, and looks only whether the session is as it was.
    if by_script(visit.request) or not may(visit.login.caller, AUDITORS):
        return []
    touched = desk.client.list_touched(RecordFilter(session_id=session_id), page_size=_MOST_TOUCHED)
    try:
        found = await first(touched, _MOST_TOUCHED)
    except (OverloadedError, UnavailableError):
        # A person can revoke without it.
        return []
    return sorted(found, key=lambda one: unix(one.last_time), reverse=True)[:_MOST_SHOWN]
