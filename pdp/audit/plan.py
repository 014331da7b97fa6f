"""List exactly the sessions to revoke: those that a selector matches and all below them, if they are live."""

from __future__ import annotations

from typing import Any

from pdp.audit.index import AuditIndex
from pdp.audit.rows import Deed
from pdp.audit.sessionfacts import FACTS, state_of
from pdp.audit.values import DECISION, PlannedSession, Selector, argument_of
from pdp.audit.where import Where


def revocation_plan(
    index: AuditIndex, selector: Selector, *, now_at: float, limit: int, after: str = ""
) -> list[PlannedSession]:
    """Return the live sessions that a selector matches and all live ones below, by id.

    A session whose end is not recorded counts as live: one revocation too many is harmless. `after` is the last id of
    the page before.
    """
    now = round(now_at * 1_000_000)
    matched, bindings = _matched(selector)
    rows = index.rows(
        f"""WITH RECURSIVE
        matched (session) AS MATERIALIZED ({matched}),
        below (session) AS (
          SELECT session FROM matched
          UNION SELECT child.session FROM records child JOIN below ON child.parent = below.session
        ),
        facts AS (
          SELECT b.session, {FACTS}
          FROM below b LEFT JOIN records d ON d.session = b.session AND d.deed > 0 GROUP BY b.session
        ),
        live AS (
          SELECT *, CASE WHEN approved_at IS NULL THEN request_until ELSE until END ends_at FROM facts
          WHERE closed IS NULL
        )
        SELECT session.text, parent.text, live.session IN (SELECT session FROM matched),
               requested_at IS NOT NULL, approved_at IS NOT NULL, ends_at
        FROM live JOIN names session ON session.id = live.session LEFT JOIN names parent ON parent.id = live.parent
        WHERE (ends_at IS NULL OR ends_at > ?) AND session.text > ?
        ORDER BY session.text LIMIT {int(limit)}""",
        (*bindings, now, after),
    )
    return [_planned(index, row, now) for row in rows]


def _planned(index: AuditIndex, row: tuple[Any, ...], now: int) -> PlannedSession:
    session_id, parent, matched, requested, approved, until = row
    user, agent, allowed, denied, last = index.rows(
        """SELECT user.text, agent.text, c.allowed, c.denied, c.last_at FROM (
          SELECT max(user) user, max(agent) agent, total(allowed) allowed, total(1 - allowed) denied,
                 max(CASE WHEN allowed IS NOT NULL THEN at END) last_at
          FROM records WHERE session = (SELECT id FROM names WHERE text = ?)
        ) c LEFT JOIN names user ON user.id = c.user LEFT JOIN names agent ON agent.id = c.agent""",
        (session_id,),
    )[0]
    return PlannedSession(
        session_id=session_id,
        user=user or "",
        agent=agent or "",
        state=state_of(requested=requested, approved=approved, closed=None, until=until, now=now),
        matched=bool(matched),
        parent_id=parent or "",
        expires_at=(until or 0) / 1e6,
        allowed=int(allowed),
        denied=int(denied),
        last_call_at=(last or 0) / 1e6,
    )


def _matched(selector: Selector) -> tuple[str, tuple[Any, ...]]:
    """Return a query for the sessions that match every part of a selector."""
    parts = []
    if selector.about_calls:
        parts.append(_calls(selector))
    if selector.approver:
        where = _of(selector).condition(f"r.deed = {Deed.APPROVED:d}").name("r.caller", selector.approver)
        parts.append(where.within(selector.window))
    if selector.pep and not selector.about_calls:
        where = _of(selector).name("r.caller", selector.pep)
        where.condition(f"(r.deed = {Deed.REQUESTED:d} OR r.allowed IS NOT NULL)")
        parts.append(where.within(selector.window))
    if not parts:
        parts.append(_of(selector).within(selector.window))
    queries = [f"SELECT r.session FROM records r {where.clause}" for where in parts]
    return " INTERSECT ".join(queries) + " ", tuple(value for where in parts for value in where.bindings)


def _of(selector: Selector) -> Where:
    """Return the conditions on every record of the matching sessions."""
    where = Where(tenant=selector.tenant).condition("r.session IS NOT NULL")
    for column, text in (("r.session", selector.session), ("r.user", selector.user), ("r.agent", selector.agent)):
        if text:
            where.name(column, text)
    return where


def _calls(selector: Selector) -> Where:
    where = _of(selector).name("+r.kind", DECISION)
    if not selector.tried:
        where.condition("r.allowed = 1")
    server, _, tool = selector.tool.partition("/")
    for column, text in (
        ("r.server", server),
        ("r.tool", tool),
        ("r.server", selector.server),
        ("r.resource", selector.resource),
        ("r.bundle", selector.bundle),
        ("r.caller", selector.pep),
    ):
        if text:
            where.name(column, text)
    if selector.argument:
        where.argument(*argument_of("argument", selector.argument))
    return where.within(selector.window)
