"""What a policy can match and read, taken from its tree in Cedar's JSON.

The tree is walked without recursion, so that its depth does not matter, and every node is descended into, known or
not: a kind of node that a later engine adds can only widen what is found.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Tree = Any


def findings(policy: Tree) -> dict[str, Any]:
    """Return everything that slices, the cache and listings go by: what is found about a policy, in one place."""
    return {
        "actions": action_scope(policy),
        "resource_type": resource_type(policy),
        "reads": reads(policy),
        "entities": entity_uids(policy),
    }


def action_scope(policy: Tree) -> list[str] | None:
    """Return the ids of the actions and groups that the scope names; None means any action."""
    scope = policy["action"]
    if scope["op"] == "All":
        return None
    uids = [scope["entity"]] if "entity" in scope else scope["entities"]
    return sorted(uid["id"] for uid in (_bare(uid) for uid in uids))


def resource_type(policy: Tree) -> str | None:
    """Return the one type of resource that the scope can match: `is Repository`, or `== Repository::"…"`; else None."""
    scope = policy["resource"]
    if "entity_type" in scope:
        return str(scope["entity_type"])
    return str(_bare(scope["entity"])["type"]) if scope["op"] == "==" and "entity" in scope else None


def reads(policy: Tree) -> list[str] | None:
    """Return what the policy can read beside principal and action, sorted; None means everything.

    Attributes of the context by name, and `resource` when it matters beyond its type and server. A `context` that does
    not stand directly under an attribute or a `has` could be read as a whole.

    Whether something else stands below a server depends on the resource too: what a call is mapped to stands below
    the server of the call, for this one call.
    """
    found = set()
    if not _known_beforehand(policy["resource"]) or _below_server(policy["principal"]):
        found.add("resource")
    for node in _nodes([condition["body"] for condition in policy["conditions"]]):
        if node.get("Var") == "context":
            return None
        if node.get("Var") == "resource" or _could_ask_for_server(node):
            found.add("resource")
        if (attribute := _context_attribute(node)) is not None:
            found.add(f"context.{attribute}")
    return sorted(found)


def entity_uids(policy: Tree) -> list[list[str]]:
    """Return the type and id of every entity that the policy names, sorted."""
    found = set()
    for node in _nodes([policy["principal"], policy["resource"], *(c["body"] for c in policy["conditions"])]):
        uid = node.get("__entity") or node.get("entity")
        if isinstance(uid, dict):
            uid = _bare(uid)
            if isinstance(uid.get("type"), str) and isinstance(uid.get("id"), str):
                found.add((uid["type"], uid["id"]))
    return [list(uid) for uid in sorted(found)]


def _known_beforehand(scope: Tree) -> bool:
    """Say whether the action alone tells if the resource is in scope: by its type, or by the server of the call."""
    within = scope.get("in", scope)  # `is T in E` nests its `in`
    if "entity" not in within:
        return True
    return bool(_bare(within["entity"])["type"] == "Server")


def _below_server(scope: Tree) -> bool:
    within = scope.get("in", scope)
    return "entity" in within and bool(_bare(within["entity"])["type"] == "Server")


def _could_ask_for_server(node: dict[str, Any]) -> bool:
    """Say whether a node is a test for ancestors that are not all named, or one of which is a server."""
    inner = node.get("in") or node.get("is")
    if not isinstance(inner, dict) or inner.get("left") == {"Var": "action"}:
        return False
    above = inner.get("in" if "is" in node else "right")
    if above is None:
        return False
    named = [one.get("Value") for one in (above.get("Set") or [above])]
    return not all(isinstance(one, dict) and _bare(one).get("type", "Server") != "Server" for one in named)


def _nodes(roots: list[Tree]) -> Iterator[dict[str, Any]]:
    pending = list(roots)
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield value
            if _context_attribute(value) is not None:
                continue  # this context is read by one attribute only
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def _context_attribute(node: dict[str, Any]) -> str | None:
    for operator in (".", "has"):
        inner = node.get(operator)
        if (
            len(node) == 1
            and isinstance(inner, dict)
            and set(inner) == {"left", "attr"}
            and inner["left"] == {"Var": "context"}
            and isinstance(inner["attr"], str)
        ):
            return inner["attr"]
    return None


def _bare(uid: dict[str, Any]) -> Tree:
    return uid.get("__entity", uid)
