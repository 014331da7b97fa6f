"""What a policy can match and read, taken from its tree in Cedar's JSON.

The walk does not recurse, so the depth of the tree does not matter. It visits every node, known or unknown: a kind of
node that a later engine adds can only add to the findings.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pdp.policy.counting import COUNTS, DONE
from pdp.policy.directory import Uid
from pdp.policy.moments import moments
from pdp.policy.view import HAS

Tree = Any

# The prefix of a server's name in `reads`.
BELOW = "below "
# What a policy reads that could read the labels of a session.
LABELS = "labels"

_CONTEXT = {"Var": "context"}
_INPUT = {".": {"left": _CONTEXT, "attr": "input"}}
_COUNTS = {".": {"left": _CONTEXT, "attr": "counts"}}
_DONE = {".": {"left": _CONTEXT, "attr": "done"}}


def findings(policy: Tree) -> dict[str, Any]:
    """Return all findings about a policy, for slices, the cache and listings."""
    return {
        "actions": action_scope(policy),
        "resource_type": resource_type(policy),
        "reads": reads(policy),
        "entities": entity_uids(policy),
        "moments": moments([condition["body"] for condition in policy["conditions"]]),
    }


def action_scope(policy: Tree) -> list[str] | None:
    """Return the ids of the actions and groups in the scope; None means any action."""
    scope = policy["action"]
    if scope["op"] == "All":
        return None
    uids = [scope["entity"]] if "entity" in scope else scope["entities"]
    return sorted(uid["id"] for uid in (_bare(uid) for uid in uids))


def resource_type(policy: Tree) -> str | None:
    """Return the only type of resource that the scope can match, None for any.

    A scope names it by `is Repository` or `== Repository::"…"`.
    """
    scope = policy["resource"]
    if "entity_type" in scope:
        return str(scope["entity_type"])
    return str(_bare(scope["entity"])["type"]) if scope["op"] == "==" and "entity" in scope else None


def reads(policy: Tree) -> list[str] | None:
    """Return what the policy can read apart from principal and action, sorted; None means everything.

    The items are attributes of the context by name, one argument as `context.input.amount`; `has NAME` for a test
    whether the context has an attribute, which the action alone determines; `context.counts.NAME` and
    `context.done.NAME` for what is counted under a name, and both without a name for any other use, which a bundle may
    not have; `labels` when it could read those of a session; `resource` when more than its type and server matters; and
    `below NAME` when the scope tests whether it is below the server of that name. The resource of a call to that server
    is, and any other only if the directory says so.

    A `context` that is not directly under an attribute or a `has` could be read as a whole; so could `context.input`.
    Whether another entity is below a server also depends on the resource: during a call, its resource is below the
    server of the call.
    """
    found = set()
    if (above := _above(policy["resource"])) is not None:
        found.add(f"{BELOW}{above[1]}" if above[0] == "Server" else "resource")
    if (_above(policy["principal"]) or ("",))[0] == "Server":
        found.add("resource")
    for node in _nodes([condition["body"] for condition in policy["conditions"]]):
        if node.get("Var") == "context":
            return None
        if counted := _counted(node):
            found.update(counted)
            continue
        if node.get("Var") == "resource" or _could_ask_for_server(node):
            found.add("resource")
        # Whatever has the attribute: an expression can stand for a session.
        if node.get("attr") == LABELS:
            found.add(LABELS)
        if (attribute := _attribute(node, _INPUT)) is not None:
            found.add(f"context.input.{attribute}")
        elif (attribute := _attribute(node, _CONTEXT)) is not None:
            found.add(f"{HAS}{attribute}" if "has" in node else f"context.{attribute}")
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


def _above(scope: Tree) -> Uid | None:
    """Return the entity that a variable must be or be below; None when the scope names no entity."""
    within = scope.get("in", scope)  # `is T in E` nests its `in`
    if "entity" not in within:
        return None
    uid = _bare(within["entity"])
    return str(uid["type"]), str(uid["id"])


def _could_ask_for_server(node: dict[str, Any]) -> bool:
    """Return whether a node tests for ancestors that are not all named, or for a server."""
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
            if _attribute(value, _INPUT) is not None or _attribute(value, _CONTEXT) is not None or _counted(value):
                continue  # only one attribute of this context is read
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def _counted(node: dict[str, Any]) -> list[str]:
    """Return what a node reads of what is counted, in the form of which all names are known; empty for other nodes."""
    match node:
        case {".": {"left": left, "attr": str(name), **others}} if left == _COUNTS and len(node) == 1 and not others:
            return [f"{COUNTS}{name}"]
        case {"contains": {"left": left, "right": {"Value": str(name), **others}}} if left == _DONE and not others:
            return [f"{DONE}{name}"]
        case {"containsAll": {"left": left, "right": {"Set": [*members], **others}}} | {
            "containsAny": {"left": left, "right": {"Set": [*members], **others}}
        } if left == _DONE and not others:
            names = [one.get("Value") for one in members if isinstance(one, dict) and set(one) == {"Value"}]
            texts = [f"{DONE}{name}" for name in names if isinstance(name, str)]
            return texts if len(texts) == len(members) else []
    return []


def _attribute(node: dict[str, Any], of: Tree) -> str | None:
    """Return the attribute of a tree that a node reads or tests for; None for other nodes."""
    for operator in (".", "has"):
        inner = node.get(operator)
        if (
            len(node) == 1
            and isinstance(inner, dict)
            and set(inner) == {"left", "attr"}
            and inner["left"] == of
            and isinstance(inner["attr"], str)
        ):
            return inner["attr"]
    return None


def _bare(uid: dict[str, Any]) -> Tree:
    return uid.get("__entity", uid)
