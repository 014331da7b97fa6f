"""What the record is told of a session: all that was asked for, shown, approved and changed, and nothing cut.

Lists are bounded by number where they come in, by the limits of the API, so that each event fits into a line of the
record: `limits.largest_session_bytes`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from math import isinf

from pdp.clock import utc_text
from pdp.model import Caller, Session
from pdp.observer import Event, EventKind
from pdp.sessions.lifecycle import LIVE


def opened_event(kind: EventKind, session: Session, caller: Caller, at: float, **more: str) -> Event:
    """Return an event of a session that comes to be or is refused: it holds the session's terms.

    `more` are further facts; `at` is unix seconds.
    """
    facts, lists = terms(session)
    event = closed_event(kind, session, caller, at)
    return replace(
        event,
        facts={**facts, **event.facts, **more},
        lists={**lists, **_filled({"grants": session.grants})},
        attributes=vouched(session),
    )


def narrowed_event(before: Session, after: Session, caller: Caller, at: float) -> Event:
    """Return the event of a session that was narrowed: what holds now, and what changed."""
    was, now = _actions(before), _actions(after)
    event = closed_event(EventKind.SESSION_NARROWED, after, caller, at)
    changed = {
        "scope_before": before.scope.id if before.scope and before.scope != after.scope else "",
        "expires_before": "" if before.deadline == after.deadline else utc_text(before.deadline.wall_at),
    }
    lists = {
        "tools": now,
        "tools_removed": tuple(sorted(set(was).difference(now))),
        "labels": after.labels,
        "labels_added": tuple(sorted(set(after.labels).difference(before.labels))),
    }
    return replace(event, facts={**event.facts, **_said(changed)}, lists=_filled(lists))


def closed_event(kind: EventKind, session: Session, caller: Caller, at: float) -> Event:
    """Return an event of a session that tells no terms: ending many at once writes little."""
    facts = {"reason": session.reason, "parent_id": session.parent_id}
    if session.state in LIVE:
        # Whoever reads the record alone can say which sessions are over, and what they could reach.
        facts |= {"expires_at": utc_text(session.deadline.wall_at)}
        facts |= {"scope_id": session.scope.id} if session.scope else {}
    return Event.of_session(kind, session, at=at, caller_id=caller.id, facts=_said(facts))


def terms(session: Session) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Return what a session is asked for and approved with, as facts and lists of an event; empty ones are left out.

    `duration` is seconds. Attributes are apart: see `vouched`.
    """
    facts = {
        "purpose": session.purpose,
        "environment": session.environment,
        "opened_by": session.opened_by,
        "duration": f"{session.duration:.15g}",
        "may_delegate": "yes" if session.may_delegate else "",
    }
    lists = {"labels": session.labels, "tool_patterns": session.tool_patterns, "tools": _actions(session)}
    return _said(facts), _filled(lists)


def vouched(session: Session) -> Mapping[str, object]:
    """Return the attributes of the user that the requester vouched for, which an approver is shown."""
    found: dict[str, object] = json.loads(session.attributes_json)
    return found


def presence(caller: Caller) -> dict[str, str]:
    """Return when a person who decides about a session proved to be that person, as a fact; empty when nobody says."""
    at = caller.authenticated_at
    return {} if not at or isinf(at) else {"authenticated_at": utc_text(at)}


def _actions(session: Session) -> tuple[str, ...]:
    return tuple(sorted(session.scope.tools)) if session.scope else ()


def _said(facts: Mapping[str, str]) -> dict[str, str]:
    return {name: fact for name, fact in facts.items() if fact}


def _filled(lists: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {name: values for name, values in lists.items() if values}
