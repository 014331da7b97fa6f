"""Strict JSON: it is refused with a rule, or read as Python's own reader reads it, and its digest is stable."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from pdp.errors import InvalidJSONError
from pdp.foundation.jsontext import _with_doubles, canonical, definition_digest, parse

WORDS = ("null", "true", "1e5", "-0", "\\ud800", "\\u0000", "__entity", "NaN", "1E400", "9007199254740993", '"":', "[[")
SEEDS = (
    b"{}",
    b'{"a": [1, 1.0, 1e0, true, "1"], "b": {"c": null}}',
    b'{"a": 1, "a": 2}',
    b'{"__entity": {"type": "User", "id": "a"}}',
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
    b'"\\ud800"',
    b"123456789012345678901234567890.5e-400",
    b"NaN",
    b'{"": "\\u202e\\\\\\""}',
    b"\xff\xfe{}",
)


def run(data: bytes) -> None:
    """Read some bytes as JSON."""
    try:
        value = parse(data)
    except InvalidJSONError as error:
        assert str(error).isprintable()
        return
    assert _typed(json.loads(data.decode("utf-8"), parse_float=Decimal)) == _typed(value)
    definition = {"inputSchema": value}
    try:
        digest = definition_digest(definition)
    except InvalidJSONError:
        return
    again = json.loads(canonical(_with_doubles(definition)))
    assert digest == definition_digest(again)


def _typed(value: Any) -> object:
    """Return a value in which equal parts have equal types."""
    if isinstance(value, dict):
        return {key: _typed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_typed(inner) for inner in value]
    return type(value).__name__, str(value)
