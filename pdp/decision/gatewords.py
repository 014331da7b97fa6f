"""Say in plain words which check of the gate failed, for authors and auditors."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import assert_never

from pdp.decision.gate import Snapshot
from pdp.foundation.nearest import hint
from pdp.model import Basis, Call, Ruling, Session, SessionState

_LISTED = 8
_NAME_CHARACTERS = 200


def gate_words(snapshot: Snapshot, call: Call, ruling: Ruling) -> str:
    """Say why the gate refused a call; `ruling` is what `gate` returned for this very snapshot."""
    if not snapshot.chain:
        return "no session of this tenant has this handle"
    held = next((one for one in snapshot.chain if one.id == ruling.ancestor_id), snapshot.chain[0])
    basis = ruling.ancestor_basis or ruling.basis
    who = f"session `{held.id}`" + (" above" if ruling.ancestor_id else "")
    match basis:
        case Basis.UNKNOWN_TOOL:
            return _unknown_tool(snapshot, call)
        case Basis.TOOL_CHANGED:
            return _tool_changed(snapshot, call, held, who)
        case Basis.OUT_OF_SCOPE:
            return _out_of_scope(snapshot, call, held, who)
        case (
            Basis.SESSION_NOT_FOUND
            | Basis.SESSION_NOT_APPROVED
            | Basis.SESSION_EXPIRED
            | Basis.SESSION_REVOKED
            | Basis.SESSION_ENDED
        ):
            return f"{who} {_standing(held, basis)}"
        case Basis.LABEL_NOT_APPROVED:
            labels = _list(sorted(snapshot.bundle.unapproved_labels(held)))
            return f"{who} has {labels}: declared as widening now, and not when it was approved"
        case (
            Basis.PERMIT
            | Basis.FORBID
            | Basis.DEFAULT_DENY
            | Basis.POLICY_ERROR
            | Basis.INVALID_ARGUMENTS
            | Basis.ANCESTOR_DENIED
            | Basis.APPROVAL_REQUIRED
            | Basis.BUDGET_EXHAUSTED
            | Basis.RECORD_UNAVAILABLE
        ):
            raise AssertionError(f"the gate refuses nothing by `{basis.value}`")
        case _:
            assert_never(basis)


def _standing(session: Session, basis: Basis) -> str:
    if basis is Basis.SESSION_EXPIRED:
        what = "expired" if session.approved_at else "was never approved, and its request expired"
        return f"{what} at {moment(session.deadline.wall_at)}"
    if session.state is SessionState.REQUESTED:
        return f"waits for approval since {moment(session.requested_at)}"
    how = {SessionState.DENIED: "was refused", SessionState.ENDED: "was ended"}.get(session.state, "was revoked")
    reason = f": {session.reason}" if session.reason else ""
    return f"{how} at {moment(session.ended_at)} by `{session.ended_by}`{reason}"


def _unknown_tool(snapshot: Snapshot, call: Call) -> str:
    # Comparing takes the square of the length, and the name may be anything.
    near = hint(call.action[:_NAME_CHARACTERS], snapshot.bundle.catalogue.tools)
    return f"the catalogue holds no tool `{call.action}`{near}"


def _tool_changed(snapshot: Snapshot, call: Call, session: Session, who: str) -> str:
    tool = snapshot.bundle.catalogue.tools[call.action]
    if call.definition_digest and not tool.is_known_as(call.definition_digest):
        return f"the gateway sees another definition of `{call.action}` than the catalogue holds"
    if tool.digest_required and not call.definition_digest:
        return f"a call of `{call.action}` must state the digest of its definition, and this one does not"
    return f"the definition of `{call.action}` has changed since {who} was approved at {moment(session.approved_at)}"


def _out_of_scope(snapshot: Snapshot, call: Call, session: Session, who: str) -> str:
    if session.scope is None or call.action not in session.scope.tools:
        # Narrowing and ceilings may have left less than the patterns say.
        asked = f"it was requested for {_list(session.tool_patterns)}"
        return f"`{call.action}` is not among the tools of {who}; {asked}"
    ceiling = snapshot.bundle.directory.ceilings.get(session.agent)
    if ceiling is None:
        return f"agent `{session.agent}` is not in the directory"
    return f"`{call.action}` is above the ceiling of agent `{session.agent}`, which is {_list(ceiling.patterns)}"


def _list(patterns: Iterable[str]) -> str:
    listed = [f"`{pattern}`" for pattern in patterns]
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return (", ".join(listed[:_LISTED]) or "nothing") + more


def moment(at: float) -> str:
    """Write unix seconds for people, in UTC to the second."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
