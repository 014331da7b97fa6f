"""Whether calls of a tool could be allowed, without knowing their arguments, for listings and approvers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pdp.decision.gate import gate
from pdp.decision.gatewords import Refusal
from pdp.decision.snapshot import Snapshot
from pdp.errors import FrozenError, NotFoundError, WrongStateError
from pdp.model import Bounds, Call, Caller, Session, SessionState, Targets, Visibility
from pdp.policy.budgets import budgets_of
from pdp.policy.bundle import Bundle
from pdp.policy.engine import Foreseen
from pdp.policy.question import Facts
from pdp.policy.reading import Reading
from pdp.policy.tools.catalogue import Tool
from pdp.sessions.lifecycle import state_of

LEAST_FIRST = (Visibility.NEVER, Visibility.DEPENDS, Visibility.ALWAYS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolVisibility:
    """One tool of the catalogue as a session sees it; `reading` is what policies read of its calls, if requested."""

    server: str
    tool: str
    visibility: Visibility
    definition_digest: str
    reading: Reading | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolListing:
    """Every tool of the catalogue as one session sees it. Being listed gives no authority."""

    session_id: str
    bundle_version: str
    tools: tuple[ToolVisibility, ...]


def tool_listing(snapshot: Snapshot, caller: Caller, *, with_readings: bool) -> ToolListing:
    """Return for each tool whether the session of a snapshot could be allowed to call it, where this gateway asks.

    Raise `NotFoundError` without a session, `FrozenError` when its tenant is frozen, `WrongStateError` when it is not
    active.
    """
    if not snapshot.chain:
        raise NotFoundError("no such session")
    if snapshot.freeze is not None:
        raise FrozenError(f"{snapshot.freeze.what} frozen: no tool can be called")
    own, bundle = snapshot.chain[0], snapshot.bundle
    state = state_of(own, snapshot.now)
    if state is not SessionState.ACTIVE:
        raise WrongStateError(f"the session is {state.value}, not active")
    listed = (
        ToolVisibility(
            server=tool.server,
            tool=tool.name,
            visibility=reached(snapshot, tool, caller_id=caller.id, bounds=caller.bounds).visibility,
            definition_digest=tool.definition_digest,
            reading=bundle.slice(action).reading if with_readings else None,
        )
        for action, tool in sorted(bundle.catalogue.tools.items())
    )
    return ToolListing(session_id=own.id, bundle_version=bundle.version, tools=tuple(listed))


def reached(snapshot: Snapshot, tool: Tool, *, caller_id: str = "", bounds: Bounds | None = None) -> Foreseen:
    """Return whether the session of a snapshot could call a tool now, and the policies that say so.

    `caller_id` is the gateway that would ask, by default the one that opened the session, and `bounds` are its bounds.
    """
    call = Call(session_handle="", server=tool.server, tool=tool.name, definition_digest=tool.definition_digest)
    if isinstance(gate(snapshot, call, bounds), Refusal):
        return Foreseen(Visibility.NEVER)
    chain, asker = snapshot.chain, caller_id or snapshot.chain[0].opened_by
    seen = foreseen(snapshot.bundle, chain, tool, caller_id=asker, wall_at=snapshot.wall_at)
    limited = seen.visibility is Visibility.ALWAYS and _limited(snapshot, tool)
    return seen._replace(visibility=Visibility.DEPENDS) if limited else seen


def _limited(snapshot: Snapshot, tool: Tool) -> bool:
    """Say whether calls of a tool take of a budget; how much of it is left is not looked at."""
    return any(budget.counts(tool) for session in snapshot.chain for budget in budgets_of(session.terms_json))


def foreseen(bundle: Bundle, chain: Sequence[Session], tool: Tool, *, caller_id: str, wall_at: float) -> Foreseen:
    """Return the visibility of a tool by the policies of all sessions in a chain, and the policies that say so.

    All must permit. `caller_id` is the gateway that would ask, `wall_at` the time in unix seconds.

    The gate is not asked: it refuses every call of a session that still waits for the approver who asks this. So a tool
    can be visible here that `tool_listing` calls NEVER: its definition changed, it is above the ceiling, or the
    session has a label that was not approved.
    """
    if tool.unusable:
        return Foreseen(Visibility.NEVER)
    mapped = tool.resource_type != "Server"
    resource = (tool.resource_type, "" if mapped else tool.server)
    facts = facts_without_arguments(tool.action, resource, caller_id)
    found = [bundle.foresee(session, facts, wall_at, mapped=mapped) for session in chain]
    least = min((one.visibility for one in found), key=LEAST_FIRST.index)
    policies = {policy for one in found if one.visibility is least for policy in one.policies}
    return Foreseen(least, tuple(sorted(policies)))


def facts_without_arguments(action: str, resource: tuple[str, str], caller_id: str) -> Facts:
    """Return the facts of a call with unknown arguments, for `Bundle.foresee`."""
    context = {"input": {}, "opaque": [], "caller": {"id": caller_id}, "targets": Targets((), ()).cedar()}
    return Facts(action=action, resource=resource, context=context)
