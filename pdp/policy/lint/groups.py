"""Lints about forbids that match less than they seem to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pdp.policy.analysis import action_scope
from pdp.policy.lint.facts import Finding, LintBundle, LintPolicy, Tree, atoms, literal_uid, path
from pdp.policy.locate import entity_anchor

_MUTATING, _DESTRUCTIVE = "mutating", "destructive"


def risk_gap(bundle: LintBundle) -> Iterator[tuple[LintPolicy, Finding]]:
    """Find forbids for mutating tools that leave out destructive tools."""
    destructive = {tool.action for tool in bundle.catalogue.tools.values() if tool.risk == _DESTRUCTIVE}
    forbids = [one for one in bundle.policies if one.effect == "forbid"]
    groups = {one.id: _groups(one) for one in forbids}
    stricter = [set(_shapes(one)) for one in forbids if destructive <= one.actions or _DESTRUCTIVE in groups[one.id]]
    for policy in forbids:
        left_out = destructive - policy.actions
        if _MUTATING in groups[policy.id] and _DESTRUCTIVE not in groups[policy.id] and left_out:
            shapes = set(_shapes(policy))
            if not any(other <= shapes for other in stricter):
                yield policy, _gap(policy, min(left_out))


def _gap(policy: LintPolicy, left_out: str) -> Finding:
    return Finding(
        message=f"forbid `{policy.id}` covers `{_MUTATING}` tools but not `{_DESTRUCTIVE}` ones such as `{left_out}`: "
        "neither group includes the other",
        help=f'name both: `action in [Action::"{_MUTATING}", Action::"{_DESTRUCTIVE}"]`',
        at=[entity_anchor("Action", _MUTATING), f'"{_MUTATING}"'],
    )


def exact_server(policy: LintPolicy, _: LintBundle) -> Iterator[Finding]:
    """Find a forbid whose resource equals a server: it does not match calls with another resource."""
    if policy.effect != "forbid":
        return
    for name in sorted(set(_servers_by_name(policy))):
        tools = [one.tool for one in policy.environments if one.tool and one.tool.server == name]
        reached = sum(tool.mapping is None for tool in tools)
        yield Finding(
            message=f"forbid `{policy.id}` matches {reached} of {len(tools)} tools of the server `{name}`: calls that "
            "an overlay maps to another resource, now or later, are not forbidden",
            help=f'write `resource in Server::"{name}"`, which matches all of them',
            at=[entity_anchor("Server", name)],
        )


def _groups(policy: LintPolicy) -> set[str]:
    """Return the risk groups that a policy names: in its scope, in conditions, and in tests of `context.risks`."""
    found = {name for name in action_scope(policy.tree) or () if name in (_MUTATING, _DESTRUCTIVE)}
    for tree, positive in atoms(policy.conditions):
        if positive:
            found |= set(_risks_asked(tree))
    return found


def _risks_asked(tree: Tree) -> Iterator[str]:
    match tree:
        case {"in": {"left": {"Var": "action"}, "right": right}}:
            named = (literal_uid(one) for one in right.get("Set", [right]))
            yield from (uid[1] for uid in named if uid)
        case {"contains": {"left": left, "right": {"Value": str(name)}}} if path(left) == ("context", "risks"):
            yield name
        case {"containsAny": {"left": left, "right": {"Set": [*elements]}}} if path(left) == ("context", "risks"):
            yield from (one["Value"] for one in elements if isinstance(one.get("Value"), str))


def _shapes(policy: LintPolicy) -> Iterator[str]:
    """Yield the conjuncts as texts, in which all grants are equal and so are all risk groups.

    A forbid for destructive tools whose conjuncts are all among those of one for mutating tools covers the destructive
    ones in the same way, perhaps with another grant as the exception.
    """
    return (json.dumps(_blank(tree), sort_keys=True) for tree in policy.conjuncts)


def _blank(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    match value:
        case {"__entity": {"type": "Grant"}}:
            return "a grant"
        case {"Value": "mutating" | "destructive"}:
            return "a group"
        case dict():
            return {name: _blank(inner) for name, inner in value.items()}
        case list():
            return [_blank(inner) for inner in value]
    return value


def _servers_by_name(policy: LintPolicy) -> Iterator[str]:
    scope = policy.conjuncts[: policy.scope_length]
    for tree, positive in (*((one, True) for one in scope), *atoms(policy.conditions)):
        match tree:
            case {"==": {"left": left, "right": right}} if positive:
                for subject, named in ((left, right), (right, left)):
                    uid = literal_uid(named)
                    if path(subject) == ("resource",) and uid and uid[0] == "Server":
                        yield uid[1]
