"""The pages of the record: a search, a session's timeline, a decision, and what must be revoked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response

from pdp.client import InvalidRequestError
from pdp.console.entries import entry_of
from pdp.console.lacking import LackingNote
from pdp.console.paging import part_of
from pdp.console.proofs import policies_of, verified
from pdp.console.search import BASES, FIELDS, Part, bound, mark_of, records, search_of
from pdp.console.visits import Desk, Visit
from pdp.console.waiting import first
from pdp.v1.audit_pb2 import AuditRecord, PlanRevocationRequest, RecordFilter

_BAD_REQUEST = 400
_PAGE, _MOST_EXPORTED = 50, 10_000
# An address without a search shows the last day: the record is listed from its oldest entry.
_DAY = "1d"
_EMPTY = dict.fromkeys(FIELDS, "")
# Of a plan: the fields of the form, by those of the API.
_SELECTORS = {
    "session": "session_id",
    "user": "user",
    "agent": "agent",
    "pep": "pep",
    "approver": "approver",
    "tool": "tool",
    "server": "server",
    "resource": "resource",
    "argument": "argument",
    "bundle": "bundle_version",
}
PLAN_FIELDS = (*_SELECTORS, "since", "until", "tried")
# What a search and a plan both take, in the same words.
_ALSO_PLANNED = ("user", "agent", "session", "tool", "server", "resource", "since", "until")
_PLANNED = 1_000


class Records:
    """The record, for those who may read it: the server decides who does."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def show(self, visit: Visit) -> Response:
        """Show what matches a search, in order of time."""
        given = visit.given(FIELDS)
        if not any(name in visit.request.query_params for name in FIELDS):
            given["since"] = _DAY
        part, problem, lacking = Part(found=()), "", LackingNote()
        try:
            part = await self._part(visit, self._search(given), lacking)
        except InvalidRequestError as error:
            problem = str(error)
        chosen = {name: value for name, value in given.items() if value} or {"since": ""}
        return self._desk.show(
            visit,
            "record.html",
            _BAD_REQUEST if problem else 200,
            problem=problem,
            lacking=lacking.sentence,
            given=given,
            bases=list(BASES),
            most=_MOST_EXPORTED,
            export="/record/export?" + urlencode(chosen),
            plan="/record/plan?" + urlencode({name: chosen[name] for name in _ALSO_PLANNED if name in chosen}),
            entries=[entry_of(one) for one in part.found],
            further=_further(part, "/record", chosen),
        )

    async def export(self, visit: Visit) -> Response:
        """Answer with the records of a search as they were written, one on each line."""
        search, lacking = self._search(visit.given(FIELDS)), LackingNote()
        part = await records(self._desk.client, search, None, most=_MOST_EXPORTED, on_lacking=lacking.take)
        name = "records-part.jsonl" if part.further or lacking.sentence else "records.jsonl"
        return Response(
            b"".join(one.record_json.rstrip(b"\n") + b"\n" for one in part.found),
            media_type="application/jsonl",
            headers={"content-disposition": f'attachment; filename="{name}"'},
        )

    async def session(self, visit: Visit) -> Response:
        """Show all that is recorded of a session, who approved it, and whether the log verifies."""
        session_id, lacking = visit.request.path_params["session_id"], LackingNote()
        approvals, part = await asyncio.gather(
            self._desk.client.list_approvals(session_id=session_id, on_lacking=lacking.take),
            self._part(visit, self._search({**_EMPTY, "session": session_id}), lacking),
        )
        return self._desk.show(
            visit,
            "timeline.html",
            session_id=session_id,
            lacking=lacking.sentence,
            approvals=approvals,
            export="/record/export?" + urlencode({"session": session_id}),
            **await self._proven(part.found),
            further=_further(part, f"/record/sessions/{session_id}", {}),
        )

    async def decision(self, visit: Visit) -> Response:
        """Show the records of a decision."""
        decision_id, lacking = visit.request.path_params["decision_id"], LackingNote()
        found = await self._desk.client.get_records(decision_id, on_lacking=lacking.take)
        return self._desk.show(
            visit,
            "decision.html",
            decision_id=decision_id,
            lacking=lacking.sentence,
            **await self._proven(found),
        )

    async def plan(self, visit: Visit) -> Response:
        """Show which live sessions must be revoked for what was found; it revokes nothing."""
        given = visit.given(PLAN_FIELDS)
        chosen = {name: value for name, value in given.items() if value}
        sessions, problem, lacking = [], "", LackingNote()
        try:
            if chosen:
                wanted = self._plan_of(given)
                answers = self._desk.client.plan_revocation(wanted, on_lacking=lacking.take)
                sessions = await first(answers, _PLANNED)
        except InvalidRequestError as error:
            problem = str(error)
        return self._desk.show(
            visit,
            "plan.html",
            _BAD_REQUEST if problem else 200,
            given=given,
            chosen=chosen,
            problem=problem,
            lacking=lacking.sentence,
            number=len(sessions),
            every=len(sessions) < _PLANNED,
            part=part_of(sessions, "/record/plan", chosen, visit.request.query_params.get("page", "")),
        )

    async def _proven(self, found: Sequence[AuditRecord]) -> dict[str, Any]:
        """Return records as entries, with their policies as they were, and whether their segments verify."""
        entries, client = [entry_of(one) for one in found], self._desk.client
        past, bundles_left_out = await policies_of(client, entries)
        segments, segments_left_out = await verified(client, found)
        return {
            "entries": entries,
            "past": past,
            "bundles_left_out": bundles_left_out,
            "segments": segments,
            "segments_left_out": segments_left_out,
        }

    async def _part(self, visit: Visit, search: RecordFilter, lacking: LackingNote) -> Part:
        after = mark_of(visit.request.query_params.get("after", ""))
        return await records(self._desk.client, search, after, most=_PAGE, on_lacking=lacking.take)

    def _search(self, given: Mapping[str, str]) -> RecordFilter:
        return search_of(given, self._desk.clock.now().wall_at)

    def _plan_of(self, given: Mapping[str, str]) -> PlanRevocationRequest:
        wanted = PlanRevocationRequest(tried=bool(given["tried"]), page_size=_PLANNED)
        for name, field in _SELECTORS.items():
            setattr(wanted, field, given[name])
        bound(wanted, given, self._desk.clock.now().wall_at)
        return wanted


def _further(part: Part, address: str, chosen: Mapping[str, str]) -> str:
    """Return the address of the next part of the record; empty at the end."""
    return f"{address}?{urlencode({**chosen, 'after': part.further})}" if part.further else ""
