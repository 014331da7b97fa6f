"""The canonical form of arguments: one for all who parse the same, and none for what they could read differently."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from pdp.calltokens.canonical import arguments_digest, canonical
from pdp.calltokens.refusals import CallTokenRefusedError
from tests.machinery.calltokens import VALUES


@given(VALUES)
def test_the_form_is_that_of_the_library(value: Any) -> None:
    """What the PDP writes with a library, a tool server writes with this module."""
    assert rfc8785.dumps(value) == canonical(value)


@given(st.binary(min_size=8, max_size=8).map(lambda raw: struct.unpack("<d", raw)[0]).filter(math.isfinite))
def test_every_double_is_written_as_by_the_library(number: float) -> None:
    """Also those near the ends of the range."""
    assert rfc8785.dumps(number) == canonical(number)


@pytest.mark.parametrize(
    ("texts", "same"),
    [
        (['{"a":1}', '{"a":1.0}', '{"a":1e0}', '{"a":10e-1}'], True),
        (['{"a":100}', '{"a":1e2}', '{ "a" : 1E+2 }'], True),
        (['{"a":"\\u00e9"}', '{"a":"é"}'], True),
        (['{"a":"e\\u0301"}', '{"a":"é"}'], False),
        (['{"a":0}', '{"a":-0.0}'], True),
        (['{"a":"1"}', '{"a":1}'], False),
        (['{"a":null}', "{}"], False),
        (["", "{}"], True),
    ],
)
def test_spellings_of_the_same_value(texts: list[str], same: bool) -> None:  # noqa: FBT001 - a column
    """Numbers count as doubles, and texts by their characters."""
    assert same is (len({arguments_digest(text.encode(), b"") for text in texts}) == 1)


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":2}',
        '{"a":9007199254740993}',
        '{"a":0.1000000000000000055}',
        '{"a":1e400}',
        '{"a":1e-%s}' % ("5" * 40),
        '{"a":NaN}',
        '{"a":"\\ud800"}',
        '{"\\ud800":1}',
        "[1]",
        "{",
        '{"a":' + "[" * 300 + "]" * 300 + "}",
        '{"a":' + "[" * 100_000 + "}",
        '{"a":' + "9" * 5000 + "}",
    ],
)
def test_what_could_be_read_differently_has_no_form(text: str) -> None:
    """It is refused, whoever asks."""
    with pytest.raises(CallTokenRefusedError):
        arguments_digest(text.encode(), b"")
