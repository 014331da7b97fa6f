"""Arguments are held against the whole JSON schema of their tool, in bounded time, and no value is told."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdp.errors import InvalidArgumentsError
from pdp.foundation.jsontext import parse, parse_object
from pdp.policy.tools.argumentcheck import ArgumentCheck, UncheckableSchemaError
from pdp.policy.tools.schemabounds import MOST_SCHEMAS

DRAFT_4, DRAFT_7 = "http://json-schema.org/draft-04/schema#", "http://json-schema.org/draft-07/schema#"


def check(schema: dict[str, Any]) -> ArgumentCheck:
    """Compile a schema as a catalogue does."""
    return ArgumentCheck(parse_object(json.dumps(schema).encode()), most_patterns=100)


def problem(schema: dict[str, Any], arguments: str) -> str:
    """Return what is wrong with arguments, empty when they fit."""
    try:
        check(schema).require(parse_object(arguments.encode()), len(arguments))
    except InvalidArgumentsError as error:
        return str(error)
    return ""


def of(name: str, **schema: Any) -> dict[str, Any]:
    """Return the schema of an object with one property."""
    return {"type": "object", "properties": {name: schema}}


NUMBERS = [
    (of("a", type="integer"), '{"a": 1.0}', ""),
    (of("a", type="integer"), '{"a": 1.5}', "`$.a`: does not fit its schema (`type`)"),
    ({"$schema": DRAFT_4, **of("a", type="integer")}, '{"a": 1.0}', "`$.a`: does not fit its schema (`type`)"),
    (of("a", type="integer", const=1.0), '{"a": 1}', ""),
    (of("a", enum=[1]), '{"a": 1.0}', ""),
    (of("a", enum=[1]), '{"a": true}', "`$.a`: does not fit its schema (`enum`)"),
    (of("a", maximum=10**30), f'{{"a": {10**30}}}', ""),
    (of("a", maximum=10**30), f'{{"a": {10**30 + 1}}}', "`$.a`: does not fit its schema (`maximum`)"),
    (of("a", maximum=0.1), '{"a": 0.1000000000000000000000001}', "`$.a`: does not fit its schema (`maximum`)"),
    (of("a", multipleOf=0.01), '{"a": 19.99}', ""),
    (of("a", multipleOf=0.01), '{"a": 19.995}', "`$.a`: does not fit its schema (`multipleOf`)"),
    (of("a", maximum=5), '{"a": 1e399}', "`$.a`: does not fit its schema (`maximum`)"),
    (of("a", type="integer"), '{"a": 1e399}', ""),
    (of("a", uniqueItems=True), '{"a": [1, 1.0]}', "`$.a`: does not fit its schema (`uniqueItems`)"),
]


@pytest.mark.parametrize(("schema", "arguments", "expected"), NUMBERS)
def test_numbers_are_compared_as_they_are_written(schema: dict[str, Any], arguments: str, expected: str) -> None:
    """No number is rounded: `1.0` is an integer but for draft 4, `true` is no number, large exponents cost nothing."""
    assert expected == problem(schema, arguments)


PLACES = [
    ('{"pay": [{"iban": "DE1", "amount": 5}], "note": null}', ""),
    ('{"pay": [{"iban": "DE1", "amount": "five"}]}', "`$.pay[*].amount`: does not fit its schema (`type`)"),
    ('{"pay": [{"amount": 5}]}', "`$.pay[*]`: does not fit its schema (`required`)"),
    ('{"pay": {}}', "`$.pay`: does not fit its schema (`type`)"),
    (
        '{"pay": [{"iban": "DE1", "amount": -1}, {"iban": 2, "amount": -1}, {}], "note": 1}',
        (
            "`$.note`: does not fit its schema (`type`); `$.pay[*].amount`: does not fit its schema (`minimum`); "
            "`$.pay[*].iban`: does not fit its schema (`type`)"
        ),
    ),
    ('{"pay": [], "more": {"the secret": 7}}', "`$.more[*]`: does not fit its schema (`type`)"),
    ('{"pay": [], "the secret": 7}', "`$`: does not fit its schema (`additionalProperties`)"),
]


@pytest.mark.parametrize(("arguments", "expected"), PLACES)
def test_what_is_wrong_is_named_by_its_place(arguments: str, expected: str) -> None:
    """Up to three places are named; of what the agent wrote nothing is repeated, not the names that it made up."""
    item = {
        "type": "object",
        "properties": {"iban": {"type": "string"}, "amount": {"type": "number", "minimum": 0}},
        "required": ["iban"],
    }
    schema = {
        "type": "object",
        "properties": {
            "note": {"type": ["string", "null"]},
            "pay": {"type": "array", "items": item},
            "more": {"type": "object", "additionalProperties": {"type": "string"}},
        },
        "additionalProperties": False,
    }

    said = problem(schema, arguments)

    assert expected == said


def test_references_of_any_dialect_are_followed_within_the_schema() -> None:
    """`definitions` of draft 7 and `$defs` of 2020-12 both serve, and a tree may go on."""
    tree = {"type": "object", "properties": {"left": {"$ref": "#/$defs/t"}, "v": {"type": "integer"}}}
    old = {"$schema": DRAFT_7, **of("a", **{"$ref": "#/definitions/x"}), "definitions": {"x": {"type": "integer"}}}
    new = {**of("a", **{"$ref": "#/$defs/t"}), "$defs": {"t": tree}}

    assert "`$.a`: does not fit its schema (`type`)" == problem(old, '{"a": "x"}')
    assert "`$.a.left.left.v`: does not fit its schema (`type`)" == problem(new, '{"a":{"left":{"left":{"v":"x"}}}}')


@pytest.mark.parametrize(
    ("schema", "arguments", "unchecked", "expected"),
    [
        (of("a", pattern="^x+$"), '{"a": "y"}', (), "`$.a`: does not fit its schema (`pattern`)"),
        (of("a", pattern="^(a+)+$"), '{"a": "' + "a" * 30000 + 'b"}', (), "`$.a`: does not fit its schema (`pattern`)"),
        (of("a", pattern="^(?=x)"), '{"a": "y"}', ("^(?=x)",), ""),
        (of("a", pattern="(?:a{1000}){1000}"), '{"a": "y"}', ("(?:a{1000}){1000}",), ""),
        (
            of("a", pattern="(?=x)", minLength=2),
            '{"a": "y"}',
            ("(?=x)",),
            "`$.a`: does not fit its schema (`minLength`)",
        ),
        ({"patternProperties": {"(?!x)": {"type": "null"}}, "additionalProperties": False}, '{"a": 1}', ("(?!x)",), ""),
        (of("pattern", type="string"), '{"pattern": "("}', (), ""),
    ],
)
def test_patterns(schema: dict[str, Any], arguments: str, unchecked: tuple[str, ...], expected: str) -> None:
    """Patterns are matched in linear time; what the engine cannot do so, or not in little memory, is left out."""
    assert unchecked == check(schema).unchecked
    assert expected == problem(schema, arguments)


def test_formats_are_hints() -> None:
    """A `format` is not enforced."""
    assert "" == problem(of("a", type="string", format="date"), '{"a": "tomorrow"}')


def chain(length: int) -> dict[str, Any]:
    """Return a schema whose work doubles with each definition."""
    steps = {f"d{at}": {"anyOf": [{"$ref": f"#/$defs/d{at + 1}"}] * 2} for at in range(length)}
    return {"$defs": {**steps, f"d{length}": {"type": "string"}}, "$ref": "#/$defs/d0"}


UNCHECKABLE = [
    ({"properties": {"a": 7}}, "it is not a JSON schema at `inputSchema.properties.a`"),
    ({"$schema": "http://example.com/mine"}, "its `$schema` names an unknown dialect"),
    ({"$schema": ["x"]}, "its `$schema` names an unknown dialect"),
    (of("a", **{"$ref": "file:///etc/passwd"}), "a `$ref` leads elsewhere: only `#` and `#/…` are followed"),
    (of("a", **{"$ref": "#/$defs/none"}), "a `$ref` leads to nothing"),
    (of("a", **{"$dynamicRef": "#x"}), "it holds a `$dynamicRef`, which is not followed"),
    (of("a", **{"$id": "b"}), "it holds an `$id` below its top, which would change the meaning of its references"),
    ({"$ref": "#"}, "it describes a value by itself, without end"),
    ({"allOf": [{"not": {"$ref": "#"}}]}, "it describes a value by itself, without end"),
    ({"allOf": [{}] * MOST_SCHEMAS}, None),
    ({"allOf": [{"title": str(at)} for at in range(MOST_SCHEMAS)]}, f"it holds more than {MOST_SCHEMAS} schemas"),
    (chain(30), "it checks one value against more than 1000000 schemas"),
    (chain(600), "a chain of more than 256 schemas describes one value"),
]


@pytest.mark.parametrize(("schema", "reason"), UNCHECKABLE)
def test_what_cannot_be_checked_is_refused(schema: dict[str, Any], reason: str | None) -> None:
    """A schema that is none, leads elsewhere, has no end, is too large or branches without bound does not compile."""
    with pytest.raises(UncheckableSchemaError) as refused:
        check(schema)

    assert reason in (None, str(refused.value))


def test_a_schema_that_branches_is_checked_as_far_as_that_is_cheap() -> None:
    """Where each level doubles the work, arguments are taken to the depth that can be checked, and no deeper."""
    branch = {"properties": {"a": {"$ref": "#"}, "n": {"type": "integer"}}}
    schema = {"type": "object", "anyOf": [branch, {**branch, "title": "other"}]}
    nested = '{"a":' * 25 + "{}" + "}" * 25

    assert "" == problem(schema, '{"a": {"a": {"n": 1}}}')
    assert "`$`: does not fit its schema (`anyOf`)" == problem(schema, '{"a": {"a": {"n": "x"}}}')
    assert "`$`: too large or too deep to be checked by a schema that branches so much" == problem(schema, nested)


@pytest.mark.parametrize("value", [{"a": 1}, [1], 0.5, 10**30])
def test_a_long_list_of_values_is_searched_as_far_as_that_is_cheap(value: object) -> None:
    """Looking for objects, lists and long numbers takes time for each: then only few of them are looked for."""
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": {"enum": [[], *[value] * 2_000]}}}}
    many = json.dumps({"a": [[]] * 4_000})

    assert "" == problem(schema, '{"a": [[]]}')
    assert "`$`: too large or too deep to be checked by a schema that branches so much" == problem(schema, many)


@pytest.mark.parametrize("branch", ["anyOf", "allOf", "oneOf"])
@pytest.mark.parametrize("keyword", ["multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"])
def test_many_bounds_of_numbers_are_checked_as_far_as_that_is_cheap(branch: str, keyword: str) -> None:
    """The library compares and divides exactly, which takes its time: many numbers are not held against many bounds."""
    one = {branch: [{keyword: 0.1, "title": str(number)} for number in range(20)]}
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": one}}}
    many = f'{{"a": [{",".join(["1e-300"] * 4_000)}]}}'

    assert "too large" not in problem(schema, '{"a": [1e-300]}')
    assert "`$`: too large or too deep to be checked by a schema that branches so much" == problem(schema, many)


def test_a_few_bounds_of_numbers_are_no_matter() -> None:
    """What tools declare of their numbers is checked for as many of them as arguments may hold."""
    one = {"type": "number", "minimum": 0.5, "maximum": 9, "multipleOf": 0.5}
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": {"anyOf": [one, {"type": "null"}]}}}}

    assert "" == problem(schema, f'{{"a": [{",".join(["1.5"] * 4_000)}]}}')


@pytest.mark.parametrize("number", ["1e-401", "1e401", "-1e-99999", "9" * 401, "0." + "7" * 401])
def test_a_number_is_not_longer_than_a_double_written_out(number: str) -> None:
    """Eight bytes are enough for a number with a hundred thousand digits behind its point."""
    schema = parse(b'{"type": "object", "properties": {"a": {"multipleOf": %b}}}' % number.lstrip("-").encode())

    assert "`$`: a number is too long to be checked" == problem(of("a"), f'{{"a": [{number}]}}')
    with pytest.raises(UncheckableSchemaError, match="a bound of numbers has more than 400 digits"):
        ArgumentCheck(schema, most_patterns=1)


def test_a_long_list_of_names_is_no_matter() -> None:
    """Texts alone, and integers alone, are found at once."""
    for values in ([f"n{at}" for at in range(4_000)], list(range(4_000))):
        schema = {"type": "object", "properties": {"a": {"type": "array", "items": {"enum": values}}}}

        assert "" == problem(schema, json.dumps({"a": values[:1] * 4_000}))


SCALARS = st.sampled_from(
    [
        {"type": "string", "maxLength": 2},
        {"type": "integer", "minimum": 0},
        {"type": ["number", "null"], "multipleOf": 0.5},
        {"enum": ["a", 1, None, [1]]},
        {"const": 1.0},
        {"type": "boolean"},
        {"not": {"type": "string"}},
        {"type": "string", "pattern": "^a"},
    ]
)
SCHEMAS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.builds(lambda one: {"type": "array", "items": one, "maxItems": 2}, inner),
        st.builds(lambda one, two: {"anyOf": [one, two]}, inner, inner),
        st.builds(lambda one, two: {"allOf": [one, two]}, inner, inner),
        st.builds(lambda one: {"type": "object", "properties": {"a": one}, "required": ["a"]}, inner),
        st.builds(lambda one: {"type": "object", "additionalProperties": one}, inner),
    ),
    max_leaves=5,
)
VALUES = st.recursive(
    st.sampled_from(["null", "true", "1", "1.0", "0.5", "-1", '"a"', '"abc"', "1e2"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]"),
        st.builds('{{"a": {}}}'.format, inner),
        st.builds('{{"b": {}}}'.format, inner),
    ),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(schema=SCHEMAS, value=VALUES)
def test_another_library_says_the_same(schema: dict[str, Any], value: str) -> None:
    """What fits, and what does not, is the same by a library in pure Python, by the standard's own rules of numbers."""
    whole = {"type": "object", "properties": {"x": schema}}
    # Only numbers that both hold exactly: the other library knows no `Decimal`.
    other = jsonschema.Draft202012Validator(whole).is_valid(json.loads(f'{{"x": {value}}}'))

    assert other == (problem(whole, f'{{"x": {value}}}') == "")
