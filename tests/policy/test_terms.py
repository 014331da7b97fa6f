"""The terms of a session: their text, and which of two are narrower."""

from __future__ import annotations

from typing import Any

import pytest

from pdp.errors import InvalidArgumentsError
from pdp.foundation.jsontext import parse_object
from pdp.policy.terms import canonical_terms, cedar_terms, read_terms, reserved_problem, sample_terms, wider_term
from pdp.policy.tools.parameters import RecordType
from pdp.policy.tools.typing import terms_type

KINDS: dict[str, dict[str, Any]] = {
    "name": {"type": "string"},
    "count": {"type": "integer"},
    "sure": {"type": "boolean"},
    "price": {"type": "decimal"},
    "names": {"type": "array", "items": {"type": "string"}},
    "counts": {"type": "array", "items": {"type": "integer"}},
    "inner": {
        "type": "object",
        "properties": {"price": {"type": "decimal"}, "name": {"type": "string"}},
        "required": ["price"],
        "additionalProperties": False,
    },
    "targets": {"type": "array", "items": {"type": "string"}},
    "max_calls": {"type": "integer"},
    "max_calls_per_minute": {"type": "integer"},
    "max_calls_of_mutating": {"type": "integer"},
    "max_sum": {"type": "decimal"},
    "max_sumx": {"type": "integer"},
}
DECLARED = terms_type({"properties": KINDS, "required": []})


def canonical(text: str, declared: RecordType | None = DECLARED) -> str:
    """Return the canonical text of terms as a gateway writes them."""
    return canonical_terms(declared, parse_object(text.encode()))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("{}", "{}"),
        ('{"name": "\\u00e9\\n", "count": -7}', '{"count":-7,"name":"é\\n"}'),
        ('{"price": 7}', '{"price":7.0}'),
        ('{"price": 70e-1}', '{"price":7.0}'),
        ('{"price": 922337203685477.5807}', '{"price":922337203685477.5807}'),
        ('{"price": -0.0}', '{"price":0.0}'),
        ('{"names": ["b", "a", "b"], "counts": [10, 9, 10]}', '{"counts":[9,10],"names":["a","b"]}'),
        ('{"sure": false, "inner": {"price": 1, "name": ""}}', '{"inner":{"name":"","price":1.0},"sure":false}'),
        ('{"max_calls": 0, "max_sumx": -1}', '{"max_calls":0,"max_sumx":-1}'),
    ],
)
def test_equal_terms_have_one_text(given: str, expected: str) -> None:
    """Sorted keys, sets without order and duplicates, decimals with a fraction; the text of the text is the same."""
    text = canonical(given)

    assert expected == text
    assert text == canonical(text)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ('{"nmae": 1}', "`$`: unknown term: `nmae`; did you mean `name`?"),
        ('{"inner": {"price": 1, "nam": ""}}', "`$.inner`: unknown term: `nam`; did you mean `name`?"),
        ('{"inner": {}}', "`$.inner.price`: is required"),
        ('{"name": 1}', "`$.name`: must be a string"),
        ('{"name": null}', "`$.name`: must be a string"),
        ('{"count": 1.0}', "`$.count`: must be an integer, without fraction and exponent"),
        ('{"count": 9223372036854775808}', "`$.count`: must fit in 64 bits"),
        ('{"price": "1"}', "`$.price`: must be a number"),
        ('{"price": 0.00001}', "`$.price`: must have at most 4 fraction digits"),
        ('{"counts": [1, "x"]}', "`$.counts[*]`: must be an integer, without fraction and exponent"),
        ('{"inner": []}', "`$.inner`: must be an object"),
        ('{"max_calls": -1}', "`$.max_calls`: must not be negative"),
        ('{"max_calls_of_mutating": -1}', "`$.max_calls_of_mutating`: must not be negative"),
        ('{"max_sum": -0.0001}', "`$.max_sum`: must not be negative"),
    ],
)
def test_terms_of_another_type_are_refused(given: str, expected: str) -> None:
    """The problem names the path and the rule, and no value."""
    with pytest.raises(InvalidArgumentsError) as refused:
        canonical(given)

    assert expected == str(refused.value)


def test_a_bundle_without_terms_takes_none() -> None:
    """Without a declaration only the empty object fits."""
    assert "{}" == canonical("{}", None)
    with pytest.raises(InvalidArgumentsError, match="the bundle declares no `type SessionTerms`"):
        canonical('{"name": ""}', None)


def test_a_required_term_must_be_there() -> None:
    """The path names the term that is missing."""
    with pytest.raises(InvalidArgumentsError, match=r"`\$\.name`: is required"):
        canonical("{}", terms_type({"properties": KINDS, "required": ["name"]}))


def test_stored_terms_become_values_of_the_engine() -> None:
    """A decimal keeps every digit."""
    text = '{"names":["a"],"price":922337203685477.5807}'

    assert {
        "names": ["a"],
        "price": {"__extn": {"fn": "decimal", "arg": "922337203685477.5807"}},
    } == cedar_terms(DECLARED, text)


def test_the_sample_holds_every_term() -> None:
    """It fits what is declared, with an element in every set."""
    sample = sample_terms(DECLARED)

    assert KINDS.keys() == sample.keys()
    assert [""] == sample["names"]
    assert canonical_terms(DECLARED, sample)


ABOVE = '{"count": 3, "names": ["a"], "targets": ["a", "b"], "max_calls": 9, "max_sum": 10.5}'


@pytest.mark.parametrize(
    ("own", "wider"),
    [
        ("{}", ""),
        ('{"count": 3, "names": ["a", "a"]}', ""),
        ('{"count": 2}', "count"),
        ('{"names": []}', "names"),
        ('{"price": 1}', "price"),
        ('{"sure": true}', "sure"),
        ('{"targets": []}', ""),
        ('{"targets": ["b"]}', ""),
        ('{"targets": ["b", "a"]}', ""),
        ('{"targets": ["b", "c"]}', "targets"),
        ('{"max_calls": 9}', ""),
        ('{"max_calls": 0}', ""),
        ('{"max_calls": 10}', "max_calls"),
        ('{"max_sum": 10.4999}', ""),
        ('{"max_sum": 10.5001}', "max_sum"),
        ('{"max_sum": 11}', "max_sum"),
        ('{"max_calls_per_minute": 1000}', ""),
        ('{"max_calls_of_mutating": 1000}', ""),
        ('{"max_sumx": 1}', "max_sumx"),
    ],
)
def test_only_reserved_names_can_be_narrowed(own: str, wider: str) -> None:
    """Targets are a subset and numbers are not more; a bound is narrower than none, and a target is more than none."""
    above = canonical(ABOVE)
    terms = canonical_terms(DECLARED, {**read_terms(above), **parse_object(own.encode())})

    found = wider_term(read_terms(terms), read_terms(above))

    assert wider == (found[0] if found else "")


def test_targets_where_there_are_none_above_are_wider() -> None:
    """What nobody named for the parent, the child cannot name."""
    assert ("targets", "must hold only targets of the parent session") == wider_term({"targets": ["a"]}, {})
    assert wider_term({"targets": []}, {}) is None


@pytest.mark.parametrize(
    ("name", "kind", "problem"),
    [
        ("targets", "names", ""),
        ("targets", "counts", "must be a `Set<String>`"),
        ("targets", "name", "must be a `Set<String>`"),
        ("max_calls", "count", ""),
        ("max_calls", "price", "must be a `Long`"),
        ("max_calls_per_minute", "name", "must be a `Long`"),
        ("max_calls_of_mutating", "count", ""),
        ("max_calls_of_mutating", "price", "must be a `Long`"),
        ("max_sum", "count", ""),
        ("max_sum", "price", ""),
        ("max_sum", "counts", "must be a `Long` or a `decimal`"),
        ("max_calls_of_", "name", ""),
        ("max_amount", "name", ""),
    ],
)
def test_reserved_names_have_their_types(name: str, kind: str, problem: str) -> None:
    """Any other name may have any type."""
    (declared,) = terms_type({"properties": {name: KINDS[kind]}}).parameters

    assert problem == reserved_problem(name, declared.type)
