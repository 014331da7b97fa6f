"""The page of reach: which tools a session, a user or an agent can call now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import urlencode

from starlette.responses import Response

from pdp.client import InvalidRequestError, NotFoundError
from pdp.client.reviewing import reach_changed, reach_unused
from pdp.console.forms import whole_number
from pdp.console.visits import Desk, Visit
from pdp.console.words import BUNDLES_SEEN, may
from pdp.v1.policy_pb2 import Bundle
from pdp.v1.reach_pb2 import GetReachResponse, ReachedTool

_BAD_REQUEST = 400
_NAMES = ("session_id", "user", "agent")
_DAYS, _MOST_DAYS = "30", 366
# With a choice of tools, so many pages are read until there are enough.
_ENOUGH, _MOST_PAGES = 50, 10
SHOWN: dict[str, str] = {
    "": "all",
    "unused": "never allowed in these days",
    "changed": "judged differently by the other bundle",
}


class Reach:
    """Reach."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def show(self, visit: Visit) -> Response:
        """Show what can be reached, or the form that asks for whom."""
        given, wanted = visit.request.query_params, visit.given((*_NAMES, "former", "show"))
        asked_now = given.get("asked_now") == "1"
        days = given.get("days", "").strip() or _DAYS
        found, problem = None, ""
        if any(wanted[name] for name in _NAMES):
            try:
                found = await self._found(wanted, asked_now=asked_now, days=_days(days), page=given.get("page", ""))
            except (InvalidRequestError, NotFoundError) as error:
                # Of another tenant or of nobody: that is a page of its own.
                if isinstance(error, NotFoundError) and not wanted["former"]:
                    raise
                problem = str(error)
        chosen = {name: value for name, value in wanted.items() if value}
        more = {**chosen, "days": days, **({"asked_now": "1"} if asked_now else {})}
        return self._desk.show(
            visit,
            "reach.html",
            _BAD_REQUEST if problem else 200,
            found=found,
            wanted=wanted,
            asked_now=asked_now,
            days=days,
            shown=SHOWN,
            changed=reach_changed,
            bundles=await self._bundles(visit),
            problem=problem,
            next=urlencode({**more, "page": found.next_page_token}) if found and found.next_page_token else "",
        )

    async def _found(self, wanted: dict[str, str], *, asked_now: bool, days: int, page: str) -> GetReachResponse:
        """Return a page of tools, and of further pages what is chosen until that is enough."""
        if wanted["show"] not in SHOWN:
            raise InvalidRequestError(f"`{wanted['show']}` is no choice of tools")
        if wanted["show"] == "changed" and not wanted["former"]:
            raise InvalidRequestError("choose the bundle to compare with")
        tools: list[ReachedTool] = []
        for _ in range(_MOST_PAGES):
            found = await self._desk.client.get_reach(
                session_id=wanted["session_id"],
                user=wanted["user"],
                agent=wanted["agent"],
                asked_now=asked_now,
                used_days=days,
                page_token=page,
                former_version=wanted["former"],
            )
            tools += filter(_chosen(wanted["show"], found), found.tools)
            page = found.next_page_token
            if not page or len(tools) >= _ENOUGH or not wanted["show"]:
                break
        del found.tools[:]
        found.tools.extend(tools)
        return found

    async def _bundles(self, visit: Visit) -> Sequence[Bundle]:
        """Return the bundles that ran before and are kept; none for who may not list them."""
        if not may(visit.login.caller, BUNDLES_SEEN):
            return ()
        return [one for one in await self._desk.client.list_bundles() if not one.active]


def _chosen(shown: str, found: GetReachResponse) -> Callable[[ReachedTool], bool]:
    if shown == "unused":
        return lambda one: reach_unused(one, found)
    return reach_changed if shown == "changed" else lambda _: True


def _days(text: str) -> int:
    """Read of how many days to say when a tool was last allowed. Raise `InvalidRequestError`."""
    number = whole_number(text, len(str(_MOST_DAYS)))
    if not 1 <= number <= _MOST_DAYS:
        raise InvalidRequestError(f"the days must be a whole number from 1 to {_MOST_DAYS}, not `{text}`")
    return number
