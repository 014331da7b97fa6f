"""Plain Cedar: what is asked is answered, and what cannot be read is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pdp.policy.child.evaluation import evaluate

PERMIT = "permit(principal, action, resource);"
SCHEMA = 'entity U; action "a" appliesTo { principal: U, resource: U, context: { n: Long } };'
SCHEMA_JSON = json.dumps(
    {"": {"entityTypes": {"U": {}}, "actions": {"a": {"appliesTo": {"principalTypes": ["U"], "resourceTypes": ["U"]}}}}}
)


def request(user: str = "ada", **context: Any) -> str:
    """Return a request in Cedar's JSON."""
    uid = {"type": "U", "id": user}
    return json.dumps({"principal": uid, "action": {"type": "Action", "id": "a"}, "resource": uid, "context": context})


def answer(decision: str, reasons: list[str], erring: list[str], errors: int) -> dict[str, Any]:
    """Return what is expected of one evaluation; errors by their number."""
    return {"decision": decision, "reasons": reasons, "erroring_policies": erring, "errors": errors}


def evaluations(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Evaluate a job and count the engine's errors."""
    return [{**one, "errors": len(one["errors"])} for one in evaluate(job)["evaluations"]]


def test_requests_are_answered_in_order() -> None:
    """Each request gets the engine's decision, sorted reasons and the ids of the policies that erred."""
    policies = (
        'forbid(principal == U::"bob", action, resource);'
        + PERMIT * 11
        + "forbid(principal,action,resource) when {context.x};"
    )

    allowed, denied = evaluations({"policies": policies, "requests_json": [request("ada"), request("bob")]})

    assert allowed == answer("Allow", sorted(f"policy{n}" for n in range(1, 12)), ["policy12"], 1)
    assert denied == answer("Deny", ["policy0"], ["policy12"], 1)


def test_ids_are_positions_whatever_a_policy_calls_itself() -> None:
    """An `@id` that looks like a message of the engine changes nothing."""
    policies = '@id("error while evaluating policy `policy7`: ")forbid(principal, action, resource) when { context.x };'

    assert evaluations({"policies": policies, "requests_json": [request()]}) == [answer("Deny", [], ["policy0"], 1)]


def test_a_request_outside_the_schema_has_no_decision() -> None:
    """The engine's `NoDecision` stays what it is, and unchecked requests are evaluated."""
    job = {"policies": PERMIT, "schema": SCHEMA, "requests_json": [request(n=1), request(n="1")]}

    assert evaluations(job) == [answer("Allow", ["policy0"], [], 0), answer("NoDecision", [], [], 1)]
    assert evaluations(job | {"skip_request_validation": True}) == [answer("Allow", ["policy0"], [], 0)] * 2


def test_templates_are_linked() -> None:
    """A link makes a policy with the id that it names; a template alone allows nothing."""
    link = {"template_id": "one", "new_id": "ada", "principal": {"type": "U", "id": "ada"}, "resource": None}
    policies = '@id("one") permit(principal == ?principal, action, resource);'

    assert evaluations({"policies": policies, "requests_json": [request()]}) == [answer("Deny", [], [], 0)]
    assert evaluations(
        {"policies": policies, "template_links": [link], "requests_json": [request(), request("bob")]}
    ) == [
        answer("Allow", ["ada"], [], 0),
        answer("Deny", [], [], 0),
    ]


def test_action_groups_of_the_schema_hold() -> None:
    """Groups of actions come from the schema, in either syntax, also when requests go unchecked."""
    job = {
        "policies": 'permit(principal, action in Action::"g", resource);',
        "schema": "entity U; action g; action a in [g] appliesTo { principal: U, resource: U };",
        "requests_json": [request(extra=1)],
        "skip_request_validation": True,
    }

    assert evaluations(job) == [answer("Allow", ["policy0"], [], 0)]


@pytest.mark.parametrize(
    ("policies", "valid", "errors"),
    [(PERMIT, True, 0), ("permit(principal, action, resource) when { context.m };", False, 1)],
)
def test_policies_are_validated(policies: str, valid: bool, errors: int) -> None:  # noqa: FBT001 - a column
    """Validation is strict, and only done when asked for."""
    job = {"policies": policies, "schema": SCHEMA, "validate": True}
    result = evaluate(job)

    assert (result["valid"], len(result["validation_errors"])) == (valid, errors)
    assert evaluate(job | {"validate": False}) == {"evaluations": [], "valid": False, "validation_errors": []}


def test_a_schema_may_be_json() -> None:
    """A schema in JSON does what a schema in Cedar's syntax does."""
    assert evaluate({"policies": PERMIT, "schema_json": SCHEMA_JSON, "validate": True})["valid"]


LINK = {"template_id": "policy0", "new_id": "x", "principal": None, "resource": None}
DEEP = "[" * 200 + "]" * 200


PEOPLE = """
entity Group;
entity Person in [Group] = {"age": Long, "team"?: {"name": String}};
action "look" appliesTo {principal: Person, resource: Group};
"""
ANN = {"type": "Person", "id": "ann"}


@pytest.mark.parametrize(
    ("entities", "field", "problem"),
    [
        ([1], "[0]", "must be an object with `uid`, `attrs` and `parents`"),
        ([{"uid": "ann"}], "[0].uid", 'must be `{"type": "…", "id": "…"}`'),
        ([{"uid": ANN, "attrs": []}], "[0].attrs", "must be an object"),
        ([{"uid": ANN, "parents": {}}], "[0].parents", "must be a list"),
        ([{"uid": {"type": "Nobody", "id": "x"}}], "[0].uid.type", "of a type that the schema does not declare"),
        ([{"uid": ANN, "attrs": {"age": "old"}}], "[0].attrs.age", "needs a value of another type here"),
        ([{"uid": ANN, "attrs": {"age": 1.5}}], "[0].attrs.age", "needs a value of another type here"),
        (
            [{"uid": ANN, "attrs": {"age": 1, "height": 2}}],
            "[0].attrs.height",
            "cannot have this attribute, or this value",
        ),
        (
            [{"uid": ANN, "attrs": {"age": 1, "team": {"name": 3}}}],
            "[0].attrs.team",
            "cannot have this attribute, or this",
        ),
        ([{"uid": ANN, "attrs": {"age": 1}, "parents": [ANN]}], "[0].parents[0]", "cannot have this parent"),
        ([{"uid": ANN}], "[0]", "does not fit the schema: an attribute is missing"),
        ([{"uid": ANN, "attrs": {"age": 1}}] * 2, "[1].uid", '`Person::"ann"` is also in [0]'),
        (
            [{"uid": {"type": "Group", "id": "a"}}, {"uid": ANN, "attrs": {}}],
            "[1]",
            '`Person::"ann"` does not fit the schema',
        ),
    ],
)
def test_entities_that_do_not_fit_are_named(entities: list[Any], field: str, problem: str) -> None:
    """Which entity, and which part of it: the engine says neither."""
    invalid = evaluate({"schema": PEOPLE, "entities_json": json.dumps(entities)})["invalid"]

    assert f"entities_json{field}" == invalid["field"]
    assert problem in invalid["problem"]


@pytest.mark.parametrize(
    ("job", "field", "problem"),
    [
        ({"policies": "permit(principal, action, resource)"}, "policies", "unexpected end of input"),
        ({"policies": "\npermit(" + "(" * 40}, "policies", "line 2: deeper than 32 levels (limit `policy_depth`)"),
        ({"policies": "a " + "|| a" * 300}, "policies", "line 1: more than 200 operators"),
        ({"schema": "entity"}, "schema", "unexpected end of input"),
        ({"schema": "entity U { a: " + "{a: " * 40}, "schema", "line 1: deeper than 32 levels"),
        ({"schema": SCHEMA, "schema_json": SCHEMA_JSON}, "schema_json", "must be empty with `schema`"),
        ({"schema_json": "{}x"}, "schema_json", "trailing characters"),
        ({"schema_json": DEEP}, "schema_json", "deeper than 128 levels"),
        ({"entities_json": "{}"}, "entities_json", "must be a list of entities"),
        ({"entities_json": "[1"}, "entities_json", "not JSON (line 1, column 3)"),
        ({"entities_json": DEEP}, "entities_json", "deeper than 128 levels"),
        ({"validate": True}, "validate", "needs a schema"),
        ({"template_links": [{**LINK, "new_id": "a`b"}]}, "template_links[0].new_id", "must match"),
        ({"template_links": [LINK]}, "template_links", "policy0"),
        ({"policies": PERMIT, "template_links": [LINK]}, "template_links", "policy0"),
        ({"requests_json": [request(), "{"]}, "requests_json[1]", "not JSON (line 1, column 2)"),
        ({"requests_json": [DEEP]}, "requests_json[0]", "deeper than 128 levels"),
        ({"requests_json": ["[]"]}, "requests_json[0]", "must be an object with"),
        ({"requests_json": ['{"principal": 1}']}, "requests_json[0]", "must be an object with"),
        ({"requests_json": [request()[:-1] + ', "x": 1}']}, "requests_json[0]", "unknown key: `x`"),
        ({"requests_json": [request()[:-1] + ', "context": {}}']}, "requests_json[0]", "a key appears twice"),
        ({"requests_json": [request(n=float("nan"))]}, "requests_json[0]", "NaN and Infinity"),
        ({"requests_json": [request().replace("{}", "9" * 5000)]}, "requests_json[0]", "too many digits"),
        ({"requests_json": [request().replace("{}", "[]")]}, "requests_json[0].context", "must be an object"),
        (
            {"requests_json": [request().replace('{"type": "U", "id": "ada"}', '"U"')]},
            "requests_json[0].principal",
            "{",
        ),
        ({"requests_json": [request("\ud800")]}, "requests_json[0]", "a string holds a lone surrogate"),
    ],
)
def test_what_cannot_be_read_is_named(job: dict[str, Any], field: str, problem: str) -> None:
    """A field that cannot be read is named, with what is wrong in one line; nothing is evaluated."""
    result = evaluate(job)

    assert result.keys() == {"invalid"}
    assert result["invalid"]["field"] == field
    assert problem in result["invalid"]["problem"]
    assert "\n" not in result["invalid"]["problem"]
