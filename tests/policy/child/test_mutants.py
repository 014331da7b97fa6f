"""Mutants: what is changed in a policy, and which change is certain to change nothing."""

from __future__ import annotations

import json
from typing import Any

import cedarpy
import pytest

from pdp.foundation.threads import on_large_stack
from pdp.limits import DEFAULT_LIMITS, Limits
from pdp.policy.child.mutants import changes, mutate_bundle
from pdp.policy.loading import compile_job
from pdp.testing.bundles import bundle_files, tool

PATH = {"path": {"type": "string"}, "size": {"type": "integer"}}
DIRECTORY = "users: {ada: {}}\nagents: {coder: {ceiling: ['files/*']}}\n"
OVERLAY = 'tools: {read: {risk: read_only}, own: {risk: mutating, resource: {type: Thing, id: "{path}"}}}'


def words(text: str) -> list[str]:
    """Return what is changed in a policy."""
    (policy,) = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].values()
    return [change.words for change in changes(policy)]


def mutated(policy: str, **limits: int) -> dict[str, Any]:
    """Return the mutants of a bundle with this policy, as a child process makes them."""
    files = bundle_files(
        policies={"files": policy},
        tools={"files": [tool("read", PATH, ["path", "size"]), tool("own", PATH, ["path"])], "mail": [tool("send")]},
        directory=DIRECTORY,
        overlays={"files": OVERLAY},
    )
    job = compile_job(files, Limits(**limits) if limits else DEFAULT_LIMITS)
    return on_large_stack(lambda: mutate_bundle(job))


SCOPES = [
    ("permit (principal, action, resource)", []),
    ('permit (principal == User::"a", action, resource)', ['principal == User::"a" → principal']),
    (
        'permit (principal, action in [Action::"a", Action::"b"], resource)',
        [
            'action in [Action::"a", Action::"b"] → action',
            'action in [Action::"a", Action::"b"] without Action::"a"',
            'action in [Action::"a", Action::"b"] without Action::"b"',
        ],
    ),
    (
        'permit (principal, action, resource is T in S::"s")',
        ['resource is T in S::"s" → resource', 'resource is T in S::"s" → resource is T'],
    ),
]


@pytest.mark.parametrize(("text", "expected"), SCOPES)
def test_scopes_widen(text: str, expected: list[str]) -> None:
    """Every policy can be dropped or turned around; a scope loses its constraint, or one part of it."""
    assert ["policy dropped", "permit → forbid", *expected] == words(text + ";")


CONDITIONS = [
    ("context.a < 5", ["<=", ">=", "4", "6"]),
    ("context.a >= 5", [">", "<", "4", "6"]),
    ("context.a == context.b", ["!="]),
    ("context.a && context.b", ["||", "context.a", "context.b"]),
    ("!context.a", ["context.a"]),
    ("true", ["false"]),
    ('context.a in Group::"g"', ["!(context.a in"]),
    ("context has a", ["!(context has a)"]),
    ("context.s.containsAll([1, 2])", ["containsAny", "!context.s.containsAll", "[2]", "[1]", "0", "2", "1", "3"]),
    ('context.a.lessThan(decimal("1.0"))', ["lessThanOrEqual", "greaterThanOrEqual"]),
    ("if context.a then context.b else context.c", ["context.b", "context.c"]),
]  # fmt: skip


@pytest.mark.parametrize(("condition", "expected"), CONDITIONS)
def test_conditions_change_in_one_place(condition: str, expected: list[str]) -> None:
    """A clause can be dropped and turned around, and within it every operator and value changes in turn."""
    found = words(f"permit (principal, action, resource) when {{ {condition} }};")[2:]

    assert f"when {{ {condition} }} dropped" == found[0]
    assert f"when → unless {{ {condition} }}" == found[1]
    after = [change.partition(" → ")[2] for change in found[2:]]
    assert len(expected) == len(after)
    assert all(part in change for part, change in zip(expected, after, strict=True)), after


def test_mutants_pass_the_check() -> None:
    """What strict validation refuses is counted and no mutant: the check finds it before any test."""
    made = mutated(
        '@id("files/x") permit (principal, action == Action::"files/own", resource) '
        "when { context.input has size && context.input.size > 5 };"
    )

    changed = [one["words"] for one in made["mutants"] if one["of"] == "files/x"]
    assert "context.input.size > 5 → context.input.size >= 5" in changed
    # Without the guard, or with an `or` in its place, the attribute could be missing.
    assert not any("||" in one or one.endswith("→ context.input.size > 5") for one in changed)
    assert sum(made["refused"].values()) > 0


EQUIVALENT = [
    ('principal is User, action == Action::"files/read", resource', {"principal is User → principal"}),
    ('principal, action == Action::"files/read", resource is Server', {"resource is Server → resource"}),
    ('principal, action in Action::"read_only", resource in Server::"files"', {
        'resource in Server::"files" → resource'
    }),
    ('principal, action == Action::"files/own", resource is Thing in Server::"files"', {
        'resource is Thing in Server::"files" → resource', 'resource is Thing in Server::"files" → resource is Thing'
    }),
    # `mail/send` is destructive for want of an overlay.
    ('principal, action in Action::"destructive", resource in Server::"files"', set()),
    ('principal, action in [Action::"files/read", Action::"files/own"], resource is Thing', set()),
    ("principal, action, resource is Server", set()),
    ('principal == User::"ada", action == Action::"files/read", resource', set()),
    ('principal, action == Action::"files/read", resource == Server::"files"', set()),
]  # fmt: skip


@pytest.mark.parametrize(("scope", "expected"), EQUIVALENT)
def test_equivalent_where_it_is_certain(scope: str, expected: set[str]) -> None:
    """A constraint that every possible call meets can be dropped without anybody noticing, and nothing else."""
    made = mutated(f'@id("files/x") permit ({scope});')

    found = {one["words"] for one in made["mutants"] if one["of"] == "files/x" and one["equivalent"]}
    assert expected == found


def test_mutants_are_described_anew() -> None:
    """What slices go by is what was found about the mutant, and not about the policy that it was made of."""
    made = mutated('@id("files/x") permit (principal, action == Action::"files/own", resource is Thing);')

    described = {one["words"]: one["policy"] for one in made["mutants"] if one["of"] == "files/x" and one["policy"]}
    assert described["resource is Thing → resource"]["resource_type"] is None
    assert described['action == Action::"files/own" → action']["actions"] is None
    assert "Thing" == described["permit → forbid"]["resource_type"]


def test_mutants_keep_to_the_limits() -> None:
    """A negation needs brackets that its policy had none of; beyond the limit of depth nothing is parsed."""
    condition = "[{a: context has input}].isEmpty()"
    policy = f'@id("files/x") permit (principal, action == Action::"files/read", resource) when {{ {condition} }};'
    shallow = next(depth for depth in range(1, 32) if "mutants" in mutated(policy, policy_depth=depth))

    for depth, expected in ((shallow, False), (shallow + 1, True)):
        made = {one["words"] for one in mutated(policy, policy_depth=depth)["mutants"]}
        assert expected == ("context has input → !(context has input)" in made), depth


def test_problems_of_the_bundle_come_first() -> None:
    """A bundle that does not load has no mutants but its problems."""
    assert "files.cedar" == mutated("permit (")["problems"][0]["file"]


def test_an_obligation_can_be_dropped() -> None:
    """A test that does not expect it would not notice."""
    obliged = '@id("files/x") @obligation("notice: {text: x}")'
    scope = '(principal, action == Action::"files/read", resource == Server::"files")'
    found = mutated(f'{obliged} permit {scope} when {{ context.agent == Agent::"coder" }};')["mutants"]

    (dropped,) = [one["policy"] for one in found if one["words"] == "@obligation dropped"]
    assert ([], "permit") == (list(dropped["obligations"]), dropped["effect"])
    assert "@obligation" not in dropped["text"]
    others = [one["policy"] for one in found if one["of"] == "files/x" and one["policy"] not in (None, dropped)]
    assert others
    assert all([("notice", '{"text":"x"}')] == [tuple(each) for each in one["obligations"]] for one in others)


def test_what_a_person_is_asked_can_be_dropped() -> None:
    """Then nobody can lift the forbid; a permit of it asks nobody either."""
    asking = '@id("files/x") @step_up("May it?") @step_up_run("3")'
    scope = '(principal, action == Action::"files/read", resource)'
    found = mutated(f'{asking} forbid {scope} when {{ context.agent == Agent::"coder" }};')["mutants"]

    (dropped,) = [one["policy"] for one in found if one["words"] == "@step_up dropped"]
    assert ("", "forbid") == (dropped["step_up"], dropped["effect"])
    assert "@step_up" not in dropped["text"]
    others = [one["policy"] for one in found if one["of"] == "files/x" and one["policy"] not in (None, dropped)]
    assert {"forbid": {"May it?"}, "permit": {""}} == {
        effect: {one["step_up"] for one in others if one["effect"] == effect} for effect in ("forbid", "permit")
    }
