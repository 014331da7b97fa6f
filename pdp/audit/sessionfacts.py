"""The state of sessions in the record, and their order of delegation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pdp.audit.index import AuditIndex
from pdp.audit.rows import Deed
from pdp.audit.values import State

_CLOSED = {Deed.ENDED: State.ENDED, Deed.DENIED: State.DENIED, Deed.EXPIRED: State.EXPIRED, Deed.REVOKED: State.REVOKED}

# One row for a session with what its events say. A narrowing never moves the end to a later time.
# Only numbers of our own are formatted in.
FACTS = f"""
  max(d.parent) parent,
  min(CASE WHEN d.deed = {Deed.REQUESTED:d} THEN d.at END) requested_at,
  min(CASE WHEN d.deed = {Deed.REQUESTED:d} THEN d.until END) request_until,
  min(CASE WHEN d.deed IN ({Deed.APPROVED:d}, {Deed.DELEGATED:d}) THEN d.at END) approved_at,
  min(CASE WHEN d.deed BETWEEN {Deed.APPROVED:d} AND {Deed.NARROWED:d} THEN d.until END) until,
  max(d.deed = {Deed.DELEGATED:d}) delegated,
  max(CASE WHEN d.deed >= {Deed.ENDED:d} THEN d.deed END) closed
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFacts:
    """What the events of a session say. Times are unix seconds, 0.0 when not known."""

    session_id: str
    user: str
    agent: str
    state: State
    parent_id: str
    requested_at: float
    approved_at: float
    expires_at: float
    delegated: bool


def facts_of(index: AuditIndex, session_ids: Sequence[str], *, now_at: float) -> list[SessionFacts]:
    """Return the facts of sessions, in their order. One without events is UNKNOWN."""
    return [_facts(index, session_id, now_at) for session_id in session_ids]


def ancestry(index: AuditIndex, session_id: str, most: int) -> list[str]:
    """Return a session and those above it, nearest first; at most `most`."""
    chain = [session_id]
    while len(chain) < most:
        above = index.rows(
            "SELECT text FROM names WHERE id = (SELECT parent FROM records"
            " WHERE session = (SELECT id FROM names WHERE text = ?) AND deed > 0 AND parent IS NOT NULL LIMIT 1)",
            (chain[-1],),
        )
        if not above or above[0][0] in chain:
            break
        chain.append(above[0][0])
    return chain


def state_of(*, requested: bool, approved: bool, closed: int | None, until: int | None, now: int) -> State:
    """Return the state of a session; an unknown end has not come.

    `until` and `now` are microseconds.
    """
    if closed is not None:
        return _CLOSED[Deed(closed)]
    if until is not None and until <= now:
        return State.EXPIRED
    if approved:
        return State.ACTIVE
    return State.REQUESTED if requested else State.UNKNOWN


def _facts(index: AuditIndex, session_id: str, now_at: float) -> SessionFacts:
    own = "(SELECT id FROM names WHERE text = ?)"
    rows = index.rows(
        f"""SELECT user.text, agent.text, parent.text, requested_at, request_until, approved_at, until, delegated,
               closed
        FROM (SELECT {FACTS} FROM records d WHERE d.session = {own} AND d.deed > 0) f
        LEFT JOIN (SELECT user, agent FROM records WHERE session = {own} LIMIT 1) any
        LEFT JOIN names user ON user.id = any.user LEFT JOIN names agent ON agent.id = any.agent
        LEFT JOIN names parent ON parent.id = f.parent""",
        (session_id, session_id),
    )
    user, agent, parent, requested_at, request_until, approved_at, until, delegated, closed = rows[0]
    end = until if approved_at is not None else request_until
    return SessionFacts(
        session_id=session_id,
        user=user or "",
        agent=agent or "",
        state=state_of(
            requested=requested_at is not None,
            approved=approved_at is not None,
            closed=closed,
            until=end,
            now=round(now_at * 1_000_000),
        ),
        parent_id=parent or "",
        requested_at=(requested_at or 0) / 1e6,
        approved_at=(approved_at or 0) / 1e6,
        expires_at=(end or 0) / 1e6,
        delegated=bool(delegated),
    )
