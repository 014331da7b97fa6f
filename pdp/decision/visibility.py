"""Whether the policies could allow calls of a tool, whatever the arguments: what listings and approvers are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pdp.decision.ruling import CallFacts, question_of
from pdp.model import Session, Visibility
from pdp.policy.bundle import Bundle
from pdp.policy.engine import SessionEntities
from pdp.policy.tools.catalogue import Tool

EntitiesOf = Callable[[Session], SessionEntities]


def policy_visibility(
    bundle: Bundle, chain: Sequence[Session], tool: Tool, *, caller_id: str, wall_at: float, entities_of: EntitiesOf
) -> Visibility:
    """Return what the policies say of a tool to a session and to each session above it: all must permit.

    `caller_id` is the gateway that would ask, `wall_at` the time in unix seconds. `entities_of` parses what a session
    is made of, or remembers it. The gate is not asked.
    """
    if tool.unusable:
        return Visibility.NEVER
    return _of_all(_of_one(bundle, session, tool, caller_id, wall_at, entities_of) for session in chain)


def _of_all(seen: Iterable[Visibility]) -> Visibility:
    found = set(seen)
    if Visibility.NEVER in found:
        return Visibility.NEVER
    return Visibility.DEPENDS if Visibility.DEPENDS in found else Visibility.ALWAYS


def _of_one(
    bundle: Bundle, session: Session, tool: Tool, caller_id: str, wall_at: float, entities_of: EntitiesOf
) -> Visibility:
    mapped = tool.resource_type != "Server"
    resource = (tool.resource_type, "" if mapped else tool.server)
    facts = CallFacts(resource=resource, context={"input": {}, "opaque": [], "caller": {"id": caller_id}})
    asked = bundle.slice(tool.action)
    try:
        known = entities_of(session)
    except ValueError:
        return Visibility.NEVER
    return asked.visibility(question_of(session, facts, wall_at), known, mapped=mapped)
