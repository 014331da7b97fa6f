"""The gate: the live checks of every call, before the policies and never remembered."""

from __future__ import annotations

from pdp.decision import gatewords as rows
from pdp.decision.gatewords import Refusal, Row
from pdp.decision.snapshot import Snapshot
from pdp.model import Bounds, Call, Session, SessionState
from pdp.policy.tools.catalogue import Tool
from pdp.sessions.lifecycle import state_of


def gate(snapshot: Snapshot, call: Call, bounds: Bounds | None = None) -> Tool | Refusal:
    """Return the tool about which the policies may be asked, or the first check that fails.

    `bounds` are those of the gateway that asks.
    """
    if not snapshot.chain or snapshot.freeze is not None:
        return Refusal(rows.FROZEN if snapshot.chain else rows.NO_SESSION, snapshot, call)
    for above, session in enumerate(snapshot.chain):
        if (row := _of_state(snapshot, session)) is not None:
            return Refusal(row, snapshot, call, above)
    tool = snapshot.bundle.catalogue.tool(call.server, call.tool)
    if tool is None:
        return Refusal(rows.UNKNOWN_TOOL, snapshot, call)
    if (row := _of_call(call, tool)) is not None:
        return Refusal(row, snapshot, call)
    for above, session in enumerate(snapshot.chain):
        if (row := _of_reach(snapshot, session, tool)) is not None:
            return Refusal(row, snapshot, call, above)
    seen = bounds is None or bounds.sees_results or tool.action not in snapshot.bundle.reported_actions
    return tool if seen else Refusal(rows.RESULT_UNSEEN, snapshot, call)


def _of_state(snapshot: Snapshot, session: Session) -> Row | None:
    state = state_of(session, snapshot.now)
    if state is not SessionState.ACTIVE:
        return rows.OF_STATE[state]
    return rows.UNAPPROVED_LABELS if snapshot.bundle.unapproved_labels(session) else None


def _of_call(call: Call, tool: Tool) -> Row | None:
    if not call.definition_digest:
        return rows.UNSTATED if tool.digest_required else None
    return None if tool.is_known_as(call.definition_digest) else rows.MISSTATED


def _of_reach(snapshot: Snapshot, session: Session, tool: Tool) -> Row | None:
    approved = session.scope.tools.get(tool.action) if session.scope else None
    if approved is None:
        return rows.OUT_OF_SCOPE
    if tool.action not in snapshot.bundle.within_ceiling(session.agent):
        return rows.ABOVE_CEILING
    return None if tool.is_approved_as(approved) else rows.CHANGED
