"""The output of an access request for its approver, for people and for scripts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from pdp.cli.output import STYLES, paragraphs, print_fields, time_text
from pdp.cli.sessions.view import plain, term_text, terms_of
from pdp.client.arguments import member_texts
from pdp.client.connectionwords import call_connection_text
from pdp.client.enumwords import access_state
from pdp.foundation.printable import visible
from pdp.v1.access_pb2 import ACCESS_STATE_OPEN, GetAccessRequestResponse, RequestedAccess
from pdp.v1.session_pb2 import Session

_PURPOSE_LINES = 4
_PLAIN = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}")


def plain_access(request: RequestedAccess) -> dict[str, Any]:
    """Return a request as a JSON object."""
    return {
        "access_request_id": request.access_request_id,
        "state": access_state(request),
        "session_id": request.session_id,
        "user": request.user,
        "agent": request.agent,
        "server": request.server,
        "tool": request.tool,
        "questions": [
            {"session_id": one.session_id, "policy_id": one.policy_id, "text": one.text, "most_calls": one.most_calls}
            for one in request.questions
        ],
        "asked_by": request.asked_by,
        "decision_id": request.decision_id,
        **{field: time_text(request, field) for field in ("request_time", "expire_time", "answer_time")},
        "answered_by": request.answered_by,
        "reason": request.reason,
        "approved_calls": request.approved_calls,
        "used_calls": request.used_calls,
        "bundle_version": request.bundle_version,
        "tenant": request.tenant,
    }


def plain_review(review: GetAccessRequestResponse, approved: Session | None) -> dict[str, Any]:
    """Return all that is shown of a request as a JSON object; the arguments are a text, so that no digit is lost."""
    return {
        **plain_access(review.access_request),
        "arguments_json": review.arguments_json.decode("utf-8", "replace"),
        "targets": {one.path: list(one.provenance) for one in review.targets},
        "risk": review.risk,
        "groups": list(review.groups),
        "definition_digest": review.definition_digest,
        "connection": {"kind": review.connection_kind, "scopes": list(review.connection_scopes)}
        if review.connection_kind
        else None,
        "critical": review.critical,
        "most_calls": review.most_calls,
        "request_digest": review.request_digest,
        "session": plain(review.session) if review.HasField("session") else None,
        "approved_session": plain(approved) if approved is not None else None,
    }


def print_access(review: GetAccessRequestResponse, approved: Session | None) -> None:
    """Print what an approver needs to judge a call.

    Who wants to call what, for which purpose, and what is asked, come first and once more at the end, above the
    question. `approved` is the nearest session, of the call or above it, that a person approved: what the purpose of a
    delegated one says is what an agent wanted it to say.
    """
    purpose = approved.purpose if approved is not None else ""
    _print_summary(review, purpose)
    click.echo()
    print_fields(_fields(review, approved))
    click.echo()
    _print_summary(review, purpose, most_lines=_PURPOSE_LINES)


def access_row(request: RequestedAccess) -> Sequence[str]:
    """Return a request as a row of a table."""
    question = request.questions[0].text if request.questions else ""
    more = f" (and {len(request.questions) - 1} more)" if len(request.questions) > 1 else ""
    return (
        request.access_request_id,
        access_state(request),
        request.user,
        request.agent,
        f"{request.server}/{request.tool}",
        time_text(request, "expire_time"),
        f"{question}{more}",
    )


def _print_summary(review: GetAccessRequestResponse, purpose: str, *, most_lines: int | None = None) -> None:
    request = review.access_request
    console = Console(highlight=False, soft_wrap=not Console().is_terminal)
    line = Text.assemble(
        (visible(f"{request.agent} for {request.user} wants to call {request.server}/{request.tool}"), "bold")
    )
    if review.risk:
        line.append(", ").append(review.risk, STYLES.get(review.risk, ""))
    if review.groups:
        line.append(visible(f", in {', '.join(review.groups)}"), "bold")
    console.print(line)
    lines = paragraphs(purpose, console.width - 2)
    for one in lines[:most_lines]:
        console.print(Text(f"  {one}"))
    if lines[most_lines:] and most_lines is not None:
        console.print(Text("  … (the whole purpose is above)", style="dim"))
    for question in request.questions:
        for one in paragraphs(question.text, console.width - 2):
            console.print(Text(f"? {one}", style="bold yellow"))


def _fields(review: GetAccessRequestResponse, approved: Session | None) -> Iterator[tuple[str, str]]:
    request, session = review.access_request, review.session
    yield "request", request.access_request_id
    yield "state", access_state(request)
    yield "tool", f"{request.server}/{request.tool}"
    yield from (_named("argument", name, text) for name, text in member_texts(review.arguments_json))
    yield from (_named("target", one.path, ", ".join(one.provenance)) for one in review.targets)
    yield "uses", call_connection_text(review)
    yield "policies", ", ".join(sorted({one.policy_id for one in request.questions}))
    yield "session", request.session_id
    yield "user", request.user
    yield "agent", request.agent
    yield "purpose", approved.purpose if approved is not None else ""
    if approved is not None and approved.session_id != session.session_id:
        yield "delegated", f"from {approved.session_id}, with a purpose that no person approved: {session.purpose}"
    origins = {one.label: f" ({one.decision_id})" for one in session.label_origins}
    yield "labels", " ".join(f"{label}{origins.get(label, '')}" for label in session.labels)
    yield "grants", " ".join(session.grants)
    yield from ((visible(f"term {name}"), term_text(value)) for name, value in terms_of(session).items())
    yield "asked by", request.asked_by
    yield "decision", request.decision_id
    yield "requested", time_text(request, "request_time")
    yield "answer by" if request.state == ACCESS_STATE_OPEN else "expires", time_text(request, "expire_time")
    yield "answered", " by ".join(filter(None, (time_text(request, "answer_time"), request.answered_by)))
    yield "reason", request.reason
    if request.approved_calls:
        yield "used", f"{request.used_calls} of {request.approved_calls}"
    if review.most_calls > 1:
        yield "calls", f"this one, or with --run up to {review.most_calls} like it"
    yield "log-in", "must be from the last five minutes" if review.critical else ""
    yield "digest", review.request_digest


def _named(what: str, name: str, value: str) -> tuple[str, str]:
    """Return a field with a name that an agent may have chosen: one that is no plain word stands in the value."""
    if _PLAIN.fullmatch(name):
        return f"{what} {name}", _exact(value)
    return what, _exact(f"{json.dumps(name, ensure_ascii=False)}: {value}")


def _exact(text: str) -> str:
    """Write a JSON text so that its blanks can be counted: a field shows several as one."""
    return re.sub("(?<= ) ", r"\\u0020", text)
