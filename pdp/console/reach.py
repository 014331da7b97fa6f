"""The page of reach: which tools a session, a user or an agent can call now."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.responses import Response

from pdp.client import InvalidRequestError
from pdp.console.forms import whole_number
from pdp.console.visits import Desk, Visit

_BAD_REQUEST = 400
_NAMES = ("session_id", "user", "agent")
_DAYS, _MOST_DAYS = "30", 366


class Reach:
    """Reach."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def show(self, visit: Visit) -> Response:
        """Show what can be reached, or the form that asks for whom."""
        given, wanted = visit.request.query_params, visit.given(_NAMES)
        asked_now = given.get("asked_now") == "1"
        days = given.get("days", "").strip() or _DAYS
        chosen = {name: value for name, value in wanted.items() if value}
        found, problem = None, ""
        if chosen:
            try:
                found = await self._desk.client.get_reach(
                    session_id=wanted["session_id"],
                    user=wanted["user"],
                    agent=wanted["agent"],
                    asked_now=asked_now,
                    used_days=_days(days),
                    page_token=given.get("page", ""),
                )
            except InvalidRequestError as error:
                problem = str(error)
        more = {**chosen, "days": days, **({"asked_now": "1"} if asked_now else {})}
        return self._desk.show(
            visit,
            "reach.html",
            _BAD_REQUEST if problem else 200,
            found=found,
            wanted=wanted,
            asked_now=asked_now,
            days=days,
            problem=problem,
            next=urlencode({**more, "page": found.next_page_token}) if found and found.next_page_token else "",
        )


def _days(text: str) -> int:
    """Read of how many days to say when a tool was last allowed. Raise `InvalidRequestError`."""
    number = whole_number(text, len(str(_MOST_DAYS)))
    if not 1 <= number <= _MOST_DAYS:
        raise InvalidRequestError(f"the days must be a whole number from 1 to {_MOST_DAYS}, not `{text}`")
    return number
