"""Fields that a rule redacts: no result, of whatever shape, hands a redacted value on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from mcp import types

from pdp.client.blanking import REDACTED, UnredactableError
from pdp.client.redaction import redacted
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
        # The name of the field may be elsewhere where no element could have been meant.
        ([ONE, {"contact": {"email": None}}], ("[].email",), [CLEAN_ONE, {"contact": {"email": None}}]),
        ([ONE, {"emails": 2}, None], ("[].email",), [CLEAN_ONE, {"emails": 2}, None]),
        (
            {"users": LIST, "by": {"email": "me@here"}},
            ("users[].email",),
            {"users": CLEAN_LIST, "by": {"email": "me@here"}},
        ),
        ({"email": CANARY, "EMAIL": None}, ("email",), {"email": REDACTED, "EMAIL": None}),
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
        ({"content": [text(ONE)], "resultType": "complete"}, {"content": [text(CLEAN_ONE)]}),
        ({"content": [text(ONE)], "isError": True}, {"content": [text(CLEAN_ONE)], "isError": True}),
        ({"content": [text(ONE)], "isError": CANARY}, {"content": [text(CLEAN_ONE)], "isError": False}),
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


def test_a_path_may_begin_with_the_name_in_which_servers_wrap_results() -> None:
    """It then means that name, and not one within."""
    result = {"content": [], "structuredContent": {"result": {"email": CANARY}}}

    assert {"content": [], "structuredContent": {"result": {"email": REDACTED}}} == cleaned(result, "result.email")


@pytest.mark.parametrize("others", [{}, {"structured_content": {"result": [ONE, {"age": None}]}}])
def test_a_result_of_the_sdk_stays_one(others: dict[str, Any]) -> None:
    """It is redacted as what is sent for it, without what could repeat a value."""
    block = types.TextContent(type="text", text=json.dumps(LIST), _meta={"for": CANARY})
    result = types.CallToolResult(content=[block], _meta={"for": CANARY}, **others)

    found = cleaned(result)

    assert type(found) is types.CallToolResult
    assert [json.dumps(CLEAN_LIST)] == [one.text for one in found.content if isinstance(one, types.TextContent)]
    assert found.structured_content == ({"result": [CLEAN_ONE, {"age": None}]} if others else None)


@pytest.mark.parametrize(
    "content",
    [
        types.ImageContent(type="image", data=CANARY, mime_type="image/png"),
        types.TextContent(type="text", text=f"mail {CANARY}"),
        types.EmbeddedResource(type="resource", resource=types.TextResourceContents(uri="x://y", text=json.dumps(ONE))),
    ],
    ids=["image", "words", "resource"],
)
def test_a_result_of_the_sdk_that_is_no_json_is_withheld(content: Any) -> None:
    """As it is where it is sent."""
    with pytest.raises(UnredactableError) as raised:
        redacted(types.CallToolResult(content=[content]), [field_path("[].email")])

    assert CANARY not in str(raised.value)


class Dumped:
    """An object of a class like those of the SDK, with its own idea of how it is sent and of what fits."""

    def __init__(self, sent: object) -> None:
        self.sent = sent

    def model_dump(self, **_: object) -> object:
        """Return the object as it is sent."""
        if isinstance(self.sent, Exception):
            raise self.sent
        return self.sent

    @classmethod
    def model_validate(cls, value: dict[str, Any]) -> Dumped:
        """Take texts alone."""
        if "structuredContent" in value:
            raise LookupError(CANARY)
        return cls(value)


def test_the_class_of_a_result_need_not_be_known() -> None:
    """Each version of the SDK has others, which have their way to and from JSON in common."""
    found = cleaned(Dumped({"content": [text(ONE)], "resultType": "complete"}), "email")

    assert type(found) is Dumped
    assert {"content": [text(CLEAN_ONE)]} == found.sent


@pytest.mark.parametrize(
    "sent",
    [
        ONE,
        [ONE],
        {"email": CANARY, "content": []},
        {"content": [text(ONE)], "resultType": "input_required"},
        {"content": [text(ONE)], "structuredContent": ONE},
        LookupError(CANARY),
    ],
)
def test_an_object_that_is_no_result_of_mcp_is_withheld(sent: object) -> None:
    """So is one that cannot be read, or made again from what is redacted."""
    with pytest.raises(UnredactableError) as raised:
        redacted(Dumped(sent), [field_path("email")])

    assert CANARY not in str(raised.value)
    assert raised.value.__cause__ is None


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
        # One element fits the path, and another has the field elsewhere.
        ([{"email": "a@x.com"}, {"contact": {"email": CANARY}}], "[].email"),
        ([{"contact": {"email": CANARY}}, {"email": "a@x.com"}], "[].email"),
        ([{"email": "a@x.com"}, {"Email": CANARY}], "[].email"),
        ([{"email": "a@x.com"}, {"raw": json.dumps(ONE)}], "[].email"),
        ([{"email": "a@x.com"}, {"email": None, "raw": json.dumps(ONE)}], "[].email"),
        ({"users": [{"email": "a@x.com"}, {"by": [ONE]}]}, "users[].email"),
        ([{"users": [{"email": "a@x.com"}]}, {"people": [ONE]}], "[].users[].email"),
        ([[{"email": "a@x.com"}], [{"by": ONE}]], "[][].email"),
        ({"content": [text([{"email": "a@x.com"}, {"by": ONE}])]}, "[].email"),
        # The field is there twice, in two spellings.
        ({"email": "a@x.com", "Email": CANARY}, "email"),
        ({"email": None, "EMAIL": CANARY}, "email"),
        ({"users": [{"email": "a@x.com"}], "Users": LIST}, "users[].email"),
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
        ({"email": {CANARY: {}}, "counts": {CANARY: 3}}, "email"),
        # The search could not tell one text from the next.
        ({"email": f"{CANARY}\0", "x": 1}, "email"),
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
        ({"email": f" {CANARY}\n", "note": f"to {CANARY}, now"}, f"to {REDACTED}, now"),
        ({"email": "  ab\n", "note": "ab  ab"}, "ab  ab"),
        ({"email": CANARY, "note": f"{CANARY}\n"}, REDACTED),
        ({"email": [CANARY, "canary"], "note": f"canary, {CANARY}"}, f"{REDACTED}, {REDACTED}"),
        ({"email": ["abcdef", "defghi"], "note": "xabcdefghix"}, f"x{REDACTED}x"),
        ({"email": ["abcd", "efgh"], "note": "abcdefgh abcd"}, f"{REDACTED} {REDACTED}"),
        ({"email": ["abcdefg", "bcde"], "note": "abcdefgh"}, f"{REDACTED}h"),
        ({"email": "abab", "note": "abababab"}, REDACTED),
        # Letters that are two without case, and signs that are letters.
        ({"email": "Strasse 5", "note": "die STRAẞE 5, ẞ"}, f"die {REDACTED}, ẞ"),
        ({"email": "Straße 5", "note": "ßß strasse 5 ß"}, f"ßß {REDACTED} ß"),
        ({"email": "sabc", "note": "xßabcß"}, f"x{REDACTED}ß"),
        ({"email": "273 K", "note": "at 273 \N{KELVIN SIGN}."}, f"at {REDACTED}."),
        # Names, unless they look like those of fields.
        ({"email": {CANARY: {}}, "note": f"{CANARY} did"}, f"{REDACTED} did"),
        ({"email": [{"a": {"id-40718": 1}}], "note": "see id-40718"}, f"see {REDACTED}"),
        ({"email": {"zoë": 1}, "note": "Zoë did"}, "Zoë did"),
        ({"email": {"andré": 1}, "note": "André did"}, f"{REDACTED} did"),
        ({"email": {"street": "Elm Row", "post-code": 1}, "note": "street, post-code"}, "street, post-code"),
    ],
)
def test_a_redacted_value_is_blanked_wherever_it_is(result: object, expected: object) -> None:
    """In another field too, in any case; a value below four characters stands for too much."""
    assert {"email": REDACTED, "note": expected} == cleaned(result, "email")


@pytest.mark.parametrize("number", ["12345678901234567890.123", "0.12345678901234567890", "-1.50", "4E+4", "1.5E0"])
def test_a_number_is_blanked_with_all_its_digits(number: str) -> None:
    """A text may repeat more of them than a number keeps, and zeros that it does not need."""
    found = redacted(f'{{"email": {number}, "same": {number}, "note": "is {number.lower()}!"}}', [field_path("email")])

    assert {"email": REDACTED, "same": REDACTED, "note": f"is {REDACTED}!"} == json.loads(found)


def test_a_value_that_begins_another_does_not_leave_its_end() -> None:
    """However the two are ordered."""
    people = [("anna", "anna@example.com"), ("anna@example.com", "anna")]

    for one, other in people:
        found = cleaned({"a": one, "b": other, "note": "to Anna@example.com"}, "a", "b")
        assert {"a": REDACTED, "b": REDACTED, "note": f"to {REDACTED}"} == found


def test_a_redacted_value_of_one_part_is_blanked_in_another() -> None:
    """A text of MCP can say in words what the structured content holds in the field."""
    result = {"content": [text({"email": None, "said": f"I wrote to {CANARY}"})], "structuredContent": ONE}

    assert {
        "content": [text({"email": None, "said": f"I wrote to {REDACTED}"})],
        "structuredContent": CLEAN_ONE,
    } == cleaned(result, "email")


@pytest.mark.parametrize(
    "make",
    [
        lambda: [{"email": f"user{number}@example.com", "note": f"{number} {'x' * 100}"} for number in range(12_000)],
        # Few values in a long text, and many in a short one, when each value is nearly found everywhere.
        lambda: [{"email": "a" * number + "b", "note": "a" * 200_000} for number in range(4, 1000)],
        lambda: [{"email": f"{number}" + "a" * 99, "note": "a" * 9_000} for number in range(10_000)],
        # What is found costs work too.
        lambda: {"email": "aaaa", "note": "aaaab" * 250_000},
        lambda: {"email": ["a" * number for number in range(4, 500)], "note": "a" * 200_000},
    ],
    ids=["large", "long", "many", "found often", "found in each other"],
)
def test_what_takes_too_long_is_withheld(make: Callable[[], object]) -> None:
    """The search is bounded, and never skipped."""
    result = make()

    with pytest.raises(UnredactableError, match=r"too large to be searched|too often"):
        redacted(result, [field_path("[].email" if type(result) is list else "email")])


def test_texts_that_nearly_hold_each_value_are_searched() -> None:
    """The work of the search depends on no tool's choice of texts, so what fits the bound is searched."""
    emails = ["a" * number + "b" for number in range(4, 204)]

    found = redacted({"email": emails, "note": "a" * 200_000, "to": " ".join(emails)}, [field_path("email")])

    assert {"email": REDACTED, "note": "a" * 200_000, "to": " ".join([REDACTED] * 200)} == found


def test_a_text_is_searched_once() -> None:
    """A large result that repeats its texts is not too large."""
    rows = [{"email": f"user{number}@example.com", "note": "the same" * 10} for number in range(12_000)]

    found = redacted(rows, [field_path("[].email")])

    assert [{"email": REDACTED, "note": "the same" * 10}] * 12_000 == found
