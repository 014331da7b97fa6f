"""What JSON Schema becomes in Cedar, and what JSON values become."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import cedarpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.errors import InvalidArgumentsError
from pdp.foundation.jsontext import parse_object
from pdp.policy.tools.parameters import DecimalType, RecordType, cedar_string
from pdp.policy.tools.typing import facts_type, input_type


def read(properties: dict[str, Any], **more: Any) -> RecordType:
    """Return the type of a tool with these parameters."""
    found = input_type({"type": "object", "properties": properties, **more})
    assert found is not None
    return found


def decimals() -> RecordType:
    """Return the type of a tool whose amount the overlay types `decimal`."""
    return read({"amount": {"type": ["number", "null"]}}).with_type("amount", DecimalType())


STRING = {"type": "string"}
NODE = {"type": "object", "properties": {"name": STRING, "next": {"$ref": "#/$defs/Node"}}, "required": ["name"]}
DOUBLING = {
    f"D{level}": {
        "type": "object",
        "properties": {side: {"$ref": f"#/$defs/D{level + 1}"} for side in ("left", "right")},
    }
    for level in range(40)
} | {"D40": STRING}

DECLARATIONS = [
    ("string", STRING, "String"),
    ("enum", {"type": "string", "enum": ["a", "b"]}, "String"),
    ("an enum without a type", {"enum": ["a", "b"]}, "String"),
    ("a constant", {"const": "a"}, "String"),
    ("integer", {"type": "integer"}, "Long"),
    ("number", {"type": "number"}, None),
    ("boolean", {"type": "boolean"}, "Bool"),
    ("a list of one type", {"type": ["integer"]}, "Long"),
    ("an array of strings", {"type": "array", "items": STRING}, "Set<String>"),
    ("an array of integers", {"type": "array", "items": {"type": "integer"}}, "Set<Long>"),
    ("an array of numbers", {"type": "array", "items": {"type": "number"}}, None),
    ("an array of objects", {"type": "array", "items": NODE}, None),
    ("an array of arrays", {"type": "array", "items": {"type": "array", "items": STRING}}, None),
    ("an array that may hold null", {"type": "array", "items": {"type": ["string", "null"]}}, None),
    ("an array of anything", {"type": "array"}, None),
    ("a tuple", {"type": "array", "prefixItems": [STRING], "items": STRING}, None),
    (
        "an object",
        {"type": "object", "properties": {"a": STRING, "b": {"type": "integer"}}, "required": ["a"]},
        '{ "a": String, "b"?: Long }',
    ),
    (
        "an object with an opaque property",
        {"type": "object", "properties": {"a": STRING, "b": {"type": "number"}}, "required": ["a"]},
        '{ "a": String }',
    ),
    ("an object that holds nothing", {"type": "object", "additionalProperties": False}, "{  }"),
    ("an open object", {"type": "object", "properties": {"a": STRING}, "additionalProperties": True}, None),
    ("a map", {"type": "object", "additionalProperties": STRING}, None),
    ("patterns", {"type": "object", "properties": {"a": STRING}, "patternProperties": {"^x": STRING}}, None),
    ("a free-form object", {"type": "object"}, None),
    ("a union", {"type": ["string", "integer"]}, None),
    ("a union of branches", {"anyOf": [STRING, {"type": "integer"}]}, None),
    ("a union of constants", {"anyOf": [{"const": "a"}, {"const": "b"}]}, "String"),
    ("a union of numbers", {"anyOf": [{"type": "integer"}, {"type": "number"}]}, None),
    ("one branch", {"oneOf": [{"type": "integer"}]}, "Long"),
    ("branches that narrow a type", {"type": "string", "anyOf": [{"format": "uri"}, {"format": "email"}]}, "String"),
    ("a lone allOf", {"allOf": [{"$ref": "#/$defs/Name"}], "default": "x"}, "String"),
    ("several allOf", {"allOf": [STRING, {"minLength": 1}]}, None),
    ("a reference", {"$ref": "#/$defs/Name", "description": "ours"}, "String"),
    ("an old reference", {"$ref": "#/definitions/Old"}, "Long"),
    ("a reference with escapes", {"$ref": "#/$defs/a~1b~0c%20d"}, "Bool"),
    ("a reference that contradicts", {"$ref": "#/$defs/Name", "type": "integer"}, None),
    ("a reference to nowhere", {"$ref": "#/$defs/Missing"}, None),
    ("a reference to elsewhere", {"$ref": "https://example.org/schema"}, None),
    ("a reference to an anchor", {"$ref": "#name"}, None),
    ("a reference to itself", {"$ref": "#/$defs/Circle"}, None),
    ("a list of nodes", {"$ref": "#/$defs/Node"}, '{ "name": String }'),
    ("a doubling chain", {"$ref": "#/$defs/D0"}, None),
    ("anything", True, None),
    ("anything, in words", {}, None),
    ("only null", {"type": "null"}, None),
    ("an unknown type", {"type": "file"}, None),
    ("not a schema", "string", None),
    ("a mixed enum", {"enum": ["a", 1]}, None),
]


@pytest.mark.parametrize(("schema", "cedar"), [row[1:] for row in DECLARATIONS], ids=[row[0] for row in DECLARATIONS])
def test_declaration(schema: object, cedar: str | None) -> None:
    """A parameter's declaration alone settles its Cedar type; what has none is opaque."""
    definitions = {
        "Name": STRING,
        "a/b~c d": {"type": "boolean"},
        "Circle": {"$ref": "#/$defs/Circle"},
        "Node": NODE,
        **DOUBLING,
    }

    record = read({"x": schema}, required=["x"], **{"$defs": definitions, "definitions": {"Old": {"type": "integer"}}})

    parameter = record.parameter("x")
    assert parameter is not None
    assert (None if parameter.opaque else parameter.type.cedar()) == cedar
    assert ("x" in record.opaque_labels()) == (cedar is None)


NULLABLE = [
    {"type": ["string", "null"]},
    {"anyOf": [STRING, {"type": "null"}], "default": None},
    {"oneOf": [{"type": "null"}, STRING]},
    {"anyOf": [{"$ref": "#/$defs/Name"}, {"const": None}]},
    {"type": "string", "nullable": True},
    {"enum": ["a", "b", None]},
    {"$ref": "#/$defs/Perhaps"},
]


@pytest.mark.parametrize("schema", NULLABLE, ids=json.dumps)
def test_nullable(schema: object) -> None:
    """Null is absent and named in `opaque`, also where the parameter is required."""
    definitions = {"Name": STRING, "Perhaps": {"type": ["string", "null"]}}

    record = read({"x": schema}, required=["x"], **{"$defs": definitions})

    assert record.cedar() == '{ "x"?: String }'
    assert record.convert({"x": None}) == ({}, ("x",))
    assert record.convert({"x": "a"}) == ({"x": "a"}, ())


EVERYTHING = read(
    {
        "text": STRING,
        "choice": {"type": "string", "enum": ["a", "b"], "const": "a"},
        "count": {"type": "integer"},
        "few": {"type": "integer", "enum": [1, 2]},
        "flag": {"type": "boolean"},
        "sure": {"const": True},
        "ratio": {"type": "number"},
        "tags": {"type": "array", "items": {"type": "string", "enum": ["red", "blue"]}},
        "place": {
            "type": "object",
            "properties": {"city": STRING, "zip": {"type": ["string", "null"]}, "lat": {"type": "number"}},
            "required": ["city"],
        },
        "never": False,
        "odd name": {"type": "array", "items": {"type": "integer"}},
    },
    anyOf=[{"properties": {"branch": STRING}}, {"required": ["text"]}],
)

FITTING = [
    ("{}", {}, ()),
    ('{"text": "ü\\u0000"}', {"text": "ü\0"}, ()),
    ('{"choice": "a"}', {"choice": "a"}, ()),
    ('{"count": -9223372036854775808}', {"count": -(2**63)}, ()),
    ('{"count": 9223372036854775807}', {"count": 2**63 - 1}, ()),
    ('{"few": 2, "flag": false, "sure": true}', {"few": 2, "flag": False, "sure": True}, ()),
    ('{"ratio": 0.123456789}', {}, ("ratio",)),
    ('{"ratio": "not even a number"}', {}, ("ratio",)),
    ('{"tags": []}', {"tags": []}, ()),
    ('{"tags": ["red", "red", "blue"]}', {"tags": ["red", "red", "blue"]}, ()),
    ('{"place": {"city": "x"}}', {"place": {"city": "x"}}, ()),
    ('{"place": {"lat": 1.5, "zip": null, "city": "x"}}', {"place": {"city": "x"}}, ("place.lat", "place.zip")),
    ('{"branch": {"a": [1]}, "ratio": null}', {}, ("branch", "ratio")),
]


@pytest.mark.parametrize(("text", "shown", "opaque"), FITTING)
def test_value_that_fits(text: str, shown: object, opaque: tuple[str, ...]) -> None:
    """What fits becomes Cedar's JSON; what is opaque is named, sorted, and left out."""
    assert EVERYTHING.convert(parse_object(text.encode())) == (shown, opaque)


UNFIT = [
    ('{"text": 5}', "`$.text`: must be a string"),
    ('{"text": null}', "`$.text`: must be a string"),
    ('{"choice": "b"}', "`$.choice`: must be one of the declared values"),
    ('{"count": 7.0}', "`$.count`: must be an integer, without fraction and exponent"),
    ('{"count": 5e2}', "`$.count`: must be an integer, without fraction and exponent"),
    ('{"count": "7"}', "`$.count`: must be an integer, without fraction and exponent"),
    ('{"count": true}', "`$.count`: must be an integer, without fraction and exponent"),
    ('{"count": 9223372036854775808}', "`$.count`: must fit in 64 bits"),
    ('{"few": 3}', "`$.few`: must be one of the declared values"),
    ('{"flag": 1}', "`$.flag`: must be true or false"),
    ('{"flag": "true"}', "`$.flag`: must be true or false"),
    ('{"sure": false}', "`$.sure`: must be one of the declared values"),
    ('{"tags": "red"}', "`$.tags`: must be a list"),
    ('{"tags": ["red", "green"]}', "`$.tags[*]`: must be one of the declared values"),
    ('{"place": {}}', "`$.place.city`: is required"),
    ('{"place": []}', "`$.place`: must be an object"),
    ('{"place": {"city": "x", "secret": 1}}', "`$.place`: holds a parameter that is not declared"),
    ('{"odd name": [false]}', '`$["odd name"][*]`: must be an integer, without fraction and exponent'),
    ('{"secret": 1}', "`$`: holds a parameter that is not declared"),
    ('{"never": 1}', "`$`: holds a parameter that is not declared"),
]


@pytest.mark.parametrize(("text", "problem"), UNFIT)
def test_value_that_does_not_fit(text: str, problem: str) -> None:
    """What does not fit is refused by path and rule, without the value or a name that the agent chose."""
    with pytest.raises(InvalidArgumentsError) as refusal:
        EVERYTHING.convert(parse_object(text.encode()))

    assert str(refusal.value) == problem


def test_missing_required_parameter() -> None:
    """A required parameter must be there, also an opaque one and one that is required only."""
    record = read({"a": {"type": "number"}}, required=["a", "b"])

    for arguments, problem in (({"a": 1}, "`$.b`: is required"), ({"b": 1}, "`$.a`: is required")):
        with pytest.raises(InvalidArgumentsError) as refusal:
            record.convert(arguments)
        assert str(refusal.value) == problem
    assert record.convert({"a": 1, "b": 2}) == ({}, ("a", "b"))


AMOUNTS = [
    ("500", "500.0"),
    ("500.0", "500.0"),
    ("5e2", "500.0"),
    ("7", "7.0"),
    ("7.0", "7.0"),
    ("7.00000", "7.0"),
    ("500.0001", "500.0001"),
    ("500.00010", "500.0001"),
    ("-0.0", "0.0"),
    ("0e-999999999", "0.0"),
    ("-1.5", "-1.5"),
    ("922337203685477.5807", "922337203685477.5807"),
    ("-922337203685477.5808", "-922337203685477.5808"),
    ("922337203685477.5808", None),
    ("-922337203685477.5809", None),
    ("1e15", None),
    ("500.00001", None),
    ("0.00001", None),
    ("1e999999999", None),
    ("1e-999999999", None),
    ("1000000000000000000000000", None),
    ('"500"', None),
    ('"500.0"', None),
    ("true", None),
    ("[500]", None),
    ('{"fn": "decimal", "arg": "1.0"}', None),
]


@pytest.mark.parametrize(("written", "expected"), AMOUNTS)
def test_amount(written: str, expected: str | None) -> None:
    """A decimal keeps its exact value or is refused: nothing is rounded and no string passes for one."""
    arguments = parse_object(f'{{"amount": {written}}}'.encode())

    if expected is None:
        with pytest.raises(InvalidArgumentsError, match=r"^`\$\.amount`: must "):
            decimals().convert(arguments)
    else:
        assert decimals().convert(arguments) == ({"amount": {"__extn": {"fn": "decimal", "arg": expected}}}, ())


AMOUNT_SCHEMA = """
entity User; entity Server;
action "pay" appliesTo {{ principal: [User], resource: [Server], context: {{ opaque: Set<String>, input: {} }} }};
"""
AMOUNT_RULE = """
permit (principal, action, resource);
forbid (principal, action, resource) unless {
  context.input has amount && context.input.amount.lessThanOrEqual(decimal("500.0"))
};
"""


@pytest.mark.parametrize(
    ("written", "outcome"),
    [
        ("500", "allow"),
        ("5e2", "allow"),
        ("500.0", "allow"),
        ("7", "allow"),
        ("7.0", "allow"),
        ("500.0001", "deny"),
        ("501", "deny"),
        ("null", "deny"),
        ("500.00001", "refused"),
        ('"500"', "refused"),
        ("true", "refused"),
    ],
)
def test_amount_cannot_be_hidden(written: str, outcome: str) -> None:
    """However an amount is written, a rule about it judges its value or the call is refused before."""
    record = decimals()
    schema = cedarpy.Schema.from_str(AMOUNT_SCHEMA.format(record.cedar()))
    try:
        shown, opaque = record.convert(parse_object(f'{{"amount": {written}}}'.encode()))
    except InvalidArgumentsError:
        assert outcome == "refused"
        return
    request = {
        "principal": {"type": "User", "id": "u"},
        "action": {"type": "Action", "id": "pay"},
        "resource": {"type": "Server", "id": "bank"},
        "context": {"input": shown, "opaque": list(opaque)},
    }

    result = cedarpy.is_authorized(request, AMOUNT_RULE, [], schema=schema)

    assert result.diagnostics.errors == []
    assert result.decision.value.lower() == outcome


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**14), max_value=10**14))
def test_decimal_keeps_its_value(number: Decimal) -> None:
    """Every number with four fraction digits arrives unchanged, and equal numbers are written alike."""
    shown, _ = decimals().convert({"amount": number})
    padded, _ = decimals().convert({"amount": Decimal(f"{number}000000")})

    assert Decimal(shown["amount"]["__extn"]["arg"]) == number  # type: ignore[index] # Cedar's JSON for a decimal
    assert shown == padded


@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8"), max_size=5))
def test_any_name_can_be_an_attribute(name: str, other: str) -> None:
    """Every attribute name survives being written into a schema: the engine takes a context with it."""
    record = read({name: STRING, other: {"type": "integer"}} if name != other else {name: STRING}, required=[name])
    action = cedar_string(name)
    schema = cedarpy.Schema.from_str(
        f"entity User; action {action} appliesTo {{ principal: [User], resource: [User], context: {record.cedar()} }};"
    )
    user = {"type": "User", "id": name}
    request = {
        "principal": user,
        "action": {"type": "Action", "id": name},
        "resource": user,
        "context": record.convert({name: "x"})[0],
    }

    result = cedarpy.is_authorized(request, "permit (principal, action, resource);", [], schema=schema)

    assert (result.decision, result.diagnostics.errors) == (cedarpy.Decision.Allow, [])


def test_entity_shaped_value_stays_a_record() -> None:
    """A declared object with `type` and `id` is a record to the engine and never becomes an entity."""
    record = read({"r": {"type": "object", "properties": {"type": STRING, "id": STRING}}})
    schema = cedarpy.Schema.from_str(
        f'entity User; action "a" appliesTo {{ principal: [User], resource: [User], context: {record.cedar()} }};'
    )
    user = {"type": "User", "id": "u"}
    request = {
        "principal": user,
        "action": {"type": "Action", "id": "a"},
        "resource": user,
        "context": record.convert({"r": user})[0],
    }
    policy = 'permit (principal, action, resource) when { context.r.id == "u" };'

    result = cedarpy.is_authorized(request, policy, [], schema=schema)

    assert (result.decision, result.diagnostics.errors) == (cedarpy.Decision.Allow, [])


@pytest.mark.parametrize(
    "schema", [[], "object", {"type": "string"}, {"type": ["object", "null"]}, {"$ref": "#"}], ids=json.dumps
)
def test_not_an_object_of_parameters(schema: object) -> None:
    """What is not the schema of an object has no parameters to type."""
    assert input_type(schema) is None


def test_no_schema_declares_no_parameter() -> None:
    """A tool without a schema takes the empty object and nothing else."""
    record = input_type(None)

    assert record is not None
    assert record.convert({}) == ({}, ())
    with pytest.raises(InvalidArgumentsError):
        record.convert({"a": 1})


def test_root_reference() -> None:
    """The parameters may stand behind a reference."""
    record = input_type({"$ref": "#/$defs/Root", "$defs": {"Root": {"type": "object", "properties": {"a": STRING}}}})

    assert record is not None
    assert record.cedar() == '{ "a"?: String }'


def test_branches_that_double_at_the_root() -> None:
    """Branches that name each other twice end, and their properties are known."""
    definitions: dict[str, Any] = {f"B{n}": {"anyOf": [{"$ref": f"#/$defs/B{n + 1}"}] * 2} for n in range(60)}
    definitions["B60"] = {"properties": {"deep": STRING}}

    record = input_type({"type": "object", "allOf": [{"$ref": "#/$defs/B0"}, STRING], "$defs": definitions})

    assert record is not None
    assert record.convert({"deep": 1}) == ({}, ("deep",))


def test_deep_objects_become_opaque() -> None:
    """Records end at a fixed depth, well below what the engine's schema parser survives."""
    schema: dict[str, Any] = STRING
    for _ in range(30):
        schema = {"type": "object", "properties": {"a": schema}}
    record = read({"a": schema})

    assert record.cedar().count("{") == 9
    assert list(record.opaque_labels()) == [".".join("a" * 9)]


def test_facts() -> None:
    """The facts of a caller are declared like parameters, and `decimal` is a type of theirs."""
    facts = facts_type(
        {"properties": {"level": {"type": "integer"}, "price": {"type": "decimal"}}, "required": ["level"]}
    )

    assert facts.cedar() == '{ "level": Long, "price"?: decimal }'
    assert facts.required == ("level",)
    assert facts_type({}).required == facts_type(None).required == ()


FACTS_FORM = "`properties` must be a mapping of facts, such as `workstation: {type: string}`"


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        ({"properties": {"id": STRING}}, "`id` is the caller's own id; choose another name for the fact"),
        ({"properties": {"a": STRING}, "required": ["b"]}, "`b` is required but not declared"),
        ({"property": {}}, "unknown key: `property`; known are `properties` and `required`"),
        (3, "must be a mapping with `properties` and `required`"),
        ({"properties": ["a"]}, FACTS_FORM),
        ({"properties": {"a": "string"}}, FACTS_FORM),
        ({"properties": {"a": STRING}, "required": "a"}, "`required` must be a list of facts"),
        ({"properties": {"a": STRING}, "required": [["a"]]}, "`required` must be a list of facts"),
        (
            {"properties": {"a": {"type": "object"}}},
            "`a` must have a type that Cedar can express; it is a free-form object",
        ),
    ],
)
def test_bad_facts(declared: object, problem: str) -> None:
    """A fact that no policy could read is refused when the bundle is loaded."""
    with pytest.raises(ValueError, match=r"`") as refusal:
        facts_type(declared)

    assert str(refusal.value) == problem


@pytest.mark.parametrize(
    "schema", [{"type": "integer", "const": 1.0}, {"type": "integer", "enum": [1.0, 2]}, {"enum": [1]}], ids=json.dumps
)
def test_a_whole_number_is_an_integer_however_it_is_written(schema: dict[str, Any]) -> None:
    """`1.0` among the allowed values allows `1`; what is beyond 64 bits, or has a fraction, allows nothing."""
    declared = parse_object(json.dumps({"properties": {"x": schema}}).encode())

    record = input_type(declared)

    assert record is not None
    assert record.convert({"x": 1}) == ({"x": 1}, ())
    with pytest.raises(InvalidArgumentsError):
        record.convert({"x": 3})
