"""Which sessions a statement in SQL is about."""

from __future__ import annotations

from typing import Final

from pdp.sessions.sql import Value
from pdp.sessions.values import SessionFilter


def condition_of(which: SessionFilter) -> tuple[str, tuple[Value, ...]]:
    """Return the condition of a filter, and its values; the condition is made of our own column names."""
    # An expression keeps out the indexes of users and agents: to list a tenant by them is to sort all of its sessions.
    tenant = "tenant" if which.user or which.agent else "tenant || ''"
    named = {name: getattr(which, name) for name in ("id", "user", "agent", "opened_by")}
    # In quotes: `user` is a word of SQL.
    wanted = {tenant: which.tenant, **{f'"{name}"': value for name, value in named.items()}}
    terms = [f"{column} = ?" for column, value in wanted.items() if value]
    values = [value for value in wanted.values() if value]
    if which.states:
        terms.append(f"state IN ({', '.join('?' * len(which.states))})")
        values += [state.value for state in which.states]
    if which.ends_after:
        terms.append("ends_at > ?")
    if which.requested_until:
        terms.append("requested_at <= ?")
    moments = [moment for moment in (which.ends_after, which.requested_until) if moment]
    return " AND ".join(terms) or "TRUE", (*values, *moments)


# The braces are filled with conditions made of our own column names; values are always bound.
# That a child has a parent is said twice: where no session is below another one, PostgreSQL would read all of them.
FAMILY: Final = """
WITH RECURSIVE family(id) AS (
  SELECT id FROM sessions WHERE {}
  UNION
  SELECT child.id FROM family JOIN sessions AS child ON child.parent_id = family.id AND child.parent_id > ''
)
"""
OF_FAMILY: Final = " FROM sessions WHERE id IN (SELECT id FROM family) ORDER BY depth, requested_at, id"
NEWEST_FIRST: Final = "SELECT session_json FROM sessions WHERE {} ORDER BY requested_at DESC, id DESC LIMIT ?"
AMONG_NEWEST: Final = "id IN (SELECT id FROM sessions WHERE {} ORDER BY requested_at DESC, id DESC LIMIT ?)"
COUNT: Final = "SELECT count(*) FROM sessions WHERE {}"
FAMILIES: Final = f"{FAMILY}SELECT id, epoch{OF_FAMILY}"
OF_LIVE_FAMILIES: Final = f"id IN ({FAMILY}SELECT id FROM family) AND state IN ('requested', 'active') AND ends_at > ?"  # noqa: S608 - words of our own
LIVE_SESSIONS: Final = (
    "SELECT id, epoch FROM sessions WHERE state IN ('requested', 'active') ORDER BY depth, requested_at, id"
)
COUNT_LIVE_OF: Final = """
SELECT count(*) FROM sessions WHERE opened_by = ? AND state IN ('requested', 'active') AND ends_at > ?
"""
