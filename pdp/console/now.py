"""The page of live sessions, where people narrow and revoke them."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Mapping
from urllib.parse import urlencode

from starlette.responses import Response

from pdp.client import InvalidRequestError
from pdp.client.fencing import Fence
from pdp.console.drafts import InvalidChoiceError, draft_of
from pdp.console.freeze import freezes_of
from pdp.console.onesession import session_page
from pdp.console.paging import part_of
from pdp.console.revoking import revoke
from pdp.console.visits import Desk, Visit
from pdp.console.waiting import first

_BAD_REQUEST = 400
# Of a revocation: which sessions it is about.
SELECTORS = ("session_id", "user", "agent", "tenant")
_FILTERS = ("user", "agent", "tenant")
_MOST_READ = 1000
_SECONDS_OF_MINUTE = 60.0
_MINUTES = re.compile(r"[1-9][0-9]{0,5}")


class Now:
    """Live sessions."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def show(self, visit: Visit) -> Response:
        """Show the live sessions, the newest first; of a user, an agent or a tenant if the address says so."""
        wanted = visit.given(_FILTERS)
        client = self._desk.client
        found, calls, freezes = await asyncio.gather(
            first(client.list_sessions(state="active", summaries=True, page_size=_MOST_READ, **wanted), _MOST_READ),
            first(client.list_access_requests(state="open", user=wanted["user"], page_size=_MOST_READ), _MOST_READ),
            freezes_of(client),
        )
        chosen = {name: value for name, value in wanted.items() if value}
        return self._desk.show(
            visit,
            "now.html",
            part=part_of(found, "/now", chosen, visit.request.query_params.get("page", "")),
            freezes=freezes,
            asking=Counter(one.session_id for one in calls),
            number=len(found),
            every=len(found) < _MOST_READ,
            wanted=wanted,
            chosen=chosen,
            revocable=urlencode(chosen) if len(chosen) == 1 else "",
        )

    async def preview(self, visit: Visit) -> Response:
        """Show what a revocation would hit."""
        return await self._preview(visit, _selected(visit.request.query_params), "")

    async def revoke(self, visit: Visit) -> Response:
        """Revoke what was shown, for a reason."""
        selected = _selected({name: visit.form.one(name) for name in SELECTORS})
        reason = visit.form.one("reason")
        if not reason:
            return await self._preview(visit, selected, "say why, for the record")
        return await revoke(self._desk, visit, reason, selected)

    async def narrow(self, visit: Visit) -> Response:
        """Leave a live session fewer tools or an earlier end."""
        session_id = visit.request.path_params["session_id"]
        session = await self._desk.client.get_session(session_id)
        fences: list[Fence] = []
        try:
            tools = draft_of(session, {"tool": visit.form.values.get("tool", ())}).tools
            await self._desk.client.narrow_session(
                session_id,
                tools=tools,
                expires_at=self._end(visit.form.one("minutes")),
                on_fence=fences.append,
            )
        except (InvalidChoiceError, InvalidRequestError) as error:
            return await session_page(self._desk, visit, session, status=_BAD_REQUEST, said=str(error))
        return self._desk.done(visit, f"/sessions/{session_id}", fences[-1])

    def _end(self, minutes: str) -> float | None:
        if not minutes:
            return None
        if not _MINUTES.fullmatch(minutes):
            raise InvalidChoiceError("the minutes must be a whole number")
        return self._desk.clock.now().wall_at + int(minutes) * _SECONDS_OF_MINUTE

    async def _preview(self, visit: Visit, selected: Mapping[str, str], problem: str) -> Response:
        hit = await self._desk.client.preview_revocation(**selected)
        status = _BAD_REQUEST if problem else 200
        return self._desk.show(visit, "revoke.html", status, hit=hit, selected=selected, problem=problem)


def _selected(given: Mapping[str, str]) -> dict[str, str]:
    """Return the one selector that is given. Raise `InvalidRequestError`."""
    selected = {name: value.strip() for name in SELECTORS if (value := given.get(name, "")).strip()}
    if len(selected) != 1:
        raise InvalidRequestError("name exactly one session, user, agent or tenant")
    return selected
