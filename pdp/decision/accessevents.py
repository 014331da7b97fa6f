"""The events of access requests for the record: who asked, answered and used. Arguments are never part of them."""

from __future__ import annotations

from pdp.model import Decision
from pdp.observer import Event, EventKind
from pdp.sessions.access import AccessRequest


def access_event(kind: EventKind, request: AccessRequest, *, at: float, caller_id: str, **more: str) -> Event:
    """Return an event of a request; `more` are further facts, and `at` is unix seconds."""
    facts = {
        "access_request_id": request.id,
        "action": request.call.action,
        "bundle_version": request.call.bundle_version,
        "asked_by": request.asked_by,
        "reason": request.reason,
        **more,
    }
    lists = {
        "forbids": tuple(sorted({ask.policy for ask in request.call.asks})),
        "ancestors": request.ancestor_ids,
        "targets": request.provenance,
        "links": request.links,
    }
    return Event(
        kind=kind,
        at=at,
        caller_id=caller_id,
        session_id=request.call.session_id,
        user=request.user,
        agent=request.agent,
        tenant=request.tenant,
        facts={name: fact for name, fact in facts.items() if fact},
        lists={name: values for name, values in lists.items() if values},
    )


def event_of(request: AccessRequest | None, decision: Decision) -> Event | None:
    """Return the event of a decision that has opened a request or used an approval; None for any other."""
    if request is None or not (decision.allowed or request.decision_id == decision.id):
        return None
    used = {}
    if decision.allowed:
        used = {
            "used": str(request.used),
            "calls": str(request.most_uses),
            # Who allowed the call: the one person to ask about it.
            "approved_by": request.answered_by,
        }
    kind = EventKind.ACCESS_USED if decision.allowed else EventKind.ACCESS_REQUESTED
    return access_event(
        kind, request, at=decision.decided_at, caller_id=decision.caller.id, decision_id=decision.id, **used
    )
