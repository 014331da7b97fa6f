"""Calls that wait for a person, as a decision would leave them in the history."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from pdp.app.embedded import Embedded
from pdp.clock import Clock, Deadline, Instant
from pdp.foundation.ids import new_access_request_id
from pdp.model import Ask
from pdp.sessions.access import REQUEST_SECONDS, AccessRequest, BoundCall, Unaskable

QUESTION = "may the agent look at all that was ever changed?"


def a_request(embedded: Embedded, clock: Clock, session_id: str, *, by: str, action: str = "git/log") -> AccessRequest:
    """Return an access request about a call in a session that exists, by a gateway."""
    session, bundle = embedded.sessions.get(session_id)[0], embedded.keeper.current()
    tool = bundle.catalogue.tools[action]
    call = bound_call(session_id, tool.definition_digest, bundle.version, action=action)
    request = request_of(call, clock.now(), user=session.user, agent=session.agent, by=by)
    return replace(request, tenant=session.tenant, ancestor_ids=session.ancestor_ids)


def bound_call(session_id: str, definition_digest: str, bundle_version: str, *, action: str) -> BoundCall:
    """Return a call about which one question is asked."""
    server, _, tool = action.partition("/")
    return BoundCall(
        session_id=session_id,
        server=server,
        tool=tool,
        definition_digest=definition_digest,
        bundle_version=bundle_version,
        digest=hashlib.sha256(f"{session_id} {action}".encode()).digest(),
        names=b"names",
        targets=frozenset(),
        asks=(Ask(session_id, "guardrails/ask", "sha256:" + "1" * 64, QUESTION),),
    )


def request_of(call: BoundCall, now: Instant, *, user: str, agent: str, by: str) -> AccessRequest:
    """Return an access request about a call of a gateway."""
    deadline = Deadline.after(now, REQUEST_SECONDS)
    return AccessRequest(
        id=new_access_request_id(),
        call=call,
        tenant="default",
        user=user,
        agent=agent,
        asked_by=by,
        decision_id="dec_" + "a" * 26,
        asked_at=now.wall_at,
        deadline=deadline,
        ends_at=deadline.wall_at,
        provenance=("none",),
    )


def waiting(
    embedded: Embedded,
    clock: Clock,
    session_id: str,
    *,
    by: str,
    action: str = "git/log",
    arguments: bytes = b'{"repo":"web"}',
    call: dict[str, Any] | None = None,
    **more: Any,
) -> AccessRequest:
    """Have a call wait for a person; `call` and `more` are other fields of the request and of what it binds."""
    request = a_request(embedded, clock, session_id, by=by, action=action)
    request = replace(request, call=replace(request.call, **(call or {})), **more)
    opened = embedded.history.access().ask(request, arguments, clock.now())
    assert not isinstance(opened, Unaskable), opened
    return opened
