"""Fields that a rule redacts: no result, of whatever shape, hands a redacted value on."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import pytest

from pdp.client.redaction import REDACTED, UnredactableError, redacted
from pdp.foundation.fieldpaths import field_path

CANARY = "canary@example.com"
LIST = [{"name": "Ann", "email": CANARY}, {"name": "Bob", "email": None}, {"name": "Cy"}]
ONE = {"name": "Ann", "email": CANARY}


def text(value: object, **more: object) -> dict[str, Any]:
    """Return a text block of MCP with a value as JSON."""
    return {"type": "text", "text": json.dumps(value), **more}


def cleaned(result: object, *paths: str) -> Any:
    """Redact a result, and check that the canary is gone."""
    found = redacted(result, [field_path(path) for path in paths or ("[].email",)])
    assert CANARY not in (found.decode() if isinstance(found, bytes) else str(found))
    return found


CLEAN_LIST = [{"name": "Ann", "email": REDACTED}, {"name": "Bob", "email": None}, {"name": "Cy"}]
CLEAN_ONE = {"name": "Ann", "email": REDACTED}


@pytest.mark.parametrize(
    ("result", "paths", "expected"),
    [
        (LIST, ("[].email",), CLEAN_LIST),
        (tuple(LIST), ("[].email",), CLEAN_LIST),
        (ONE, ("email",), CLEAN_ONE),
        ([], ("[].email",), []),
        (None, ("[].email",), None),
        ({"users": LIST, "count": 3}, ("users[].email",), {"users": CLEAN_LIST, "count": 3}),
        ({"a": {"b.c": CANARY}}, ('a["b.c"]',), {"a": {"b.c": REDACTED}}),
        ({"tags": [CANARY, "x"]}, ("tags[]",), {"tags": [REDACTED, REDACTED]}),
        ({"email": {"work": [CANARY, 7]}}, ("email",), {"email": REDACTED}),
        ([[ONE], []], ("[][].email",), [[CLEAN_ONE], []]),
        ({"a": CANARY, "b": "secret-b"}, ("a", "b"), {"a": REDACTED, "b": REDACTED}),
        ({"a": {"b": CANARY}}, ("a", "a.b"), {"a": REDACTED}),
        ({"a": {"b": CANARY}}, ("a.b", "a"), {"a": REDACTED}),
        ({"pin": 1234, "ok": True, "n": 1}, ("pin",), {"pin": REDACTED, "ok": True, "n": 1}),
    ],
)
def test_a_field_is_replaced_at_its_path(result: object, paths: tuple[str, ...], expected: object) -> None:
    """The rest of the value is as it was."""
    assert expected == cleaned(result, *paths)


def test_what_a_tool_returned_is_left_alone() -> None:
    """The redacted value is a copy."""
    result = {"users": [dict(ONE)]}

    cleaned(result, "users[].email")

    assert {"users": [ONE]} == result


def test_text_and_bytes_are_redacted_as_json() -> None:
    """They stay text and bytes, and are written anew: whatever else stood in them is gone."""
    twice = f'{{"email": "{CANARY}", "email": "other", "n": 1}}'

    assert CLEAN_LIST == json.loads(cleaned(json.dumps(LIST)))
    assert CLEAN_LIST == json.loads(cleaned(json.dumps(LIST).encode()))
    assert {"email": REDACTED, "n": 1} == json.loads(cleaned(twice, "email"))
    assert '{"email": "[redacted]", "who": "Zoë"}' == cleaned(f'{{"email": "{CANARY}", "who": "Zo\\u00eb"}}', "email")


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"content": [text(LIST)]}, {"content": [text(CLEAN_LIST)]}),
        ({"content": [text(ONE), text(ONE)]}, {"content": [text(CLEAN_ONE), text(CLEAN_ONE)]}),
        (
            {"content": [text(LIST)], "structuredContent": {"result": LIST}, "isError": False},
            {"content": [text(CLEAN_LIST)], "structuredContent": {"result": CLEAN_LIST}, "isError": False},
        ),
        ({"structuredContent": {"result": ONE}}, {"structuredContent": {"result": CLEAN_ONE}}),
        ({"content": []}, {"content": []}),
        # What stands beside a text or a result can repeat it.
        (
            {"content": [text(ONE, annotations={"for": CANARY})], "_meta": {"email": CANARY}},
            {"content": [text(CLEAN_ONE)]},
        ),
    ],
)
def test_results_of_mcp_are_redacted_in_every_part(result: object, expected: object) -> None:
    """Both forms in which servers return lists fit a path that begins with `[]`."""
    assert expected == cleaned(result)


@pytest.mark.parametrize(
    ("result", "path"),
    [
        # Not JSON.
        (f"Ann <{CANARY}>", "[].email"),
        (f'{{"email": "{CANARY}"', "email"),
        (f'{{"email": "{CANARY}", "n": NaN}}', "email"),
        (CANARY.encode() + b"\xff", "email"),
        (bytearray(json.dumps(ONE).encode()), "email"),
        ({"email": CANARY, "n": math.inf}, "email"),
        ({"email": CANARY, 7: "x"}, "email"),
        ({"email": CANARY, "when": object()}, "email"),
        ({CANARY}, "[].email"),
        ((one for one in LIST), "[].email"),
        (iter(LIST), "[].email"),
        ({"email": CANARY, "n": 10**5000}, "email"),
        # Another shape than the path.
        (LIST, "email"),
        (ONE, "[].email"),
        ({"data": LIST}, "[].email"),
        ([CANARY], "[].email"),
        (json.dumps(CANARY), "email"),
        (CANARY, "email"),
        (7, "email"),
        ({"user": CANARY}, "user.email"),
        ({"user": [ONE]}, "user.email"),
        ({"user": {"email": CANARY}}, "email"),
        ({"Email": CANARY}, "email"),
        ({"raw": json.dumps(ONE)}, "email"),
        ({"raw": json.dumps(json.dumps(ONE))}, "email"),
        ({"user": {"mail": {"email": CANARY}}}, "user.email"),
        # Parts of MCP that are no JSON.
        ({"content": [{"type": "text", "text": f"mail {CANARY}"}]}, "email"),
        ({"content": [text(ONE), {"type": "image", "data": CANARY, "mimeType": "image/png"}]}, "email"),
        ({"content": [{"type": "resource", "resource": {"uri": "x://y", "text": json.dumps(ONE)}}]}, "email"),
        ({"content": [{"type": "text"}]}, "email"),
        ({"content": [{"type": "text", "text": CANARY}], "isError": True}, "email"),
        ({"content": [text(ONE)], "structuredContent": {"users": LIST}}, "email"),
        ({"content": [text(ONE)], "other": 1}, "email"),
        ([text(ONE)], "[].email"),
        (json.dumps({"content": [text(ONE)]}), "email"),
        # The value is a name.
        ({"email": CANARY, CANARY: 1}, "email"),
        ({"email": CANARY, "by": {f"to {CANARY}": 1}}, "email"),
    ],
)
def test_what_cannot_be_redacted_with_certainty_is_withheld(result: object, path: str) -> None:
    """The message says why, and holds no value."""
    with pytest.raises(UnredactableError) as raised:
        redacted(result, [field_path(path)])

    assert CANARY not in str(raised.value)
    assert str(raised.value).isprintable()


def test_a_deep_value_is_withheld() -> None:
    """Instead of an error of the interpreter."""
    deep: Any = ONE
    for _ in range(100_000):
        deep = [deep]

    with pytest.raises(UnredactableError):
        redacted(deep, [field_path("email")])


def test_an_object_that_is_no_plain_value_is_withheld() -> None:
    """Its attributes are seen by nobody, and its own idea of JSON may differ."""

    @dataclass
    class User:
        email: str = CANARY

    class Liar(dict[str, str]):
        """A mapping that shows nothing and is printed whole."""

        def items(self) -> Any:
            """Hide everything."""
            return ()

    for result in (User(), [User()], Liar(email=CANARY), [Liar(email=CANARY)]):
        with pytest.raises(UnredactableError):
            redacted(result, [field_path("[].email")])


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"email": CANARY, "note": f"write to {CANARY.upper()}!"}, f"write to {REDACTED}!"),
        ({"email": CANARY, "note": CANARY}, REDACTED),
        ({"email": 40718, "note": "card 40718"}, f"card {REDACTED}"),
        ({"email": 40718, "note": 40718.0}, REDACTED),
        ({"email": "40718", "note": 40718}, REDACTED),
        ({"email": ["deep", {"x": CANARY}], "note": [CANARY]}, [REDACTED]),
        ({"email": "abc", "note": "abc is short"}, "abc is short"),
        ({"email": "", "note": "whole"}, "whole"),
        ({"email": True, "note": "True"}, "True"),
    ],
)
def test_a_redacted_value_is_blanked_wherever_it_is(result: object, expected: object) -> None:
    """In another field too, in any case; a value below four characters stands for too much."""
    assert {"email": REDACTED, "note": expected} == cleaned(result, "email")


def test_a_redacted_value_of_one_part_is_blanked_in_another() -> None:
    """A text of MCP can say in words what the structured content holds in the field."""
    result = {"content": [text({"email": None, "said": f"I wrote to {CANARY}"})], "structuredContent": ONE}

    assert {
        "content": [text({"email": None, "said": f"I wrote to {REDACTED}"})],
        "structuredContent": CLEAN_ONE,
    } == cleaned(result, "email")


def test_what_takes_too_long_is_withheld() -> None:
    """The search is bounded, and never skipped."""
    many = [{"email": f"user{number}@example.com", "note": "x" * 100} for number in range(3000)]
    repeated = [{"email": f"user{number}@example.com", "note": f"to user{number}@example.com"} for number in range(300)]

    for result in (many * 4, repeated):
        with pytest.raises(UnredactableError):
            redacted(result, [field_path("[].email")])
