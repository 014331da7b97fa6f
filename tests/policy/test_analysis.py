"""What a policy can match and read."""

from __future__ import annotations

import json
from typing import Any

import cedarpy
import pytest

from pdp.policy.analysis import action_scope, entity_uids, reads, resource_type


def tree(text: str) -> Any:
    """Return a policy's tree in Cedar's JSON."""
    (policy,) = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].values()
    return policy


READS = [
    ("permit(principal, action, resource);", []),
    ("permit(principal, action, resource is Thing);", []),
    ('permit(principal, action, resource in Server::"s");', ["below s"]),
    ('permit(principal, action, resource is Thing in Server::"s");', ["below s"]),
    ('permit(principal, action, resource == Thing::"t");', ["resource"]),
    ('permit(principal, action, resource is Thing in Thing::"t");', ["resource"]),
    ("permit(principal, action, resource) when { resource.owner == principal };", ["resource"]),
    ("permit(principal, action, resource) when { context.input.a == 1 };", ["context.input.a"]),
    ("permit(principal, action, resource) when { context.input has a };", ["context.input.a"]),
    ("permit(principal, action, resource) when { context.input == {a: 1} };", ["context.input"]),
    ("permit(principal, action, resource) when { (if true then context.input else {}) has a };", ["context.input"]),
    ("permit(principal, action, resource) when { context has input };", ["has input"]),
    ("permit(principal, action, resource) when { context has input.a };", ["context.input.a", "has input"]),
    ('permit(principal, action, resource) when { context["now"] > datetime("2026-01-01") };', ["context.now"]),
    ("permit(principal, action, resource) when { context == {a: 1} };", None),
    ("permit(principal, action, resource) when { {a: context}.a.input.b == 1 };", None),
    ("permit(principal, action, resource) when { (if true then context else context).input.b == 1 };", None),
    ("permit(principal, action, resource) when { [context].contains(context) };", None),
    (
        'permit(principal, action, resource) when { context.agent == principal } unless { context.caller.id == "x" };',
        ["context.agent", "context.caller"],
    ),
]


@pytest.mark.parametrize(("text", "expected"), READS)
def test_reads(text: str, expected: list[str] | None) -> None:
    """A context that could be read as a whole counts as everything; attributes count by name."""
    assert expected == reads(tree(text))


def test_attribute_named_like_an_operator_hides_nothing() -> None:
    """A record whose keys look like nodes of the tree is not taken for one."""
    text = 'permit(principal, action, resource) when { {".": context, "left": 1}.left == 1 };'

    assert reads(tree(text)) is None


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("resource", None),
        ('resource in Server::"s"', None),
        ("resource is Thing", "Thing"),
        ('resource is A::Thing in Server::"s"', "A::Thing"),
        ('resource == A::Thing::"t"', "A::Thing"),
    ],
)
def test_resource_type(scope: str, expected: str | None) -> None:
    """The scope names the one type of resource that it can match, or leaves it open."""
    assert expected == resource_type(tree(f"permit(principal, action, {scope});"))


def test_action_scope() -> None:
    """The scope names actions and groups, or any."""
    assert action_scope(tree("permit(principal, action, resource);")) is None
    assert ["a"] == action_scope(tree('permit(principal, action == Action::"a", resource);'))
    assert ["a"] == action_scope(tree('permit(principal, action in Action::"a", resource);'))
    assert ["a", "b"] == action_scope(tree('permit(principal, action in [Action::"b", Action::"a"], resource);'))
    assert [] == action_scope(tree("permit(principal, action in [], resource);"))


def test_entities_that_a_policy_names() -> None:
    """Uids are found in the scope and anywhere in the conditions."""
    text = """
    permit (principal in UserGroup::"g", action == Action::"a", resource is Thing in Server::"s")
    when { [Grant::"x"].contains(Grant::"y") || principal == User::"u\\"v" };
    """

    assert [["Grant", "x"], ["Grant", "y"], ["Server", "s"], ["User", 'u"v'], ["UserGroup", "g"]] == entity_uids(
        tree(text)
    )
