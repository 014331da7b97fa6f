"""The gate: what is checked live on every call, before the policies and never remembered."""

from __future__ import annotations

from dataclasses import dataclass

from pdp.clock import Instant
from pdp.model import Basis, Call, Outcome, Ruling, Session, SessionState
from pdp.policy.bundle import Bundle
from pdp.policy.tools.catalogue import Tool
from pdp.sessions.lifecycle import state_of

_BASIS_OF_STATE = {
    SessionState.REQUESTED: Basis.SESSION_NOT_APPROVED,
    SessionState.DENIED: Basis.SESSION_NOT_APPROVED,
    SessionState.ENDED: Basis.SESSION_ENDED,
    SessionState.EXPIRED: Basis.SESSION_EXPIRED,
    SessionState.REVOKED: Basis.SESSION_REVOKED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What one decision rests on: the bundle, the session with its ancestors (nearest first), and the time.

    `chain` is empty when no session of the caller's tenant has the handle. `wall_at` is the wall clock as it is, for
    policies; `now` never goes back, for deadlines.
    """

    bundle: Bundle
    chain: tuple[Session, ...]
    now: Instant
    wall_at: float


def gate(snapshot: Snapshot, call: Call) -> Ruling | None:
    """Return the deny of the first check that fails, or None when the policies may be asked."""
    if not snapshot.chain:
        return deny(Basis.SESSION_NOT_FOUND)
    for session in snapshot.chain:
        if (basis := _standing(session, snapshot)) is not None:
            return _refusal(snapshot, session, basis)
    tool = snapshot.bundle.catalogue.tools.get(call.action)
    if tool is None or tool.server != call.server:
        return deny(Basis.UNKNOWN_TOOL)
    stated = call.definition_digest
    if (stated or tool.digest_required) and stated != tool.definition_digest and not tool.is_known_as(stated):
        return deny(Basis.TOOL_CHANGED)
    for session in snapshot.chain:
        if (basis := _reach(session, tool, snapshot)) is not None:
            return _refusal(snapshot, session, basis)
    return None


def _refusal(snapshot: Snapshot, session: Session, basis: Basis) -> Ruling:
    return deny(basis) if session is snapshot.chain[0] else ancestor_deny(session, deny(basis))


def _standing(session: Session, snapshot: Snapshot) -> Basis | None:
    state = state_of(session, snapshot.now)
    if state is not SessionState.ACTIVE:
        return _BASIS_OF_STATE[state]
    return Basis.LABEL_NOT_APPROVED if snapshot.bundle.unapproved_labels(session) else None


def _reach(session: Session, tool: Tool, snapshot: Snapshot) -> Basis | None:
    approved = session.scope.tools.get(tool.action) if session.scope else None
    if approved is None or tool.action not in snapshot.bundle.within_ceiling(session.agent):
        return Basis.OUT_OF_SCOPE
    return None if approved == tool.definition_digest or tool.is_known_as(approved) else Basis.TOOL_CHANGED


def deny(basis: Basis, detail: str = "") -> Ruling:
    """Return a deny with a basis."""
    return Ruling(outcome=Outcome.DENY, basis=basis, detail=detail)


def ancestor_deny(ancestor: Session, ruling: Ruling) -> Ruling:
    """Return the deny of a call that a session above would not be allowed."""
    return Ruling(
        outcome=Outcome.DENY,
        basis=Basis.ANCESTOR_DENIED,
        policies=ruling.policies,
        errors=ruling.errors,
        ancestor_id=ancestor.id,
        ancestor_basis=ruling.basis,
        detail=ruling.detail,
    )
