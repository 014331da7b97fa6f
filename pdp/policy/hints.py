"""Values to try for the attributes that a policy compares: some may make a condition true, some may make it false.

They are guesses in the search for a call that two versions of a policy decide differently. A missing value hides
nothing: a difference that no call shows is reported as undecided.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import cedarpy

Tree = Any

# The texts that replace a wildcard of a pattern, and a text that differs from a constant.
_FILLINGS = ("", "a", "../a")
_OTHER = "other"
_ORDERS = frozenset({"<", "<=", ">", ">=", "==", "!="})
_DECIMAL_ORDERS = frozenset({"lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual"})
_SETS = frozenset({"contains", "containsAll", "containsAny"})
_SMALLEST = Decimal("0.0001")


def meaning(text: str) -> str:
    """Return a policy in a canonical form, without layout, comments and annotations."""
    return json.dumps({**_tree(text), "annotations": {}}, sort_keys=True)


def hints(texts: Iterable[str]) -> Mapping[str, tuple[Any, ...]]:
    """Return the values to try for each attribute that some policies compare.

    The values are JSON, without repetition. Attributes are written `context.input.path`. Sets are lists, decimals are
    texts, times are unix seconds.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        for node in _nodes([condition["body"] for condition in _tree(text)["conditions"]]):
            for name, value in _compared(node):
                found.setdefault(name, {}).setdefault(json.dumps(value), value)
    return {name: tuple(values.values()) for name, values in sorted(found.items())}


def _tree(text: str) -> Tree:
    (policy,) = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].values()
    return policy


def _nodes(root: Tree) -> Iterator[dict[str, Any]]:
    pending = [root]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield value
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def _compared(node: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    if len(node) != 1:
        return
    ((kind, inside),) = node.items()
    if kind == "like":
        yield from ((name, text) for name in _path(inside["left"]) for text in _matching(inside["pattern"]))
    elif kind in _ORDERS | _SETS | _DECIMAL_ORDERS:
        left, right = inside.values() if isinstance(inside, dict) else inside
        for one, other in ((left, right), (right, left)):
            for name in _path(one):
                yield from (
                    (name, value) for value in _around(_constant(other), in_set=kind in _SETS, first=one is left)
                )
    elif kind in (".", "!"):
        # An attribute that may be a condition by itself.
        yield from ((name, value) for name in _path(node if kind == "." else inside["arg"]) for value in (True, False))


def _path(node: Tree) -> Iterator[str]:
    """Yield the name of an attribute, if a node is one: `context.input.path`."""
    steps: list[str] = []
    while isinstance(node, dict) and set(node) == {"."}:
        steps.append(node["."]["attr"])
        node = node["."]["left"]
    if steps and isinstance(node, dict) and "Var" in node:
        yield ".".join((node["Var"], *reversed(steps)))


def _constant(node: Tree) -> Any:  # noqa: ANN401 - any JSON value, None when it is no constant
    if not isinstance(node, dict):
        return None
    if "Value" in node and not isinstance(node["Value"], dict):
        return node["Value"]
    if "Set" in node:
        return [value for one in node["Set"] if (value := _constant(one)) is not None]
    if "decimal" in node:
        return _decimal(_constant(node["decimal"][0]))
    if "datetime" in node:
        return _moment(_constant(node["datetime"][0]))
    return None


def _around(value: Any, *, in_set: bool, first: bool) -> Iterator[Any]:  # noqa: ANN401 - any JSON value
    """Yield a constant and its neighbours. `in_set`: one side is a set; `first`: the attribute is on the left."""
    if value is None:
        return
    if isinstance(value, bool):
        yield from (value, not value)
    elif in_set and first:
        # The attribute is a set: no value, all values, one more, each alone, and all but one.
        every = value if isinstance(value, list) else [value]
        yield from ([], every, [*every, _OTHER])
        yield from ([one] for one in every)
        yield from (every[:place] + every[place + 1 :] for place in range(len(every)))
    elif isinstance(value, list):
        yield from (*value, _OTHER)
    elif isinstance(value, Decimal):
        yield from (str(value - _SMALLEST), str(value), str(value + _SMALLEST))
    elif isinstance(value, int | float):
        yield from (value - 1, value, value + 1)
    else:
        yield from (value, _OTHER)


def _matching(pattern: list[Any]) -> Iterator[str]:
    for filling in _FILLINGS:
        yield "".join(filling if part == "Wildcard" else part["Literal"] for part in pattern)
    yield _OTHER


def _decimal(text: object) -> Decimal | None:
    try:
        return Decimal(str(text))
    except InvalidOperation:
        return None


def _moment(text: object) -> float | None:
    try:
        return datetime.fromisoformat(str(text)).timestamp() if text is not None else None
    except ValueError:
        return None
