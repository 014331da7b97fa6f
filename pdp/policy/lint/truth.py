"""The value that an expression must have in every call, for lints about what is impossible.

INVARIANT: every answer but "unknown" holds for all requests that the product can build;
`tests/proofs/test_soundness.py` checks it against the engine. In doubt the answer is "unknown".
"""

from __future__ import annotations

import fnmatch
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from pdp.policy.directory import Uid
from pdp.policy.lint.facts import Environment, LintBundle, Tree, key, literal_uid, negation, nodes, path
from pdp.policy.moments import constant_milliseconds
from pdp.policy.tools.parameters import OpaqueType, RecordType

# A literal as a value that compares as in Cedar: `True` and `1` differ, and so do an entity and a string.
Literal = tuple[str, Any]

_FALSE: Literal = ("bool", False)
# Operators that never fail on the types that the validator requires.
_SAFE = frozenset(
    {"Value", "Var", "==", "!=", "in", "<", "<=", ">", ">=", "&&", "||", "!", "has", "like", "is", "if-then-else"}
    | {"contains", "containsAll", "containsAny", "isEmpty", "Set", "Record"}
    | {"lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual", "toTime"}
)
# Constructors, whose literal argument the validator reads.
_CONSTRUCTORS = frozenset({"datetime", "decimal", "duration", "ip"})
# The entities that are always present, so that reading an attribute of one cannot fail.
_PRESENT = (("principal",), ("resource",), ("context", "agent"), ("context", "session"), ("context", "user"))
_RECORDS = (("context", "input"), ("context", "caller"))
_ENTITY_TYPES: Mapping[tuple[str, ...], str] = {
    ("principal",): "User",
    ("action",): "Action",
    ("context", "agent"): "Agent",
    ("context", "session"): "Session",
    ("context", "user"): "User",
}
_LONG = 2**63


def cannot_fail(trees: Iterable[Tree]) -> bool:
    """Return whether valid expressions evaluate without an error in every request."""
    pending = list(trees)
    while pending:
        tree = pending.pop()
        if not isinstance(tree, dict) or len(tree) != 1:
            return False
        ((name, inner),) = tree.items()
        if name == "." and not _safe_read(tree):
            return False
        if name in _CONSTRUCTORS and not all(isinstance(one, dict) and set(one) == {"Value"} for one in inner):
            return False
        if name not in _SAFE and name != "." and name not in _CONSTRUCTORS:
            return False
        pending += _operands(name, inner)
    return True


def value_where(tree: Tree, term: Tree, value: Literal, environment: Environment, bundle: LintBundle) -> bool | None:
    """Return the value of an expression when a term has a given value; None when not known."""
    asked = {"has": {"left": term["."]["left"], "attr": term["."]["attr"]}}
    known = _Known(environment=environment, bundle=bundle, bound={key(term): value, key(asked): ("bool", True)})
    found = known.value(tree)
    return found[1] if found and found[0] == "bool" else None


def refuted(conjuncts: Sequence[Tree], environment: Environment, bundle: LintBundle) -> bool:
    """Return whether the conjuncts cannot all be true in calls of one action.

    This is only valid for conjuncts that cannot fail; one that fails is not false.
    """
    known = _Known(environment=environment, bundle=bundle)
    keys = set(map(key, conjuncts))
    if any(key(negation(one)) in keys for one in conjuncts):
        return True
    domains: dict[str, frozenset[Literal]] = {}
    bounds: dict[str, tuple[int, int]] = {}
    for one in conjuncts:
        if (domain := _domain(one)) is not None:
            term, values = domain
            domains[term] = domains.get(term, values) & values
        if (bound := _bound(one)) is not None:
            term, low, high = bound
            before = bounds.get(term, (-_LONG, _LONG - 1))
            bounds[term] = max(low, before[0]), min(high, before[1])
    if any(low > high for low, high in bounds.values()):
        return True
    for term, values in domains.items():
        left = [value for value in values if _within(value, bounds.get(term))]
        if not left:
            return True
        if len(left) == 1:
            known.bound[term] = left[0]
    return any(known.value(one) == _FALSE for one in conjuncts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What is known about a request: its environment, and terms that must have one value."""

    environment: Environment
    bundle: LintBundle
    bound: dict[str, Literal] = field(default_factory=dict)

    def value(self, tree: Tree) -> Literal | None:
        """Return the value of an expression that cannot fail; None when it is not known."""
        if not isinstance(tree, dict) or len(tree) != 1:
            return None
        ((name, inner),) = tree.items()
        rule = _RULES.get(name)
        found = rule(self, inner) if rule else None
        return self.bound.get(key(tree)) if found is None and self.bound else found

    def variable(self, name: str) -> Literal | None:
        if name == "action":
            return "entity", ("Action", self.environment.action)
        return ("entity", self.environment.server) if name == "resource" and self.environment.server else None

    def of_type(self, inner: Mapping[str, Any]) -> bool | None:
        found = self._entity_type(inner["left"])
        same = None if found is None else found == inner["entity_type"]
        return None if "in" in inner and same else same

    def joined(self, left: Tree, right: Tree, *, decisive: bool) -> Literal | None:
        first, second = self.value(left), self.value(right)
        decided = ("bool", decisive)
        if decided in (first, second):
            return decided
        return first if first == second else None

    def chosen(self, inner: Mapping[str, Tree]) -> Literal | None:
        condition, first, second = (self.value(inner[part]) for part in ("if", "then", "else"))
        if condition is None:
            return first if first == second else None
        return first if condition[1] else second

    def compared(self, inner: Mapping[str, Tree], holds: Callable[[int, int], bool]) -> Literal | None:
        return _held(self.value(inner["left"]), self.value(inner["right"]), "long", holds)

    def compared_decimals(self, inner: Sequence[Tree], holds: Callable[[Any, Any], bool]) -> Literal | None:
        return _held(self.value(inner[0]), self.value(inner[1]), "decimal", holds)

    def _entity_type(self, tree: Tree) -> str | None:
        if (uid := literal_uid(tree)) is not None:
            return uid[0]
        where = path(tree)
        return self.environment.resource_type if where == ("resource",) else _ENTITY_TYPES.get(where)

    def equal(self, left: Tree, right: Tree) -> bool | None:
        first, second = self.value(left), self.value(right)
        if first is not None and second is not None:
            return first == second if first[0] == second[0] else None
        types = self._entity_type(left), self._entity_type(right)
        if None not in types and types[0] != types[1]:
            return False
        return True if key(left) == key(right) else None

    def below(self, left: Tree, right: Tree) -> bool | None:
        elements = right["Set"] if isinstance(right, dict) and set(right) == {"Set"} else [right]
        answers = [self._below_one(left, one) for one in elements]
        if True in answers:
            return True
        return None if None in answers else False

    def _below_one(self, left: Tree, right: Tree) -> bool | None:
        above = literal_uid(right)
        if above is None:
            return None
        if path(left) == ("action",):
            return above[0] == "Action" and above[1] in self.environment.groups
        if path(left) == ("resource",):
            return self._resource_below(above)
        found = self.value(left)
        return self._known_below(found[1], above) if found and found[0] == "entity" else None

    def _resource_below(self, above: Uid) -> bool | None:
        tool = self.environment.tool
        if tool is None or above[0] != "Server" or above[1] not in self.bundle.known["Server"]:
            return None
        if above[1] == tool.server:
            return True
        if tool.mapping is None:
            return False
        elsewhere = self.bundle.mapped_servers.get(tool.resource_type, frozenset())
        return None if above[1] in elsewhere else False

    def _known_below(self, uid: Uid, above: Uid) -> bool | None:
        if uid == above:
            return True
        for one in (uid, above):
            # An unknown name may be added later; another lint reports it.
            if one[1] not in self.bundle.known.get(one[0], ()):
                return None
        return above in self.bundle.ancestors(uid)

    def contains(self, inner: Mapping[str, Tree]) -> bool | None:
        if set(inner["left"]) != {"Set"}:
            return None
        found, values = self.value(inner["right"]), [self.value(one) for one in inner["left"]["Set"]]
        if found is None:
            return None
        if found in values:
            return True
        return None if None in values else False

    def has(self, base: Tree, name: str) -> bool | None:
        where = path(base)
        if self.environment.tool is None or where[:2] != ("context", "input"):
            return None
        record = self.environment.tool.input
        for step in where[2:]:
            parameter = record.parameter(step)
            if parameter is None or not isinstance(parameter.type, RecordType):
                return None
            record = parameter.type
        parameter = record.parameter(name)
        if parameter is None or isinstance(parameter.type, OpaqueType):
            return False
        return True if parameter.required and not parameter.nullable else None


# The known value of each kind of node, from the known values of its operands.
_RULES: Mapping[str, Callable[[_Known, Any], Literal | None]] = {
    "Value": lambda _, found: literal(found),
    "Var": lambda known, name: known.variable(name),
    "!": lambda known, inner: _negated(known.value(inner["arg"])),
    "&&": lambda known, inner: known.joined(inner["left"], inner["right"], decisive=False),
    "||": lambda known, inner: known.joined(inner["left"], inner["right"], decisive=True),
    "if-then-else": lambda known, inner: known.chosen(inner),
    "has": lambda known, inner: _boolean(known.has(inner["left"], inner["attr"])),
    "is": lambda known, inner: _boolean(known.of_type(inner)),
    "==": lambda known, inner: _boolean(known.equal(inner["left"], inner["right"])),
    "!=": lambda known, inner: _negated(_boolean(known.equal(inner["left"], inner["right"]))),
    "in": lambda known, inner: _boolean(known.below(inner["left"], inner["right"])),
    "like": lambda known, inner: _boolean(_like(known.value(inner["left"]), inner["pattern"])),
    "contains": lambda known, inner: _boolean(known.contains(inner)),
    "<": lambda known, inner: known.compared(inner, operator.lt),
    "<=": lambda known, inner: known.compared(inner, operator.le),
    ">": lambda known, inner: known.compared(inner, operator.gt),
    ">=": lambda known, inner: known.compared(inner, operator.ge),
    "decimal": lambda _, inner: _decimal(inner),
    "lessThan": lambda known, inner: known.compared_decimals(inner, operator.lt),
    "lessThanOrEqual": lambda known, inner: known.compared_decimals(inner, operator.le),
    "greaterThan": lambda known, inner: known.compared_decimals(inner, operator.gt),
    "greaterThanOrEqual": lambda known, inner: known.compared_decimals(inner, operator.ge),
}
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}


def literal(found: object) -> Literal | None:
    """Return a literal as a value that compares as in Cedar; None when it is not a literal."""
    match found:
        case bool():
            return "bool", found
        case int():
            return "long", found
        case str():
            return "string", found
        case {"__entity": {"type": str(kind), "id": str(name)}}:
            return "entity", (kind, name)
    return None


def _safe_read(tree: Tree) -> bool:
    where = path(tree)
    if where[:1] == ("context",) and len(where) == 2:  # noqa: PLR2004 - an attribute of the context itself
        return True
    return where[:-1] in _PRESENT or where[:2] in _RECORDS


def _operands(name: str, inner: Any) -> list[Tree]:  # noqa: ANN401 - any JSON value
    match inner:
        case _ if name in ("Value", "Var") or name in _CONSTRUCTORS:
            return []
        case list():
            return inner
        case dict() if name == "Record":
            return list(inner.values())
        case dict():
            return [one for part, one in inner.items() if part not in ("attr", "pattern", "entity_type")]
    return [None]


def _domain(tree: Tree) -> tuple[str, frozenset[Literal]] | None:
    """Return a term and the values that it can have when the expression is true."""
    match tree:
        case {"==": {"left": term, "right": {"Value": found}}} | {"==": {"left": {"Value": found}, "right": term}}:
            values = [literal(found)]
        case {"contains": {"left": {"Set": [*elements]}, "right": term}}:
            values = [literal(one.get("Value")) for one in elements]
        case _:
            return None
    kept = frozenset(one for one in values if one is not None)
    return (key(term), kept) if len(kept) == len(set(values)) and kept else None


def _bound(tree: Tree) -> tuple[str, int, int] | None:
    """Return a term and the least and greatest integer that it can be when the expression is true.

    Times and durations are in milliseconds; the validator never accepts a term with two types.
    """
    ((name, inner),) = tree.items()
    if name == "!" and (inside := next(iter(inner["arg"]), "")) in _OPPOSITE:
        name, inner = _OPPOSITE[inside], inner["arg"][inside]
    if name not in _FLIPPED:
        return None
    term, number = inner["left"], _whole(inner["right"])
    if number is None:
        term, number, name = inner["right"], _whole(inner["left"]), _FLIPPED[name]
    if number is None:
        return None
    if name in ("<", "<="):
        return key(term), -_LONG, number - (name == "<")
    return key(term), number + (name == ">"), _LONG - 1


def _whole(tree: Tree) -> int | None:
    found = literal(tree.get("Value"))
    return found[1] if found and found[0] == "long" else constant_milliseconds(tree)


def _within(value: Literal, bound: tuple[int, int] | None) -> bool:
    return bound is None or value[0] != "long" or bound[0] <= value[1] <= bound[1]


def _like(found: Literal | None, pattern: Sequence[Any]) -> bool | None:
    if found is None or found[0] != "string":
        return None
    text = "".join(
        "*" if part == "Wildcard" else "".join(f"[{c}]" if c in "*?[" else c for c in part["Literal"])
        for part in pattern
    )
    return fnmatch.fnmatchcase(found[1], text)


def _held(left: Literal | None, right: Literal | None, kind: str, holds: Callable[[Any, Any], bool]) -> Literal | None:
    return ("bool", holds(left[1], right[1])) if left and right and left[0] == right[0] == kind else None


def _decimal(inner: Sequence[Tree]) -> Literal | None:
    text = inner[0].get("Value")
    return ("decimal", Decimal(text)) if isinstance(text, str) else None


def _boolean(found: bool | None) -> Literal | None:  # noqa: FBT001 - a value, not an option
    return None if found is None else ("bool", found)


def _negated(found: Literal | None) -> Literal | None:
    return ("bool", not found[1]) if found and found[0] == "bool" else None


def depends_on_call(conjuncts: Iterable[Tree]) -> bool:
    """Return whether the known values of the conjuncts may differ between actions."""
    return any(node.get("Var") in ("action", "resource") or "has" in node or "is" in node for node in nodes(conjuncts))
