"""The investigator's questions: answered from the index, with lines of the log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from pdp.audit.index import AuditIndex
from pdp.audit.plan import revocation_plan
from pdp.audit.rows import Deed
from pdp.audit.sessionfacts import SessionFacts, ancestry, facts_of
from pdp.audit.values import Approval, Filter, Found, Mark, PlannedSession, Selector, Touch, listed
from pdp.audit.where import Where
from pdp.errors import NotFoundError
from pdp.observer import EventKind
from pdp.record.fields import object_of, text_of

_BATCH = 1000
# For one decision; a request with more tries is not one decision any more.
_MOST_OF_ONE = 100
# Deeper than any limit of delegation; bounds a walk through records that were written by hand.
_DEEPEST = 64

_FOUND = "r.at, s.name, r.place, r.size, r.checksum"
_JOINED = "records r CROSS JOIN segments s ON s.id = r.segment"
_ORDER = "ORDER BY r.at, s.name, r.place"
_BACKWARDS = "ORDER BY r.at DESC, s.name DESC, r.place DESC"


class Search:
    """Answers from one index; the caller refreshes it first. Safe for threads.

    With a `tenant`, records of other tenants are not found; None means all tenants. Records without a tenant (bundles,
    start and stop) are found only with None.
    """

    def __init__(self, index: AuditIndex) -> None:
        self._index = index

    def show(self, ref: str, *, tenant: str | None = None) -> list[Found]:
        """Return the records of a decision, in order of time: the last answer is last.

        Raise `NotFoundError` for an unknown id.
        """
        where = Where(tenant=tenant).text("r.ref", ref)
        found = self._found(f"{where.clause} {_BACKWARDS} LIMIT {_MOST_OF_ONE}", where)[::-1]
        if not found:
            raise NotFoundError(f"no such decision: `{ref}`")
        return found

    def page(self, which: Filter, *, after: Mark | None = None, limit: int) -> list[Found]:
        """Return the next records in order of time; fewer than `limit` only at the end."""
        where = Where.of(which)
        if after is not None:
            where.condition("r.at >= ?", after.at)
            where.condition("(r.at, s.name, r.place) > (?, ?, ?)", after.at, after.segment, after.place)
        return self._found(f"{where.clause} {_ORDER} LIMIT {int(limit)}", where)

    def latest(self, which: Filter, *, limit: int) -> list[Found]:
        """Return the last records, in order of time."""
        where = Where.of(which)
        return self._found(f"{where.clause} {_BACKWARDS} LIMIT {int(limit)}", where)[::-1]

    def all(self, which: Filter) -> Iterator[Found]:
        """Yield every record in order of time."""
        after = None
        while found := self.page(which, after=after, limit=_BATCH):
            yield from found
            after = found[-1].mark

    def touched(self, which: Filter, *, limit: int, after: tuple[str, str, str, str] | None = None) -> list[Touch]:
        """Return resources reached or tried, sorted by server, tool, resource type and id.

        `after` is the last four of these of the page before.
        """
        where = Where.of(which).condition("r.allowed IS NOT NULL")
        rows = self._index.rows(
            f"""SELECT * FROM (
              SELECT coalesce(server.text, '') server, coalesce(tool.text, '') tool, coalesce(kind.text, '') kind,
                     coalesce(resource.text, '') resource, allowed, denied, first_at, last_at
              FROM (
                SELECT r.server, r.tool, r.resource_type, r.resource, sum(r.allowed) allowed,
                       sum(1 - r.allowed) denied, min(r.at) first_at, max(r.at) last_at
                FROM records r {where.clause} GROUP BY r.server, r.tool, r.resource_type, r.resource
              ) t LEFT JOIN names server ON server.id = t.server LEFT JOIN names tool ON tool.id = t.tool
              LEFT JOIN names kind ON kind.id = t.resource_type LEFT JOIN names resource ON resource.id = t.resource
            ) {"WHERE (server, tool, kind, resource) > (?, ?, ?, ?)" if after else ""}
            ORDER BY server, tool, kind, resource LIMIT {int(limit)}""",
            (*where.bindings, *(after or ())),
        )
        return [
            Touch(
                server=server,
                tool=tool,
                resource_type=kind,
                resource_id=resource,
                allowed=allowed,
                denied=denied,
                first_at=first / 1e6,
                last_at=last / 1e6,
            )
            for server, tool, kind, resource, allowed, denied, first, last in rows
        ]

    def last_allowed(self, which: Filter) -> Mapping[str, float]:
        """Return when a call of each action was last allowed, in unix seconds; without those of which none was."""
        where = Where.of(replace(which, outcome="allow"))
        rows = self._index.rows(
            f"""SELECT server.text, tool.text, last_at FROM (
              SELECT r.server, r.tool, max(r.at) last_at FROM records r {where.clause} GROUP BY r.server, r.tool
            ) t JOIN names server ON server.id = t.server JOIN names tool ON tool.id = t.tool""",
            where.bindings,
        )
        return {f"{server}/{tool}": at / 1e6 for server, tool, at in rows}

    def begins_at(self) -> float | None:
        """Return the time of the oldest record that the index holds, in unix seconds; None without a record."""
        (oldest,) = self._index.rows("SELECT min(at) FROM records")[0]
        return None if oldest is None else oldest / 1e6

    def approvals(self, session_or_decision: str, *, now_at: float, tenant: str | None = None) -> list[Approval]:
        """Return the approvals of a session and of every session above it, nearest first.

        The id of a decision means its session. Raise `NotFoundError` for an unknown id.
        """
        session_id = session_or_decision
        if not self._knows_session(session_id, tenant):
            try:
                decision = self.show(session_or_decision, tenant=tenant)[-1]
            except NotFoundError:
                raise NotFoundError(f"no such session or decision: `{session_or_decision}`") from None
            session_id = str(decision.record().get("session_id", ""))
        if not session_id:
            raise NotFoundError(f"the decision `{session_or_decision}` belongs to no session: its handle was unknown")
        chain = ancestry(self._index, session_id, _DEEPEST)
        return [self._approval(facts) for facts in facts_of(self._index, chain, now_at=now_at)]

    def plan(self, selector: Selector, *, now_at: float, limit: int, after: str = "") -> list[PlannedSession]:
        """Return the sessions to revoke; see `revocation_plan`."""
        return revocation_plan(self._index, selector, now_at=now_at, limit=limit, after=after)

    def _knows_session(self, session_id: str, tenant: str | None) -> bool:
        where = Where(tenant=tenant).name("r.session", session_id)
        return bool(self._index.rows(f"SELECT 1 FROM records r {where.clause} LIMIT 1", where.bindings))

    def _approval(self, facts: SessionFacts) -> Approval:
        where = Where().name("r.session", facts.session_id)
        where.condition(f"r.deed IN ({Deed.REQUESTED:d}, {Deed.APPROVED:d}, {Deed.DELEGATED:d})")
        by_kind = {text_of(one, "kind"): one for one in (found.record() for found in self._found(where.clause, where))}
        requested = by_kind.get(EventKind.SESSION_REQUESTED, {})
        approved = by_kind.get(EventKind.SESSION_APPROVED, {})
        asked, granted = object_of(requested, "facts"), object_of(approved, "facts")
        bound = {**asked, **granted}
        return Approval(
            session_id=facts.session_id,
            user=facts.user,
            agent=facts.agent,
            state=facts.state,
            parent_id=facts.parent_id,
            requested_by=str(requested.get("caller_id", "")),
            requested_at=facts.requested_at,
            approved_by=str(granted.get("by", approved.get("caller_id", ""))),
            approved_at=facts.approved_at,
            delegated=facts.delegated,
            grants=listed(granted, "grants"),
            expires_at=facts.expires_at,
            purpose=str(bound.get("purpose", "")),
            environment=str(bound.get("environment", "")),
            labels=listed(bound, "labels"),
            tool_patterns=listed(bound, "tool_patterns"),
            tools=listed(granted, "tools"),
            attributes=object_of(bound, "attributes"),
            attribute_digests=object_of(bound, "attribute_digests"),
            terms=object_of(bound, "terms"),
            term_digests=object_of(bound, "term_digests"),
        )

    def _found(self, rest: str, where: Where) -> list[Found]:
        rows = self._index.rows(f"SELECT {_FOUND} FROM {_JOINED} {rest}", where.bindings)
        lines = self._index.lines((name, place, size, checksum) for _, name, place, size, checksum in rows)
        return [
            Found(mark=Mark(at=at, segment=name, place=place), line=line)
            for (at, name, place, *_), line in zip(rows, lines, strict=True)
        ]
