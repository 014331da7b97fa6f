"""Policies that others wrote, taken apart: the pieces are those of the engine's own tree."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cedarpy

from pdp.errors import UnsafePolicyError
from pdp.limits import DEFAULT_LIMITS
from pdp.policy.conditions import parts_of
from pdp.policy.policysource import PolicySource
from pdp.policy.safety import PolicyText, scan
from tests.machinery.foreign import FOLDERS


def test_pieces_are_those_of_the_tree(test_data: Path) -> None:
    """Scope and conditions, each parsed alone, are what the engine's tree of the whole policy holds, in its order."""
    compared = 0
    for part in foreign_policies(test_data):
        (whole,) = trees(part.text)
        parts = parts_of(source(part))
        for condition in parts.scope:
            (alone,) = trees(condition.probe)
            assert whole[condition.kind] == alone[condition.kind], part.text
        assert [*pieces(whole)] == [(one.kind, body(one.probe)) for one in parts.conditions], part.text
        (probe,) = trees(parts.probe)
        assert {**whole, "effect": "permit", "annotations": {}} == {**probe, "annotations": {}}, part.text
        compared += 1

    assert compared > 100


def foreign_policies(test_data: Path) -> Iterator[PolicyText]:
    """Yield every policy, templates apart, that the limits and the engine take."""
    for folder in FOLDERS:
        for path in sorted((test_data / folder).rglob("*.cedar")):
            try:
                parts = scan(path.read_text(encoding="utf-8"), DEFAULT_LIMITS)
            except UnsafePolicyError:
                continue
            yield from (part for part in parts if len(trees(part.text)) == 1)


def trees(text: str) -> list[dict[str, Any]]:
    """Return the engine's trees of the policies in a text; none for templates and what it does not take."""
    try:
        found: dict[str, Any] = json.loads(cedarpy.policies_to_json_str(text))
    except ValueError:
        return []
    return list(found["staticPolicies"].values())


def pieces(policy: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the conditions of a tree: what `&&` joins in a `when`, and `||` in an `unless`."""
    for condition in policy["conditions"]:
        operator = {"when": "&&", "unless": "||"}[condition["kind"]]
        yield from ((condition["kind"], one) for one in joined(condition["body"], operator))


def joined(tree: dict[str, Any], operator: str) -> list[Any]:
    """Return what an operator joins, from left to right."""
    inner = tree.get(operator)
    return [*joined(inner["left"], operator), *joined(inner["right"], operator)] if inner else [tree]


def body(probe: str) -> Any:
    """Return the tree of the one condition of a policy."""
    (policy,) = trees(probe)
    (condition,) = policy["conditions"]
    return condition["body"]


def source(part: PolicyText) -> PolicySource:
    """Return a policy by its text alone."""
    return PolicySource(
        id="p", effect="permit", file="p", line=1, text=part.text, actions=None, reads=None, entities=frozenset()
    )
