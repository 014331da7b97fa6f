"""Policies taken apart: where each condition stands, and that its value is what the engine makes of it."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

import cedarpy
import pytest

from pdp.clock import Deadline
from pdp.limits import DEFAULT_LIMITS
from pdp.model import Session, SessionState
from pdp.policy.bundle import Bundle
from pdp.policy.conditions import PolicyResult, Probes, Value, parts_of
from pdp.policy.loading import load_bundle
from pdp.policy.policysource import PolicySource
from pdp.policy.question import Facts, datetime_value
from pdp.testing.bundles import bundle_files, compile_here, tool

World = tuple[cedarpy.Schema, cedarpy.Entities]

TOOL = tool(
    "read",
    {"path": {"type": "string"}, "n": {"type": "integer"}, "o": {"type": "integer"}, "s": {"type": "string"}},
    ["path", "n", "s"],
)
DIRECTORY = """
user_groups: {staff: {}, guests: {}}
users: {ada: {groups: [staff], attributes: {level: 3}}, bob: {groups: [guests]}}
agents: {worker: {ceiling: ["files/*"]}}
"""


def source(text: str, **changes: Any) -> PolicySource:
    """Return a policy by its text alone."""
    fields = {"id": "p", "effect": "permit", "file": "p.cedar", "line": 1, "reads": None, "actions": None}
    return PolicySource(**{**fields, "text": text, "entities": frozenset(), **changes})


# (a policy's clauses, the conditions that they hold)
CLAUSES = [
    ("", []),
    ("when { a && b && c }", ["a", "b", "c"]),
    ("when { a || b && c }", ["a || b && c"]),
    ("when { (a && b) && ((c)) }", ["a", "b", "((c))"]),
    ("when { (a || b) && c }", ["(a || b)", "c"]),
    ("when { if a then b else c && d }", ["if a then b else c && d"]),
    ('when { context["a && b"] && context.s == "x && y" }', ['context["a && b"]', 'context.s == "x && y"']),
    ("when { [a && b].contains(c && d) && e }", ["[a && b].contains(c && d)", "e"]),
    ("unless { a || b && c || (d || e) }", ["unless a", "unless b && c", "unless d", "unless e"]),
    ("unless { a && b }", ["unless a && b"]),
    ("when { a } unless { b } when { c && d }", ["a", "unless b", "c", "d"]),
    ("when { a // && no\n &&   b }", ["a", "b"]),
    (
        "when { {when: true, unless: a}.when && context has unless }",
        ["{when: true, unless: a}.when", "context has unless"],
    ),
]


@pytest.mark.parametrize(("clauses", "expected"), CLAUSES)
def test_conditions_are_cut_where_all_must_hold(clauses: str, expected: list[str]) -> None:
    """A clause is cut at the operators that make a row of conditions, outside of brackets, and nowhere else."""
    parts = parts_of(source(f"permit (principal, action, resource) {clauses};"))

    assert expected == [str(one) for one in parts.conditions]


def test_scope_holds_what_is_constrained() -> None:
    """What every principal, action or resource satisfies is no condition; lists stay in one piece."""
    text = '@a("permit(") @b permit (principal in G::"x,y", action in [Action::"a", Action::"b"], resource);'

    parts = parts_of(source(text))

    assert [("principal", 'principal in G::"x,y"'), ("action", 'action in [Action::"a", Action::"b"]')] == [
        (one.kind, one.text) for one in parts.scope
    ]


def test_places_are_those_in_the_file() -> None:
    """Lines and columns count in the file, also when a policy begins in the middle of a line."""
    text = 'permit (principal == User::"é", action, resource)\nwhen { a &&\n  b == "x\ny" };'

    parts = parts_of(source(text, line=7, column=5))

    assert [(7, 13, 7, 34), (8, 8, 8, 8), (9, 3, 10, 2)] == [
        (one.line, one.column, one.end_line, one.end_column) for one in (*parts.scope, *parts.conditions)
    ]


def test_very_long_texts_are_cut() -> None:
    """What is shown of a condition is short, whatever string it holds; what the engine is asked is the whole."""
    (condition,) = parts_of(source(f'permit (principal, action, resource) when {{ a == "{"x" * 5000}" }};')).conditions

    assert (400, "…") == (len(condition.text), condition.text[-1])
    assert 5000 < len(condition.probe)


# (conditions, their values for n = 3, s = "x", without o)
VALUES = [
    ("context.input.n == 3", [("true", "")]),
    ("context.input.n == 4 && context.input.n == 3", [("false", ""), ("not_reached", "")]),
    (
        "context.input.n + 9223372036854775807 > 0 && context.input.n == 3",
        [("error", "overflow"), ("not_reached", "")],
    ),
    ("context.input has o && context.input.o == 1", [("false", ""), ("not_reached", "")]),
    ('context.input.n == 3 && decimal("1.5").lessThan(decimal("2.5"))', [("true", ""), ("true", "")]),
]


@pytest.mark.parametrize(("condition", "expected"), VALUES)
def test_each_condition_has_its_value(condition: str, expected: list[tuple[str, str]]) -> None:
    """The first condition that is not true ends the way, and an error is told by its kind."""
    bundle = load({"files/x": f"forbid (principal, action, resource) when {{ {with_action(condition)} }};"})

    (result,) = ask(bundle, "ada", {"n": 3, "s": "x"})

    assert expected == [(one.value.value, one.error) for one in result.conditions[1:]]


def test_what_an_unreached_condition_would_be_worth_is_told_too() -> None:
    """Behind a false condition the others are worth something as well; one that needs its guard is an error."""
    condition = 'context.input.n == 9 && context.input.s == "x" && context.input has o && context.input.o == 1'
    bundle = load({"files/x": f"permit (principal, action, resource) when {{ {with_action(condition)} }};"})

    (result,) = ask(bundle, "ada", {"n": 3, "s": "x"})

    assert ["false", "true", "false", "error"] == [one.alone.value for one in result.conditions[1:]]
    assert ["context.input.n == 9", "context.input has o", "context.input.o == 1"] == [
        one.condition.text for one in result.failed
    ]


# (clauses, the parts of their last condition and their values for n = 3, s = "x", without o)
PARTS = [
    ('unless { context.input.n == 3 && context.input.s == "y" }', ["n == 3: true", 's == "y": false']),
    ("unless { ((context.input.n == 4 && context.input.n == 3)) }", ["n == 4: false", "n == 3: not_reached"]),
    ("when { context.input.n == 4 || context.input.n == 3 }", ["n == 4: false", "n == 3: true"]),
    ("when { context.input.n == 3 || context.input.n == 4 }", ["n == 3: true", "n == 4: not_reached"]),
    ("unless { context.input has o && context.input.o == 1 }", ["has o: false", "o == 1: not_reached"]),
    ("when { context.input.n == 3 && context.input.n == 4 }", []),
    (
        "unless { context.input.n == 4 || context.input.n == 5 && context.input.n == 6 }",
        ["n == 5: false", "n == 6: not_reached"],
    ),
    ("unless { if context.input.n == 3 then false else true }", []),
]


@pytest.mark.parametrize(("clauses", "expected"), PARTS)
def test_parts_of_a_condition_have_values(clauses: str, expected: list[str]) -> None:
    """What a condition of several parts comes from is told part by part, up to the part that decides."""
    bundle = load({"files/x": f'forbid (principal, action == Action::"files/read", resource) {clauses};'})

    (result,) = ask(bundle, "ada", {"n": 3, "s": "x"})

    parts = [
        f"{one.condition.text.removeprefix('context.input').lstrip('. ')}: {one.value.value}"
        for one in result.conditions[-1].within
    ]
    assert expected == parts


def test_error_kinds_never_hold_what_the_engine_quotes() -> None:
    """The engine's message about an overflow quotes the argument; ours is one of a few words."""
    condition = with_action("context.input.n + 9223372036854775807 > 0")
    bundle = load({"files/x": f"forbid (principal, action, resource) when {{ {condition} }};"})

    (result,) = ask(bundle, "ada", {"n": 987654321, "s": "x"})

    assert "overflow" == result.error
    assert "987654321" not in repr(result)


@pytest.mark.parametrize("seed", range(5))
def test_values_never_contradict_the_engine(seed: int) -> None:
    """A policy matches exactly when all its parts are true, errs when the first that is not true is an error."""
    compared = compare_with_engine(random.Random(seed), policies=25, calls=8)  # noqa: S311 - chance, no secret

    assert 200 == compared


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_values_never_contradict_the_engine_on_many_policies() -> None:
    """The same on 20,000 random policies."""
    compared = sum(
        compare_with_engine(random.Random(seed), policies=50, calls=6)  # noqa: S311 - chance, no secret
        for seed in range(1000, 1400)
    )

    assert 120_000 == compared


def compare_with_engine(chance: random.Random, *, policies: int, calls: int) -> int:
    """Compare what the parts say with what the engine says about each policy's own text; return how many."""
    bundle = load({f"files/p{n}": random_policy(chance) for n in range(policies)})
    world = world_of(bundle)
    compared = 0
    for _ in range(calls):
        user, arguments = chance.choice(("ada", "bob")), random_arguments(chance)
        for result in ask(bundle, user, arguments):
            expected, error = engine_says(world, result.policy.text, user, arguments)
            assert (expected, bool(error)) == (result.value, bool(result.error)), result.policy.text
            assert expected == conjunction(result), result.policy.text
            assert prefix_values(world, result, user, arguments) == [p.value for p in result.parts]
            compared += 1
    return compared


def conjunction(result: PolicyResult) -> Value:
    """Return what a policy with these parts must be worth."""
    return next((one.value for one in result.parts if one.value is not Value.TRUE), Value.TRUE)


def world_of(bundle: Bundle) -> World:
    """Return the whole schema, and entities of our own making."""
    schema = cedarpy.Schema.from_str(bundle.schema_text())
    directory = [dict(one.json) for one in bundle.directory.entities.values()]
    opened = {"uid": {"type": "Session", "id": "ses_a"}, "attrs": SESSION_ATTRIBUTES, "parents": []}
    server = {"uid": {"type": "Server", "id": "files"}, "attrs": {}, "parents": []}
    return schema, cedarpy.Entities.from_json_str(json.dumps([*directory, opened, server]), schema)


def engine_says(world: World, text: str, user: str, arguments: Mapping[str, Any]) -> tuple[Value, list[str]]:
    """Ask the engine about one policy alone."""
    schema, entities = world
    request = {
        "principal": {"type": "User", "id": user},
        "action": {"type": "Action", "id": "files/read"},
        "resource": {"type": "Server", "id": "files"},
        "context": context(arguments),
    }
    result = cedarpy.is_authorized(request, cedarpy.PolicySet.from_str(text), entities, schema)
    errors = result.diagnostics.errors
    return (Value.ERROR if errors else Value.TRUE if result.diagnostics.reasons else Value.FALSE), errors


def prefix_values(world: World, result: PolicyResult, user: str, arguments: Mapping[str, Any]) -> list[Value]:
    """Return the value of each part as rules show it that hold the part and all before it, in order."""
    parts = parts_of(result.policy)
    scope = {one.kind: one.text for one in parts.scope}
    clauses: list[str] = []
    values: list[Value] = []
    for place, part in enumerate((*parts.scope, *parts.conditions)):
        if place >= len(parts.scope):
            # The text may be cut; what the engine is asked is not.
            clauses.append(f"{part.kind} {part.probe[part.probe.index('{') : part.probe.rindex('}')]} }}")
        shown = ", ".join(
            scope[kind] if kind in [one.kind for one in parts.scope[: place + 1]] else kind
            for kind in ("principal", "action", "resource")
        )
        if values and values[-1] is not Value.TRUE:
            values.append(Value.NOT_REACHED)
            continue
        text = f"permit ({shown}) {' '.join(clauses)};"
        values.append(engine_says(world, text, user, arguments)[0])
    return values


ATOMS = [
    "context.input.n == 3",
    "context.input.n > 1",
    'context.input.s like "a*"',
    'context.input.s == "b || c"',
    "(context.input has o && context.input.o == 1)",
    "(context.input has o && context.input.o + 9223372036854775806 > 0)",
    "context.input.n * 4611686018427387904 > 0",
    'principal in UserGroup::"staff"',
    "(principal has level && principal.level > 2)",
    'principal == User::"bob"',
    "context.session.depth == 0",
    'context.session.labels.contains("tainted")',
    'resource in Server::"files"',
    '(if context.input.n < 3 then context.input.s == "a" else true)',
    'context.now < datetime("2030-01-01")',
]
SESSION_ATTRIBUTES = {
    "purpose": "test",
    "tenant": "default",
    "environment": "",
    "opened_by": "gateway",
    "depth": 0,
    "labels": ["tainted"],
}


def random_policy(chance: random.Random) -> str:
    """Return a policy with random scope and clauses; what follows a `has` stands in one piece with it or behind it."""
    effect = chance.choice(("permit", "forbid"))
    principal = chance.choice(("principal", 'principal in UserGroup::"staff"', 'principal == User::"bob"'))
    action = chance.choice(('action == Action::"files/read"', 'action in [Action::"files/read"]'))
    resource = chance.choice(("resource", 'resource == Server::"files"', "resource is Server"))
    clauses = [
        f"{chance.choice(('when', 'unless'))} {{ {random_expression(chance, 3)} }}"
        for _ in range(chance.choice((0, 1, 1, 2, 3)))
    ]
    return f"{effect} ({principal}, {action}, {resource})\n" + "\n".join(clauses) + ";"


def random_expression(chance: random.Random, depth: int) -> str:
    """Return an expression of atoms, with brackets where chance puts them and sometimes a guard and what it guards."""
    if depth == 0 or chance.random() < 0.2:
        return chance.choice(ATOMS)
    operator = chance.choice((" && ", " && ", "&&\n", " || ", " || // or && and\n"))
    left, right = (random_expression(chance, depth - 1) for _ in range(2))
    shape = chance.random()
    if shape < 0.1:
        return f"!({left}{operator}{right})"
    if shape < 0.2:
        return f"context.input has o && context.input.o > 1 && ({left})"
    whole = f"{left}{operator}{right}"
    return f"({whole})" if chance.random() < 0.4 else whole


def random_arguments(chance: random.Random) -> dict[str, Any]:
    """Return arguments near what the atoms speak of."""
    arguments: dict[str, Any] = {"n": chance.choice((0, 2, 3, 5)), "s": chance.choice(("a", "b", "b || c"))}
    return arguments | ({"o": chance.choice((0, 1, 5))} if chance.random() < 0.6 else {})


def with_action(condition: str) -> str:
    """Return a condition behind one that only the tool's action satisfies, as strict validation wants it."""
    return f'action == Action::"files/read" && {condition}'


def load(policies: Mapping[str, str]) -> Bundle:
    """Load a bundle with policies by id."""
    text = "\n".join(f'@id("{name}")\n{policy}' for name, policy in policies.items())
    files = bundle_files(
        policies={"files": text},
        tools={"files": [TOOL]},
        directory=DIRECTORY,
        manifest="labels: {tainted: {meaning: random policies may permit for it, widens: true}}\n",
        sessions="",
    )
    return load_bundle(files, DEFAULT_LIMITS, compile_here)


def ask(bundle: Bundle, user: str, arguments: Mapping[str, Any]) -> tuple[PolicyResult, ...]:
    """Return what each policy is worth for a call of a fresh session."""
    asked = bundle.slice("files/read")
    facts = Facts(action="files/read", resource=("Server", "files"), context=context(arguments))
    results = Probes(asked.policies).results(bundle, session(bundle, user), facts, 1_800_000_000.0)
    assert results is not None
    return results


def context(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the context of a call in Cedar's JSON."""
    return {
        "input": {"path": "/x", **arguments},
        "opaque": [],
        "targets": {"provenance": [], "links": []},
        "caller": {"id": "gateway"},
        "agent": {"__entity": {"type": "Agent", "id": "worker"}},
        "session": {"__entity": {"type": "Session", "id": "ses_a"}},
        "now": datetime_value(1_800_000_000.0),
    }


def session(bundle: Bundle, user: str) -> Session:
    """Return an active session of a user."""
    return Session(
        id="ses_a",
        handle_digest=b"",
        state=SessionState.ACTIVE,
        user=user,
        agent="worker",
        purpose="test",
        tool_patterns=("files/*",),
        duration=60.0,
        requested_at=0.0,
        deadline=Deadline(wall_at=9e9, boot_at=9e9, boot_id="b"),
        tenant="default",
        environment="",
        opened_by="gateway",
        labels=("tainted",),
        entities_json=bundle.directory.capture(user, "worker") or "[]",
    )
