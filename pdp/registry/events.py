"""The events of a session for the record: everything requested, shown, approved and changed, never shortened.

The limits of the API bound the number of items in each list, so that each event fits into one line of the record:
`limits.largest_session_bytes`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from math import isinf

from pdp.clock import utc_text
from pdp.model import Caller, Scope, Session
from pdp.observer import Event, EventKind
from pdp.sessions.lifecycle import LIVE


def opened_event(kind: EventKind, session: Session, caller: Caller, at: float, **more: str) -> Event:
    """Return the event of a session that is requested, approved or refused; it holds what was asked for.

    `more` are further facts; `at` is unix seconds.
    """
    facts, lists = request_facts(session)
    event = closed_event(kind, session, caller, at)
    return replace(
        event,
        facts={**facts, **event.facts, **more},
        lists={**lists, **_filled({"grants": session.grants})},
        attributes=vouched(session),
        terms=terms(session),
    )


def approved_event(asked: Session, scope: Scope, approved: Session, caller: Caller, at: float, **more: str) -> Event:
    """Return the event of an approval: what was approved, and what a narrowing left out.

    `asked` is the session as it was requested, `scope` what its patterns meant.
    """
    event = opened_event(EventKind.SESSION_APPROVED, approved, caller, at, **more)
    longer = f"{asked.duration:.15g}" if asked.duration != approved.duration else ""
    removed = tuple(sorted(set(scope.tools).difference(_actions(approved))))
    return replace(
        event,
        facts={**event.facts, **_said({"duration_asked": longer})},
        lists={**event.lists, **_filled({"tools_removed": removed})},
    )


def narrowed_event(before: Session, after: Session, caller: Caller, at: float) -> Event:
    """Return the event of a narrowed session: what applies now, and what changed."""
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
    """Return an event without what the session was asked for, so that ending many sessions writes little."""
    facts = {"reason": session.reason, "parent_id": session.parent_id}
    if session.state in LIVE:
        # From the record alone, a reader can tell which sessions are over and what they could reach.
        facts |= {"expires_at": utc_text(session.deadline.wall_at)}
        facts |= {"scope_id": session.scope.id} if session.scope else {}
    return Event.of_session(kind, session, at=at, caller_id=caller.id, facts=_said(facts))


def request_facts(session: Session) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Return what a session was asked for as facts and lists of an event, without empty ones.

    `duration` is in seconds. Attributes and terms are separate: see `vouched` and `terms`.
    """
    facts = {
        "purpose": session.purpose,
        "environment": session.environment,
        "opened_by": session.opened_by,
        "duration": f"{session.duration:.15g}",
        "may_delegate": "yes" if session.may_delegate else "",
    }
    lists = {
        "labels": session.labels,
        "tool_patterns": session.tool_patterns,
        "tools": _actions(session),
        "user_groups": session.user_groups,
    }
    return _said(facts), _filled(lists)


def vouched(session: Session) -> Mapping[str, object]:
    """Return the user attributes that the requester vouched for, as shown to the approver."""
    found: dict[str, object] = json.loads(session.user_attributes_json)
    return found


def terms(session: Session) -> Mapping[str, object]:
    """Return the terms of a session by name; a decimal is a text, so that it keeps its digits."""
    found: dict[str, object] = json.loads(session.terms_json, parse_float=str)
    return found


def presence(caller: Caller) -> dict[str, str]:
    """Return when the person who decides authenticated, as a fact; empty when unknown."""
    at = caller.authenticated_at
    return {} if not at or isinf(at) else {"authenticated_at": utc_text(at)}


def _actions(session: Session) -> tuple[str, ...]:
    return tuple(sorted(session.scope.tools)) if session.scope else ()


def _said(facts: Mapping[str, str]) -> dict[str, str]:
    return {name: fact for name, fact in facts.items() if fact}


def _filled(lists: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {name: values for name, values in lists.items() if values}
