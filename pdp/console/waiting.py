"""The page of what waits for a person: requests for sessions and single calls, in one list, the oldest first.

However much one agent asks for one person, it pushes nothing of others out: its share is one page, and a link leads to
the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.responses import Response

from pdp.console.freeze import freezes_of
from pdp.console.paging import part_of, shares_of
from pdp.console.visits import Desk, Visit
from pdp.console.words import Moment
from pdp.v1.access_pb2 import RequestedAccess
from pdp.v1.session_pb2 import Session

T = TypeVar("T")

# So many of each kind are read, as many as one gateway may have waiting by default; and so many at a time.
MOST_READ, _AT_ONCE = 10_000, 1000
_FILTERS = ("user", "agent", "tenant")


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingRow:
    """One thing that waits. `text` is the purpose of a session, or the question about a call."""

    key: str
    path: str
    kind: str
    agent: str
    user: str
    tool: str
    text: str
    tenant: str
    request_time: Moment
    expire_time: Moment

    @property
    def party(self) -> tuple[str, ...]:
        """Return for whom and by whom it is asked, as the filters of the page."""
        return tuple(getattr(self, name) for name in _FILTERS)

    def fits(self, chosen: Mapping[str, str]) -> bool:
        """Say whether it is of the user, agent or tenant that is chosen."""
        return all(getattr(self, name) == value for name, value in chosen.items())

    @property
    def asked_at(self) -> tuple[int, int, str]:
        """Return its place in the list: what comes later moves nothing."""
        return self.request_time.seconds, self.request_time.nanos, self.key


class Waiting:
    """The page."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def show(self, visit: Visit) -> Response:
        """Show what waits; of a user, an agent or a tenant if the address says so."""
        wanted = visit.given(_FILTERS)
        client, chosen = self._desk.client, {name: value for name, value in wanted.items() if value}
        sessions, calls, freezes = await asyncio.gather(
            first(client.list_sessions(state="requested", summaries=True, page_size=_AT_ONCE, **wanted), MOST_READ),
            first(client.list_access_requests(state="open", user=wanted["user"], page_size=_AT_ONCE), MOST_READ),
            freezes_of(client),
        )
        found = (row for row in (*map(_of_session, sessions), *map(_of_call, calls)) if row.fits(chosen))
        rows = sorted(found, key=lambda row: row.asked_at)
        shown, left_out = (rows, {}) if {"user", "agent"} <= set(chosen) else shares_of(rows, lambda row: row.party)
        return self._desk.show(
            visit,
            "waiting.html",
            part=part_of(shown, "/", chosen, visit.request.query_params.get("page", "")),
            number=len(rows),
            every=len(sessions) < MOST_READ and len(calls) < MOST_READ,
            more=[(dict(zip(_FILTERS, party, strict=True)), count) for party, count in left_out.items()],
            wanted=wanted,
            chosen=chosen,
            freezes=freezes,
            tenants=len({row.tenant for row in rows}) > 1,
        )


async def first(items: AsyncIterator[T], most: int) -> list[T]:
    """Return the first items, at most so many."""
    found: list[T] = []
    async for item in items:
        found.append(item)
        if len(found) == most:
            break
    return found


def _of_session(session: Session) -> WaitingRow:
    return _row(session, key=session.session_id, path="/sessions/", kind="session", tool="", text=session.purpose)


def _of_call(request: RequestedAccess) -> WaitingRow:
    question = request.questions[0].text if request.questions else ""
    tool = f"{request.server}/{request.tool}"
    return _row(request, key=request.access_request_id, path="/approvals/", kind="call", tool=tool, text=question)


def _row(found: Any, *, key: str, path: str, kind: str, tool: str, text: str) -> WaitingRow:  # noqa: ANN401 - both have these fields
    return WaitingRow(
        key=key,
        path=path + key,
        kind=kind,
        agent=found.agent,
        user=found.user,
        tool=tool,
        text=text,
        tenant=found.tenant,
        request_time=found.request_time,
        expire_time=found.expire_time,
    )
