"""What a session may reach: patterns become tools, tools become a scope, and a digest identifies what was shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pdp.errors import InvalidRequestError
from pdp.foundation.jsontext import canonical, digest
from pdp.limits import Limits
from pdp.model import Scope, Session
from pdp.policy.bundle import Bundle
from pdp.policy.patterns import ToolPatterns, pattern_problem
from pdp.policy.tools.overlay import ToolConnection
from pdp.quickvalues import quickly_made


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class ScopedTool:
    """One tool of a session's scope, with its groups and the labels that its calls add in the current catalogue.

    Both are empty when the tool is gone, or no catalogue is loaded. `definition_digest` is what an approval freezes.
    `connection` is the one that its calls use; None for none, and when another one was approved.
    """

    server: str
    tool: str
    definition_digest: str
    risk: str
    groups: tuple[str, ...] = ()
    adds_labels: tuple[str, ...] = ()
    connection: ToolConnection | None = None

    @property
    def action(self) -> str:
        """Return the action's id, `server/tool`."""
        return f"{self.server}/{self.tool}"


def expansion(session: Session, parents: tuple[Session, ...], bundle: Bundle) -> Scope:
    """Return the tools that match the patterns now, within the agent's ceiling and every parent's scope."""
    asked = ToolPatterns(session.tool_patterns)
    within = bundle.within_ceiling(session.agent)
    tools = {
        action: tool.approval_digest
        for action, tool in bundle.catalogue.tools.items()
        if asked.match(action) and action in within
    }
    for parent in parents:
        above = parent.scope.tools if parent.scope else {}
        tools = {
            action: found
            for action, found in tools.items()
            if bundle.catalogue.tools[action].is_approved_as(above.get(action, ""))
        }
    return scope_of(tools)


def scope_of(tools: Mapping[str, str]) -> Scope:
    """Return the scope of actions and definition digests; its id is the digest of its content."""
    return Scope(id=digest(canonical(dict(tools))), tools=tools)


def scoped_tools(scope: Scope, bundle: Bundle | None) -> tuple[ScopedTool, ...]:
    """Return the tools of a scope, sorted, with their groups in a bundle; without one they have none."""
    tools = []
    for action in sorted(scope.tools):
        server, _, name = action.partition("/")
        known = bundle.catalogue.tools.get(action) if bundle else None
        tools.append(
            ScopedTool(
                server=server,
                tool=name,
                definition_digest=scope.tools[action],
                risk=known.risk if known else "",
                groups=known.groups if known else (),
                adds_labels=known.adds_labels if known else (),
                connection=known.connection if known and known.is_approved_as(scope.tools[action]) else None,
            )
        )
    return tuple(tools)


def require_patterns(patterns: tuple[str, ...], limits: Limits, *, field: str = "tool_patterns") -> None:
    """Raise `InvalidRequestError` naming the first invalid pattern, or when there are too many."""
    if len(patterns) > limits.tool_patterns:
        raise InvalidRequestError(field, f"more than {limits.tool_patterns} (limit `tool_patterns`)")
    for index, pattern in enumerate(patterns):
        if problem := pattern_problem(pattern):
            raise InvalidRequestError(f"{field}[{index}]", problem)


def require_tools(patterns: tuple[str, ...], scope: Scope, limits: Limits) -> None:
    """Raise `InvalidRequestError` unless the patterns and their scope can be requested.

    There must be a pattern, each must match a tool of the scope, and the tools must be within the limit.
    """
    if not patterns:
        raise InvalidRequestError("tool_patterns", "at least one is needed")
    if has_too_many(scope, limits):
        raise InvalidRequestError(
            "tool_patterns", f"match {len(scope.tools)} tools, more than {limits.session_tools} (limit `session_tools`)"
        )
    for index, pattern in enumerate(patterns):
        one = ToolPatterns((pattern,))
        if not any(one.match(action) for action in scope.tools):
            problem = f"`{pattern}` matches no tool that the agent may use"
            raise InvalidRequestError(f"tool_patterns[{index}]", problem)


def has_too_many(scope: Scope, limits: Limits) -> bool:
    """Return whether a scope has more tools than an approval may bind."""
    return len(scope.tools) > limits.session_tools


def request_digest_of(session: Session, scope: Scope, bundle: Bundle, grants: Iterable[str] = ()) -> str:
    """Return the digest of what the approver sees and gives, except what changes by waiting.

    Session and scope are as an approval would make them.
    """
    shown = {
        "session_id": session.id,
        "user": session.user,
        "agent": session.agent,
        "purpose": session.purpose,
        "tool_patterns": list(session.tool_patterns),
        "tools": [
            [one.server, one.tool, one.definition_digest, one.risk, *one.groups] for one in scoped_tools(scope, bundle)
        ],
        "duration": session.duration,
        "tenant": session.tenant,
        "environment": session.environment,
        "opened_by": session.opened_by,
        "parent_id": session.parent_id,
        "may_delegate": session.may_delegate,
        "labels": list(session.labels),
        "widening_labels": sorted(bundle.widening_labels(session.labels, scope.tools)),
        "attributes": session.user_attributes_json,
        "user_groups": list(session.user_groups),
        "terms": session.terms_json,
        "grants": sorted(set(grants)),
    }
    return digest(canonical(shown))
