"""The output of records and answers about them for people and scripts. Times are UTC."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from pdp.audit.coverage import Lacking
from pdp.audit.values import Approval, PlannedSession, Touch
from pdp.cli.audit.entries import fact_text, named
from pdp.cli.output import moment_text, print_fields, print_table
from pdp.clock import utc_text

Record = Mapping[str, Any]

# Entries about the record itself; in a view for people they would hide the events.
OWN_KINDS = frozenset({"checkpoint", "segment.opened"})


def print_record(record: Record) -> None:
    """Print every field of a record that is not empty, the important ones first."""
    first = ("kind", "id", "time", "outcome", "basis", "detail", "policies", "errors", "user", "agent", "session_id")
    rest = sorted(set(record) - set(first) - {"facts"})
    print_fields((name, _shown(record[name])) for name in (*first, *rest) if name in record)
    facts = record.get("facts")
    if isinstance(facts, dict):
        print_fields((f"facts.{name}", _shown(value)) for name, value in sorted(facts.items()))


def lacking_lines(lacking: Lacking) -> Iterator[str]:
    """Yield a line for each part of the record that an answer lacks."""
    if lacking.unknown:
        yield f"the answer can lack records of other machines: {lacking.unknown}"
    for part in lacking.parts:
        since = "the beginning" if part.since_at is None else utc_text(part.since_at)
        until = "now" if part.until_at is None else utc_text(part.until_at)
        yield f"the answer lacks records of `{part.replica}`, of chain {part.chain}, from {since} to {until}"


def lacking_object(lacking: Lacking) -> dict[str, Any]:
    """Return what an answer lacks as a JSON object."""
    return {
        "unknown": lacking.unknown,
        "parts": [
            {
                "replica": part.replica,
                "chain": part.chain,
                "since_time": None if part.since_at is None else utc_text(part.since_at),
                "until_time": None if part.until_at is None else utc_text(part.until_at),
            }
            for part in lacking.parts
        ],
    }


def print_approvals(approvals: Sequence[Approval]) -> None:
    """Print the approvals of a session, then those above it."""
    for index, one in enumerate(approvals):
        if index:
            click.echo()
        print_fields(_approval_fields(one))


def approval_object(one: Approval) -> dict[str, Any]:
    """Return an approval as a JSON object."""
    return {
        "session_id": one.session_id,
        "state": one.state.value,
        "user": one.user,
        "agent": one.agent,
        "parent_session_id": one.parent_id,
        "requested_by": one.requested_by,
        "request_time": moment_text(one.requested_at),
        "approved_by": one.approved_by,
        "approve_time": moment_text(one.approved_at),
        "delegated": one.delegated,
        "grants": list(one.grants),
        "expire_time": moment_text(one.expires_at),
        "purpose": one.purpose,
        "environment": one.environment,
        "labels": list(one.labels),
        "tool_patterns": list(one.tool_patterns),
        "tools": list(one.tools),
        "attributes": dict(one.attributes),
        "attribute_digests": dict(one.attribute_digests),
        "terms": dict(one.terms),
        "term_digests": dict(one.term_digests),
    }


def print_touched(touched: Sequence[Touch]) -> None:
    """Print the tools and resources reached, and apart from them those only tried."""
    for title, count in (("allowed", _allowed), ("denied", _denied)):
        rows = [
            (
                f"{one.server}/{one.tool}",
                _resource(one),
                str(count(one)),
                moment_text(one.first_at),
                moment_text(one.last_at),
            )
            for one in touched
            if count(one)
        ]
        print_table((title, "resource", "calls", "first", "last"), rows)
        click.echo()


def touched_object(touched: Sequence[Touch]) -> dict[str, Any]:
    """Return the tools and resources reached, and those only tried, as a JSON object."""
    return {
        "allowed": _reach([one for one in touched if one.allowed]),
        "denied": _reach([one for one in touched if one.denied]),
        "calls": [
            {
                "server": one.server,
                "tool": one.tool,
                "resource_type": one.resource_type,
                "resource_id": one.resource_id,
                "allowed": one.allowed,
                "denied": one.denied,
                "first_time": utc_text(one.first_at),
                "last_time": utc_text(one.last_at),
            }
            for one in touched
        ],
    }


def print_plan(planned: Sequence[PlannedSession]) -> None:
    """Print the sessions to revoke."""
    rows = [
        (
            one.session_id,
            one.state.value,
            one.user,
            one.agent,
            "named" if one.matched else f"below {one.parent_id}",
            str(one.allowed),
            str(one.denied),
            moment_text(one.last_call_at),
            moment_text(one.expires_at),
        )
        for one in planned
    ]
    print_table(("session", "state", "user", "agent", "because", "allowed", "denied", "last call", "expires"), rows)


def planned_object(one: PlannedSession) -> dict[str, Any]:
    """Return a session to revoke as a JSON object."""
    return {
        "session_id": one.session_id,
        "state": one.state.value,
        "user": one.user,
        "agent": one.agent,
        "matched": one.matched,
        "parent_session_id": one.parent_id,
        "allowed": one.allowed,
        "denied": one.denied,
        "last_call_time": moment_text(one.last_call_at),
        "expire_time": moment_text(one.expires_at),
    }


def _approval_fields(one: Approval) -> Iterator[tuple[str, str]]:
    yield "session", one.session_id
    yield "state", one.state.value
    yield "user", one.user
    yield "agent", one.agent
    yield "requested", _deed(one.requested_at, one.requested_by)
    approved = _deed(one.approved_at, one.approved_by)
    yield "approved", f"{approved}, by delegation, without a person" if one.delegated else approved
    yield "expires", moment_text(one.expires_at)
    yield "purpose", one.purpose
    yield "environment", one.environment
    yield "labels", " ".join(one.labels)
    yield "asked for", " ".join(one.tool_patterns)
    yield "tools", named(one.tools)
    yield "grants", " ".join(one.grants)
    yield "attributes", _values({**one.attributes, **one.attribute_digests})
    yield "terms", _values({**one.terms, **one.term_digests})


def _values(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={fact_text(name, value)}" for name, value in sorted(values.items()))


def _deed(at: float, by: str) -> str:
    return f"{moment_text(at)} by {by}" if at and by else moment_text(at)


def _allowed(one: Touch) -> int:
    return one.allowed


def _denied(one: Touch) -> int:
    return one.denied


def _resource(one: Touch) -> str:
    return f"{one.resource_type}::{one.resource_id}" if one.resource_id else ""


def _reach(touched: Sequence[Touch]) -> dict[str, list[str]]:
    return {
        "servers": sorted({one.server for one in touched}),
        "tools": sorted({f"{one.server}/{one.tool}" for one in touched}),
        "resources": sorted({_resource(one) for one in touched} - {""}),
    }


def _shown(value: Any) -> str:  # noqa: ANN401 - any JSON value
    if isinstance(value, list):
        return " ".join(map(_shown, value))
    return json.dumps(value) if isinstance(value, dict) else str(value)
