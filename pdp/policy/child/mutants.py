"""Make mutants for tests of policies: change one part of one policy at a time, on its tree.

Runs in a child process like every parse of policy text. A change that strict validation refuses is not a mutant:
`check` finds it before any test does.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cedarpy

from pdp.errors import UnsafePolicyError
from pdp.limits import Limits
from pdp.policy.analysis import action_scope, findings
from pdp.policy.child.compile import compile_bundle
from pdp.policy.contents import Contents, read_contents
from pdp.policy.counting import CountedNames
from pdp.policy.obligations import OBLIGATION, STEP_UP, STEP_UP_RUN
from pdp.policy.rendering import expression_text, policy_text, scope_text, uid_text
from pdp.policy.safety import scan
from pdp.policy.schema import full_schema
from pdp.policy.tools.catalogue import RISKS, Tool

Tree = Any

_LONG = 2**63

# The replacements of an operator: the similar one that an author may write by mistake, and the opposite.
_SWAPS: Mapping[str, tuple[str, ...]] = {
    "&&": ("||",),
    "||": ("&&",),
    "==": ("!=",),
    "!=": ("==",),
    "<": ("<=", ">="),
    "<=": ("<", ">"),
    ">": (">=", "<="),
    ">=": (">", "<"),
    "+": ("-",),
    "-": ("+",),
    "containsAll": ("containsAny",),
    "containsAny": ("containsAll",),
    "lessThan": ("lessThanOrEqual", "greaterThanOrEqual"),
    "lessThanOrEqual": ("lessThan", "greaterThan"),
    "greaterThan": ("greaterThanOrEqual", "lessThanOrEqual"),
    "greaterThanOrEqual": ("greaterThan", "lessThan"),
}
_NEGATED = frozenset(
    {
        "in",
        "has",
        "like",
        "is",
        "contains",
        "containsAll",
        "containsAny",
        "isEmpty",
        "hasTag",
        "isInRange",
        "isLoopback",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A changed policy (None when it is dropped), and a description of the change."""

    tree: Tree | None
    words: str


def mutate_bundle(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return every mutant of every policy of a bundle.

    Takes the job of `compile_bundle`. Return its problems, or `{"mutants": […], "refused": {policy id: count}}`. A
    mutant has `of` (the policy's id), `words`, `equivalent` (why no call can distinguish it, or empty) and `policy` (as
    in the result of `compile_bundle`; null when it is dropped). Changes that validation refuses are only counted.
    """
    compiled = compile_bundle(job)
    if "problems" in compiled:
        return compiled
    limits = Limits(**job["limits"])
    contents = read_contents(
        {path: text.encode("utf-8", "surrogateescape") for path, text in job["files"].items()}, limits
    )
    tools = tuple(contents.catalogue.tools.values())
    counted = CountedNames.of(_read_by(policy) for policy in compiled["policies"])
    schema = cedarpy.Schema.from_str(
        full_schema(contents.schema, contents.caller_facts, tools, contents.groups, counted)
    )
    mutants = [mutant for policy in compiled["policies"] for mutant in _mutants(policy, contents, limits)]
    refused = _refused([mutant["policy"]["text"] for mutant in mutants if mutant["policy"]], schema)
    kept = [mutant for mutant in mutants if not mutant["policy"] or mutant["policy"]["text"] not in refused]
    gone = Counter(mutant["of"] for mutant in mutants)
    gone.subtract(mutant["of"] for mutant in kept)
    return {"mutants": kept, "refused": {name: count for name, count in gone.items() if count}}


def _read_by(policy: Mapping[str, Any]) -> frozenset[str] | None:
    return None if policy["reads"] is None else frozenset(policy["reads"])


def changes(policy: Tree) -> Iterator[Change]:
    """Yield every change of one policy: to its effect, annotations, scope and clauses, and within each expression."""
    yield Change(tree=None, words="policy dropped")
    other = "forbid" if policy["effect"] == "permit" else "permit"
    yield Change(tree={**policy, "effect": other}, words=f"{policy['effect']} → {other}")
    for dropped in (OBLIGATION, STEP_UP):
        if dropped in policy.get("annotations", {}):
            gone = (dropped, STEP_UP_RUN) if dropped == STEP_UP else (dropped,)
            kept = {name: value for name, value in policy["annotations"].items() if name not in gone}
            yield Change(tree={**policy, "annotations": kept}, words=f"@{dropped} dropped")
    for name in ("principal", "action", "resource"):
        for scope, without in _wider_scopes(policy[name]):
            words = f"{scope_text(name, policy[name])} {without or '→ ' + scope_text(name, scope)}"
            yield Change(tree={**policy, name: scope}, words=words)
    for index, clause in enumerate(policy["conditions"]):
        rest = [*policy["conditions"][:index], *policy["conditions"][index + 1 :]]
        body, kind = expression_text(clause["body"]), clause["kind"]
        yield Change(tree={**policy, "conditions": rest}, words=f"{kind} {{ {body} }} dropped")
        flipped = "unless" if kind == "when" else "when"
        yield _with_clause(policy, index, {**clause, "kind": flipped}, f"{kind} → {flipped} {{ {body} }}")
        for node, before, after in _expressions(clause["body"]):
            words = f"{expression_text(before)} → {expression_text(after)}"
            yield _with_clause(policy, index, {**clause, "body": node}, words)


def _with_clause(policy: Tree, index: int, clause: Tree, words: str) -> Change:
    clauses = [*policy["conditions"][:index], clause, *policy["conditions"][index + 1 :]]
    return Change(tree={**policy, "conditions": clauses}, words=words)


def _wider_scopes(scope: Tree) -> Iterator[tuple[Tree, str]]:
    """Yield the scope without its constraint, and without each part of it, named if it is in a list."""
    if scope["op"] == "All":
        return
    yield {"op": "All"}, ""
    if scope["op"] == "is" and "in" in scope:
        yield {key: value for key, value in scope.items() if key != "in"}, ""
    entities = scope.get("entities", ())
    for index in range(len(entities)) if len(entities) > 1 else ():
        left = [*entities[:index], *entities[index + 1 :]]
        # The engine reads a list of one as a single entity.
        whole = {"op": "in", "entities": left} if len(left) > 1 else {"op": "in", "entity": left[0]}
        yield whole, f"without {uid_text(entities[index])}"


def _expressions(node: Tree) -> Iterator[tuple[Tree, Tree, Tree]]:
    """Yield an expression with one changed part, that part before, and that part after."""
    for after in _changed(node):
        yield after, node, after
    ((kind, inside),) = node.items()
    for key, child in _children(inside):
        for changed, before, after in _expressions(child):
            yield {kind: _replaced(inside, key, changed)}, before, after


def _children(inside: Tree) -> list[tuple[Any, Tree]]:
    if isinstance(inside, dict):
        return [(name, value) for name, value in inside.items() if isinstance(value, dict) and name != "__entity"]
    return list(enumerate(inside)) if isinstance(inside, list) else []


def _replaced(inside: Tree, key: Any, child: Tree) -> Tree:  # noqa: ANN401 - a name or a number
    changed = dict(inside) if isinstance(inside, dict) else list(inside)
    changed[key] = child
    return changed


def _changed(node: Tree) -> Iterator[Tree]:
    ((kind, inside),) = node.items()
    for other in _SWAPS.get(kind, ()):
        yield {other: inside}
    if kind in _NEGATED:
        yield {"!": {"arg": node}}
    further = _FURTHER.get(kind)
    if further is not None:
        yield from further(inside)


def _sides(inside: Tree) -> Iterator[Tree]:
    yield inside["left"]
    yield inside["right"]


def _argument(inside: Tree) -> Iterator[Tree]:
    yield inside["arg"]


def _branches(inside: Tree) -> Iterator[Tree]:
    yield inside["then"]
    yield inside["else"]


def _values(inside: Tree) -> Iterator[Tree]:
    if isinstance(inside, bool):
        yield {"Value": not inside}
    elif isinstance(inside, int):
        yield from ({"Value": value} for value in (inside - 1, inside + 1) if -_LONG <= value < _LONG)


def _subsets(inside: Tree) -> Iterator[Tree]:
    for index in range(len(inside)) if len(inside) > 1 else ():
        yield {"Set": [*inside[:index], *inside[index + 1 :]]}


_FURTHER: Mapping[str, Callable[[Tree], Iterator[Tree]]] = {
    "&&": _sides,
    "||": _sides,
    "!": _argument,
    "if-then-else": _branches,
    "Value": _values,
    "Set": _subsets,
}


def _mutants(compiled: Mapping[str, Any], contents: Contents, limits: Limits) -> Iterator[dict[str, Any]]:
    (policy,) = json.loads(cedarpy.policies_to_json_str(compiled["text"]))["staticPolicies"].values()
    seen = {_meaning(policy)}
    for change in changes(policy):
        if change.tree is None:
            yield {"of": compiled["id"], "words": change.words, "equivalent": "", "policy": None}
            continue
        text = policy_text(change.tree)
        if _meaning(change.tree) in seen or not _readable(text, change.tree, limits):
            continue
        seen.add(_meaning(change.tree))
        left = change.tree.get("annotations", {})
        mutant = {
            **compiled,
            "effect": change.tree["effect"],
            "obligations": compiled["obligations"] if OBLIGATION in left else [],
            "step_up": compiled["step_up"] if STEP_UP in left and change.tree["effect"] == "forbid" else "",
            "text": text,
            **findings(change.tree),
        }
        yield {
            "of": compiled["id"],
            "words": change.words,
            "equivalent": _why_equivalent(policy, change.tree, contents),
            "policy": mutant,
        }


def _meaning(policy: Tree) -> str:
    return json.dumps(policy, sort_keys=True)


def _readable(text: str, tree: Tree, limits: Limits) -> bool:
    """Return whether a mutant is within the limits: it can be deeper than the original."""
    try:
        scan(text, limits)
    except UnsafePolicyError:
        return False
    (read,) = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].values()
    if read != tree:
        raise AssertionError("the text of a mutant is not its tree")
    return True


def _why_equivalent(old: Tree, new: Tree, contents: Contents) -> str:
    """Return why no call can distinguish the two, or an empty text.

    Only a constraint that certainly always holds is a reason.
    """
    if {**old, "principal": None} == {**new, "principal": None} and old["principal"] == {
        "op": "is",
        "entity_type": "User",
    }:
        return "every principal is a `User`"
    if {**old, "resource": None} != {**new, "resource": None}:
        return ""
    named, known = action_scope(old), {*contents.catalogue.tools, *RISKS, *contents.groups}
    if named is None or not known.issuperset(named):
        return ""  # it can match actions of the PDP itself, whose resource is a session
    tools = [
        tool for tool in contents.catalogue.tools.values() if {tool.action, *tool.action_groups}.intersection(named)
    ]
    if all(_always_within(tool, old["resource"]) for tool in tools):
        return "every call of its actions has such a resource"
    return ""


def _always_within(tool: Tool, scope: Tree) -> bool:
    within = scope.get("in", scope).get("entity") if scope["op"] in ("is", "in") else None
    in_server = within is not None and within["type"] == "Server" and within["id"] == tool.server
    match scope["op"]:
        case "is":
            return bool(scope["entity_type"] == tool.resource_type and ("in" not in scope or in_server))
        case "in":
            return bool(in_server)
    return False


def _refused(texts: Sequence[str], schema: cedarpy.Schema) -> frozenset[str]:
    """Return the texts that strict validation refuses."""
    result = cedarpy.validate_policies("\n".join(texts), schema)
    return frozenset(texts[int(error.policy_id.removeprefix("policy"))] for error in result.errors)
