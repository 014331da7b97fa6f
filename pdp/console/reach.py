"""The page of reach: which tools a session, a user or an agent can call now."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.responses import Response

from pdp.client import InvalidRequestError
from pdp.console.visits import Desk, Visit

_BAD_REQUEST = 400
_NAMES = ("session_id", "user", "agent")


class Reach:
    """Reach."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def show(self, visit: Visit) -> Response:
        """Show what can be reached, or the form that asks for whom."""
        given = visit.request.query_params
        wanted = {name: given.get(name, "").strip() for name in _NAMES}
        asked_now = given.get("asked_now") == "1"
        chosen = {name: value for name, value in wanted.items() if value}
        found, problem = None, ""
        if chosen:
            try:
                found = await self._desk.client.get_reach(
                    session_id=wanted["session_id"],
                    user=wanted["user"],
                    agent=wanted["agent"],
                    asked_now=asked_now,
                    page_token=given.get("page", ""),
                )
            except InvalidRequestError as error:
                problem = str(error)
        more = {**chosen, **({"asked_now": "1"} if asked_now else {})}
        return self._desk.show(
            visit,
            "reach.html",
            _BAD_REQUEST if problem else 200,
            found=found,
            wanted=wanted,
            asked_now=asked_now,
            problem=problem,
            next=urlencode({**more, "page": found.next_page_token}) if found and found.next_page_token else "",
        )
