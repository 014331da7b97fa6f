"""The output of a session for people and scripts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import click

from pdp.cli.output import print_fields, print_table, time_text
from pdp.client.budgetwords import left_text
from pdp.client.connectionwords import connection_text, connections_text
from pdp.client.enumwords import session_state
from pdp.foundation.printable import visible
from pdp.v1.reach_pb2 import ReachedTool
from pdp.v1.session_pb2 import ReviewedTool, Session, SessionState

# The policies that are named beside a tool.
_POLICIES = 3


def policies_text(one: ReviewedTool | ReachedTool) -> str:
    """Return the first policies that say how visible a tool is, and how many more there are."""
    more = len(one.policy_ids[_POLICIES:]) + one.policies_left_out
    return " ".join(one.policy_ids[:_POLICIES]) + (f" and {more} more" if more else "")


def plain(session: Session) -> dict[str, Any]:
    """Return the session as a JSON object."""
    return {
        "session_id": session.session_id,
        "state": session_state(session),
        "user": session.user,
        "agent": session.agent,
        "purpose": session.purpose,
        "tool_patterns": list(session.tool_patterns),
        "tools": [
            {
                "server": one.server,
                "tool": one.tool,
                "risk": one.risk,
                "groups": list(one.groups),
                "adds_labels": list(one.adds_labels),
                "connection": {"kind": one.connection_kind, "scopes": list(one.connection_scopes)}
                if one.connection_kind
                else None,
                "definition_digest": one.definition_digest,
            }
            for one in session.tools
        ],
        "request_digest": session.request_digest,
        "duration": seconds_of(session),
        **{field: time_text(session, field) for field in ("request_time", "approve_time", "expire_time", "end_time")},
        "parent_session_id": session.parent_session_id,
        "depth": session.depth,
        "may_delegate": session.may_delegate,
        "grants": list(session.grants),
        "labels": list(session.labels),
        "label_origins": {one.label: one.decision_id for one in session.label_origins},
        "user_attributes": _attributes(session),
        "user_groups": list(session.user_groups),
        # A decimal is a text here, so that it keeps its digits.
        "terms": json.loads(session.terms_json or b"{}", parse_float=str),
        "values_kept": session.values_kept,
        "budgets": {
            one.name: {"most": one.most, "left": one.left, "spent": one.spent, "held": one.held}
            for one in session.budgets
        },
        "tenant": session.tenant,
        "environment": session.environment,
        "opened_by": session.opened_by,
        "approved_by": session.approved_by,
        "ended_by": session.ended_by,
        "reason": session.reason,
        "epoch": session.epoch,
    }


def print_session(session: Session) -> None:
    """Print a session and its tools."""
    print_fields_of(session)
    click.echo()
    if session.tools:
        rows = [
            (
                f"{one.server}/{one.tool}",
                ", ".join((one.risk, *one.groups)),
                ", ".join(one.adds_labels),
                connection_text(one),
            )
            for one in session.tools
        ]
        print_table(("tool", "groups", "adds labels", "connection"), rows)
    else:
        click.echo("no tools")


def print_fields_of(session: Session, *, known_grants: tuple[str, ...] = ()) -> None:
    """Print a session without its tools; `known_grants` are those that could be given."""
    print_fields(_fields(session, known_grants))


def duration_text(seconds: float) -> str:
    """Return a duration as people write it: `1h30m`."""
    left = round(seconds)
    parts = [(left // 3600, "h"), (left % 3600 // 60, "m"), (left % 60, "s")]
    return "".join(f"{number}{unit}" for number, unit in parts if number) or "0s"


def _fields(session: Session, known_grants: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    yield "session", session.session_id
    yield "state", session_state(session)
    yield "user", session.user
    yield "attributes", json.dumps(_attributes(session), ensure_ascii=False) if _attributes(session) else ""
    yield "user groups", " ".join(session.user_groups)
    yield "agent", session.agent
    yield "purpose", session.purpose
    yield "asked for", " ".join(session.tool_patterns)
    yield "uses", "; ".join(connections_text(session.tools, session.user))
    yield "duration", duration_text(seconds_of(session))
    yield "grants", " ".join(session.grants)
    yield "grants known", " ".join(known_grants)
    origins = {one.label: f" ({one.decision_id})" for one in session.label_origins}
    yield "labels", " ".join(f"{label}{origins.get(label, '')}" for label in session.labels)
    yield from ((visible(f"term {name}"), term_text(value)) for name, value in terms_of(session).items())
    yield from ((visible(f"left of {one.name}"), left_text(one)) for one in session.budgets)
    yield "values kept", f"{session.values_kept} of what results held" if session.values_kept else ""
    yield "delegation", "may delegate without a person" if session.may_delegate else ""
    yield "parent", session.parent_session_id
    yield "tenant", session.tenant
    yield "environment", session.environment
    yield "requested", _deed(session, "request_time", session.opened_by)
    yield "approved", _deed(session, "approve_time", session.approved_by)
    waiting = session.state == SessionState.SESSION_STATE_REQUESTED
    yield "answer by" if waiting else "expires", time_text(session, "expire_time")
    yield "closed", _deed(session, "end_time", session.ended_by)
    yield "reason", session.reason
    yield "digest", session.request_digest


def _deed(session: Session, field: str, by: str) -> str:
    moment = time_text(session, field)
    return f"{moment} by {by}" if moment and by else moment


def seconds_of(session: Session) -> float:
    """Return how long the session lives from its approval, in seconds."""
    return session.duration.seconds + session.duration.nanos / 1e9


def terms_of(session: Session) -> Mapping[str, Any]:
    """Return the session's terms by name, decimals as `Decimal`."""
    found: Mapping[str, Any] = json.loads(session.terms_json or b"{}", parse_float=Decimal)
    return found


def term_text(value: object) -> str:
    """Return the value of a term as JSON; a decimal with its digits."""
    return str(value) if isinstance(value, Decimal) else json.dumps(value, ensure_ascii=False, default=str)


def _attributes(session: Session) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(session.user_attributes_json or b"{}")
    return found
