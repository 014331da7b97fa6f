"""Arguments in one form: what is equal has equal texts, numbers stay as they were typed, and nothing is rounded."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from contextlib import nullcontext
from decimal import Decimal
from typing import Any

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from pdp.errors import InvalidJSONError
from pdp.foundation.jsontext import canonical, canonical_as_typed, canonical_unchanged, key_paths, parse
from pdp.limits import Limits

DIGITS = "123456789012345678901234567890"


@pytest.mark.parametrize(
    ("texts", "form"),
    [
        (['{"a": 1, "b": [2, 3]}', '{ "b":[2,3],"a":1 }'], '{"a":1,"b":[2,3]}'),
        (['{"b": {"d": 1, "c": 2}, "a": {}}'], '{"a":{},"b":{"c":2,"d":1}}'),
        (['{"B": 1, "a": 2, "é": 3, "z": 4}'], '{"B":1,"a":2,"z":4,"é":3}'),
        (["[true, false, null, [], {}]"], "[true,false,null,[],{}]"),
        (['"h\\u00e9\\/\\n"', '"hé/\\n"'], '"hé/\\n"'),
        (['"\\ud83d\\ude00"', '"😀"'], '"😀"'),
        ([DIGITS], DIGITS),
        ([f"0.{DIGITS}"], f"0.{DIGITS}"),
        (["1"], "1"),
        (["1.0", "10e-1", "10E-1"], "1.0"),
        (["1.00"], "1.00"),
        (["1e0", "1E0", "1e+0", "1e-0"], "1E+0"),
        (["1e2", "1E+2"], "1E+2"),
        (["100.0"], "100.0"),
        (["-0.0"], "-0.0"),
    ],
)
def test_texts_that_say_the_same_have_one_form(texts: list[str], form: str) -> None:
    """Order of keys, blanks and escapes do not matter; the type and the digits of a number do."""
    assert [form] * len(texts) == [canonical_as_typed(parse(text.encode())) for text in texts]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ('{ "b": 1, "a": [true, null, 0.1] }', b'{"a":[true,null,0.1],"b":1}'),
        ("9007199254740991", b"9007199254740991"),
        ("-0", b"0"),
        ("1e+300", b"1e+300"),
        ('"\\u00e4"', b'"\xc3\xa4"'),
    ],
)
def test_what_rfc_8785_leaves_as_it_is_can_be_written_by_it(text: str, written: bytes) -> None:
    """Keys are sorted and blanks are left out; numbers stay what they are."""
    assert written == canonical_unchanged(parse(text.encode()))


@pytest.mark.parametrize(
    "number", ["1.0", "0.10", "-0.0", "1e2", "9007199254740993", "9" * 30, "1e400", "0.1234567890123456789"]
)
def test_a_number_that_rfc_8785_changes_is_refused(number: str) -> None:
    """One with another type or other digits would not be what was asked about."""
    with pytest.raises(InvalidJSONError, match="number"):
        canonical_unchanged(parse(f'{{"a": [{number}]}}'.encode()))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.decimals(allow_nan=False, allow_infinity=False, places=3).map(lambda one: one + Decimal("0.000"))
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


TEXTS = st.text(max_size=4)
# Also what has no canonical form: other integers, infinities, lone surrogates, keys that are no texts.
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**54), 2**54) | st.floats() | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(TEXTS, inner, max_size=3)
        | st.dictionaries(st.integers() | TEXTS, inner, max_size=2)
    ),
    max_leaves=8,
)


@given(ANYTHING)
@example({"b": ['\x00\x1f\x7f"\\/\n', {"\ue000": 1, "\U0001f600": 2}], "a": {"é": 1.0, "z": None}})
@example(["a", {"b": ["\ud800"]}])
@example({"a": {1: 2}})
def test_the_canonical_form_is_that_of_the_library(value: Any) -> None:
    """What is written without it has the same bytes, and what it refuses is refused as it does."""

    def written(write: Callable[[Any], bytes]) -> object:
        try:
            return write(value)
        except rfc8785.CanonicalizationError as error:
            return type(error)

    assert written(rfc8785.dumps) == written(canonical)


def typed(value: Any) -> Any:
    """Return a value with the type of each number and truth value beside it, for which Python has equal values."""
    if isinstance(value, dict):
        return {key: typed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [typed(inner) for inner in value]
    return (type(value).__name__, str(value))


@given(JSON, JSON)
def test_the_form_tells_values_apart(one: Any, other: Any) -> None:
    """Equal forms are of equal values, and it is JSON that is read back as the same value."""
    forms = [canonical_as_typed(value) for value in (one, other)]

    assert (forms[0] == forms[1]) == (typed(one) == typed(other))
    assert typed(one) == typed(json.loads(forms[0], parse_float=Decimal))


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("{}", []),
        ('{"b": 1, "a": {"c": 2}}', [["a"], ["a", "c"], ["b"]]),
        ('{"to": [{"name": 1}, {"name": 2, "more": 3}]}', [["to"], ["to", [], "more"], ["to", [], "name"]]),
        ('{"a": [[{"b": 1}]]}', [["a"], ["a", [], [], "b"]]),
        ('{"a.b": 1, "[]": 2}', [["[]"], ["a.b"]]),
    ],
)
def test_paths_of_keys_hold_no_value(text: str, paths: list[list[object]]) -> None:
    """Lists count as one step, however long they are; a key that looks like a step is not taken for one."""
    found = key_paths(parse(text.encode()))

    assert sorted(paths, key=json.dumps) == sorted(map(json.loads, found), key=json.dumps)
    assert sorted(set(found)) == list(found)


@pytest.mark.parametrize(
    "hostile", [b'{"a":1},', b'"a",', b"[],", b'{"a":' * 30 + b"1" + b"}" * 30 + b",", b"[" * 30 + b"]" * 30 + b","]
)
def test_too_many_values_are_refused_without_memory_for_them(hostile: bytes) -> None:
    """A text of as many bytes is the control: it is read, and takes twice its size."""
    limits = Limits(arguments_bytes=1_000_000, arguments_nodes=1000, string_bytes=1_000_000)
    peaks: list[float] = []
    for text in (b'["' + b"a" * 250_000 + b'"]', b"[" + hostile * (250_000 // len(hostile)) + b"1]"):
        tracemalloc.start()
        with pytest.raises(InvalidJSONError, match="`arguments_nodes`") if peaks else nullcontext():
            parse(text, limits)
        peaks.append(tracemalloc.get_traced_memory()[1] / len(text))
        tracemalloc.stop()

    control, peak = peaks
    assert control > 1.5
    assert peak < 1.5


@pytest.mark.parametrize(
    "text", [b"[1,2,3]", b'{"a":{"b":{"c":1}}}', b"[[[[]]]]", b'{"a":",,,,::::[[[[{{{{"}', b'[":,"]']
)
def test_as_many_values_as_are_allowed_are_read(text: bytes) -> None:
    """However they are counted."""
    assert json.loads(text) == parse(text, Limits(arguments_nodes=4))


DEEP = {"deeper than 32 levels (limit `arguments_depth`)"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"[" * 33 + b"]" * 33, DEEP),
        (b'{"a":' * 33 + b"1" + b"}" * 33, DEEP),
        (b'["\\"' + b"[" * 33, {"not JSON"}),
        (b'["[[]", "\\"", ' + b"[" * 32, DEEP),
        (b'["' + b"[" * 40, {"not JSON"}),
        (b'["' + b'\\"' * 40_000 + b"[" * 40, {"not JSON"}),
        (b'["\\', {"not JSON"}),
        (b"]" * 40 + b"[" * 40, {"not JSON"}),
        (b'["' + b"[" * 40 + b'"]', set()),
        (b"[" * 32 + b"]" * 32, set()),
        (b"[" + b"[]," * 2_000 + b"[]]", set()),
        (b"[" * 17 + b'"[",' * 2_000 + b"[" * 16, DEEP),
        (b"[" * 17 + b'"[",' * 2_000 + b"[" * 15 + b"]" * 32, set()),
    ],
)
def test_depth_is_that_of_brackets_outside_texts(text: bytes, why: set[str]) -> None:
    """Brackets in texts do not count, and a text without an end is refused as one."""
    refused = set()
    try:
        parse(text)
    except InvalidJSONError as error:
        refused = {str(error).partition(" (line")[0]}

    assert why == refused
