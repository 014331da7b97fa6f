"""Find where a policy uses a value of the wrong type: the engine names the types but not the position."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pdp.policy.lint.arguments import parameter_at
from pdp.policy.lint.facts import Environment, LintPolicy, Tree, literal_uid, path
from pdp.policy.locate import Anchor
from pdp.policy.rendering import expression_text
from pdp.policy.schema import SESSION_ATTRIBUTES

_ORDERED = ("Long", "datetime", "duration")
_BOOL, _LONG, _STRING, _DECIMAL = "Bool", "Long", "String", "decimal"
_SET = "Set<"
_VALUES: Mapping[type, str] = {bool: _BOOL, int: _LONG, str: _STRING}
_RESULTS: Mapping[str, str] = {
    "decimal": _DECIMAL,
    "datetime": "datetime",
    "duration": "duration",
    "ip": "ipaddr",
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">=", "&&", "||", "!", "in", "is", "has", "like", "isEmpty"), _BOOL),
    **dict.fromkeys(("contains", "containsAll", "containsAny", "lessThan", "lessThanOrEqual"), _BOOL),
    **dict.fromkeys(("greaterThan", "greaterThanOrEqual"), _BOOL),
    **dict.fromkeys(("+", "-", "*", "neg", "toMilliseconds", "toSeconds", "toMinutes", "toHours", "toDays"), _LONG),
    **dict.fromkeys(("toTime", "durationSince"), "duration"),
    **dict.fromkeys(("offset", "toDate"), "datetime"),
}
_CONTEXT: Mapping[tuple[str, ...], str] = {
    ("principal",): "User",
    ("context", "agent"): "Agent",
    ("context", "session"): "Session",
    ("context", "user"): "User",
    ("context", "now"): "datetime",
    ("context", "opaque"): "Set<String>",
    ("context", "targets", "provenance"): "Set<String>",
    ("context", "targets", "links"): "Set<String>",
    ("context", "done"): "Set<String>",
    ("context", "tools"): "Set<String>",
    ("context", "risks"): "Set<String>",
    ("context", "grants"): "Set<Grant>",
    ("context", "duration"): _LONG,
    ("context", "authenticated_ago"): _LONG,
    ("context", "may_delegate"): _BOOL,
    ("context", "caller", "id"): _STRING,
    ("context", "action"): _STRING,
    ("context", "risk"): _STRING,
    ("context", "groups"): "Set<String>",
    ("context", "provenance"): "Set<String>",
    ("context", "questions"): "Set<String>",
    ("context", "calls"): _LONG,
    **{("context", "session", name): kind for name, kind in SESSION_ATTRIBUTES.items()},
}
_METHODS = {"lessThan": "<", "lessThanOrEqual": "<=", "greaterThan": ">", "greaterThanOrEqual": ">="}
_DECIMALS = {operator: method for method, operator in _METHODS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """Two types that do not match: what is wrong, what to do, and where in the text."""

    message: str
    help: str
    at: tuple[Anchor, ...]


def mismatch(policy: LintPolicy) -> Mismatch | None:
    """Return the first place in a policy where the known types do not match."""
    for environment in policy.environments:
        for condition in policy.tree["conditions"]:
            body = condition["body"]
            if (kind := type_of(body, environment)) not in ("", _BOOL):
                return _told(body, [body], [kind], _truth("", [kind]))
            for node in _in_order(body):
                if found := _wrong(node, environment):
                    return found
    return None


def type_of(tree: Tree, environment: Environment) -> str:
    """Return the type of an expression in calls of one action; empty when it is not known."""
    if where := path(tree):
        return _of_path(where, environment)
    if (uid := literal_uid(tree)) is not None:
        return uid[0]
    match tree:
        case {"Value": value}:
            return _VALUES.get(type(value), "")
        case {"Set": [first, *_]}:
            inner = type_of(first, environment)
            return f"{_SET}{inner}>" if inner else ""
    return _RESULTS.get(next(iter(tree), ""), "")


def _of_path(where: tuple[str, ...], environment: Environment) -> str:
    if where[:2] == ("context", "input") and environment.tool is not None:
        parameter = parameter_at(environment.tool, where)
        return parameter.type.cedar() if parameter is not None and parameter.name == where[-1] else ""
    if where == ("resource",):
        return environment.resource_type
    if where[:1] == ("resource",) and environment.resource_type == "Session" and len(where) == 2:  # noqa: PLR2004 - one attribute
        return SESSION_ATTRIBUTES.get(where[1], "")
    if where[:2] == ("context", "counts"):
        return _LONG
    return _CONTEXT.get(where, "")


def _wrong(node: Tree, environment: Environment) -> Mismatch | None:
    ((operator, inner),) = node.items()
    sides, rule = _sides(inner), _RULES.get(operator)
    types = [type_of(one, environment) for one in sides]
    advice = rule(operator, types) if rule and sides else ""
    return _told(node, sides, types, advice) if advice else None


def _equal(_: str, types: Sequence[str]) -> str:
    return "values of different types are never equal; compare values of one type" if _differ(*types) else ""


def _ordered(operator: str, types: Sequence[str]) -> str:
    if _DECIMAL in types:
        return f'compare decimals with a method: `….{_DECIMALS[operator]}(decimal("…"))`'
    if _differ(*types) or any(one and one not in _ORDERED for one in types):
        return 'compare integers, times (`datetime("…")`) or durations (`duration("8h")`), both of one type'
    return ""


def _decimals(operator: str, types: Sequence[str]) -> str:
    wrong = any(_differ(one, _DECIMAL) for one in types)
    return f"compare integers with an operator: `… {_METHODS[operator]} 5`" if wrong else ""


def _text(_: str, types: Sequence[str]) -> str:
    return "`like` is for texts" if _differ(types[0], _STRING) else ""


def _member(operator: str, types: Sequence[str]) -> str:
    whole, one = types[0], types[1] if len(types) > 1 else ""
    if whole and not whole.startswith(_SET):
        return 'only a set has `contains`; to find a part of a text, use `like "*part*"`'
    if operator == "contains" and whole and one and whole != f"{_SET}{one}>":
        return "a set contains values of its own type"
    if operator != "contains" and one and not one.startswith(_SET):
        return f"`{operator}` takes a set, `[…]`; for one value, use `contains`"
    return ""


def _truth(_: str, types: Sequence[str]) -> str:
    wrong = any(_differ(one, _BOOL) for one in types)
    return "a condition must be true or false: compare the value with something" if wrong else ""


def _whole(_: str, types: Sequence[str]) -> str:
    return "arithmetic is for integers" if any(_differ(one, _LONG) for one in types) else ""


# What to do when the types of an operator's operands (empty for unknown) do not match.
_RULES: Mapping[str, Callable[[str, Sequence[str]], str]] = {
    **dict.fromkeys(("==", "!="), _equal),
    **dict.fromkeys(_DECIMALS, _ordered),
    **dict.fromkeys(_METHODS, _decimals),
    "like": _text,
    **dict.fromkeys(("contains", "containsAll", "containsAny", "isEmpty"), _member),
    **dict.fromkeys(("&&", "||", "!", "if-then-else"), _truth),
    **dict.fromkeys(("+", "-", "*", "neg"), _whole),
}


def _sides(inner: Any) -> list[Tree]:  # noqa: ANN401 - any JSON value
    match inner:
        case [*sides]:
            return sides if all(isinstance(one, dict) for one in sides) else []
        case {"left": left, "right": right}:
            return [left, right]
        case {"left": one} | {"arg": one} | {"if": one}:
            return [one]
    return []


def _differ(first: str, second: str) -> bool:
    return bool(first and second and first != second)


def _told(node: Tree, sides: Sequence[Tree], types: Sequence[str], advice: str) -> Mismatch:
    shown = (f"`{expression_text(one)}` is of type {kind}" for one, kind in zip(sides, types, strict=True) if kind)
    paths = (path(one) for one in sides if path(one))
    return Mismatch(message=" and ".join(shown), help=advice, at=(expression_text(node), *paths))


def _in_order(tree: Tree) -> Iterator[dict[str, Any]]:
    """Yield the expressions of a tree in the order of the text, the outer before the inner."""
    pending = [tree]
    while pending:
        one = pending.pop()
        if isinstance(one, dict):
            if len(one) == 1 and next(iter(one)) not in ("Value", "Var", "Record"):
                yield one
            pending += [inner for inner in reversed(one.values()) if isinstance(inner, dict | list)]
        elif isinstance(one, list):
            pending += reversed(one)
