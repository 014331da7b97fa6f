"""What a result holds: which values are taken from it, which an agent has only asked for, and in which time."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from time import process_time
from typing import Any

import pytest

from pdp.client.asked import MOST_ASKED
from pdp.client.reading import MOST_CHARACTERS, MOST_VALUES, NOTHING_HELD, read_result
from pdp.client.values import ResultReading
from pdp.foundation.names import KINDS, name_of
from pdp.foundation.valuedigests import MOST_DIGESTS, value_digest
from tests.machinery.nearmisses import TEXTS, near_misses

KEY = b"k" * 32
IBAN = "DE89 3704 0044 0532 0130 00"


def reading(
    *, trusted: bool = True, issues: tuple[str, ...] = (), kinds: tuple[str, ...] = (), arguments: Any = None
) -> ResultReading:
    """Return how a result is read, of a call with some arguments."""
    text = json.dumps(arguments if arguments is not None else {}).encode()
    return ResultReading(key=KEY, trusted=trusted, issues=issues, kinds=kinds, arguments_json=text)


def among(digests: Sequence[bytes], value: str, kind: str | None = None) -> bool:
    """Return whether digests hold one of a value."""
    name = name_of(value, kind)
    return name is not None and value_digest(KEY, name) in digests


def message(*texts: str, **more: Any) -> dict[str, Any]:
    """Return a result of MCP with some texts."""
    return {"content": [{"type": "text", "text": text} for text in texts], **more}


@pytest.mark.parametrize(
    ("result", "values"),
    [
        ({"mail": "ann@x.com", "deep": [{"id": "file_1", "n": 42}]}, ["ann@x.com", "file_1", "42"]),
        (["Book Club", ("general",)], ["Book Club", "general"]),
        ('{"mail": "ann@x.com"}', ["ann@x.com"]),
        (b'["ann@x.com"]', ["ann@x.com"]),
        ("ann@x.com", ["ann@x.com"]),
        (b"ann@x.com\nBook Club", ["ann@x.com", "Book Club"]),
        ("Write to Ann <ann@x.com>, please.", ["ann@x.com"]),
        ("(see https://wiki.x.com/plan).", ["https://wiki.x.com/plan"]),
        ("[plan](https://wiki.x.com/plan)", ["https://wiki.x.com/plan"]),
        (f"Pay 10 to {IBAN}, today.", [IBAN]),
        ("Pay to DE89370400440532013000.", [IBAN]),
        ("name: Book Club\nid: 'file_1'", ["Book Club", "file_1", "name: Book Club"]),
        ("- Book Club\n* general\n2. random\n - owner: Ann Lee", ["Book Club", "general", "random", "Ann Lee"]),
        ({"body": "Mail of ann@x.com\nfile: file_1"}, ["ann@x.com", "file_1"]),
        (message("ann@x.com", '{"id": "file_1"}'), ["ann@x.com", "file_1"]),
        (message(structuredContent={"result": [{"id": "file_1"}]}), ["file_1"]),
        (
            {"content": [{"type": "resource", "resource": {"uri": "https://x.com/a", "text": "Book Club"}}]},
            ["https://x.com/a", "Book Club"],
        ),
    ],
)
def test_values_are_found(result: Any, values: list[str]) -> None:
    """Every leaf of what has a structure; of texts lines, what is behind a key or the mark of an item, and tokens."""
    held = read_result(reading(), result)

    assert [] == [one for one in values if not among(held.others, one)]
    assert () == held.issued


@pytest.mark.parametrize(
    ("result", "values"),
    [
        ({"ann@x.com": "value"}, ["ann@x.com"]),
        (["ab", "", True, None, 1.5], ["ab", "True", "true", "1.5", "1"]),
        ("write to bob or to the Book Club", ["bob", "Book Club", "the"]),
        ("see emma@x.com.evil.org", ["emma@x.com"]),
        ("DE89 3704 0044 0532 0130 00 11", [IBAN]),
        ("XDE89370400440532013000", [IBAN]),
        ("ann\u200b@x.com and \u0430nn@x.com", ["ann@x.com"]),
        (message("ann@x.com", isError=True), ["ann@x.com"]),
        (message("ann@x.com", isError="true"), ["ann@x.com"]),
        (message("ann@x.com", isError=1), ["ann@x.com"]),
        (b"\xff ann@x.com", ["ann@x.com"]),
        (iter(["ann@x.com"]), ["ann@x.com"]),
        (object(), ["object"]),
        (None, ["None"]),
        ("x" * MOST_CHARACTERS + "\nann@x.com", ["ann@x.com"]),
        ([10**5000, "ann@x.com"], ["ann@x.com"]),
    ],
)
def test_other_values_are_not_found(result: Any, values: list[str]) -> None:
    """Names of fields, words of a text, parts of longer names, short values, and results that cannot be read."""
    held = read_result(reading(), result)

    assert [] == [one for one in values if among(held.others, one)]


@pytest.mark.parametrize("kind", [None, *KINDS])
@pytest.mark.parametrize(
    "shaped", [list, "\n".join, lambda all_: message(*all_), lambda all_: "".join(f"- name: {one}\n" for one in all_)]
)
def test_no_near_miss_is_held(shaped: Any, kind: str | None) -> None:
    """Look-alikes, moved separators, sub-domains, plus-addresses, other schemes and ports of what a result holds."""
    held = read_result(reading(kinds=tuple(KINDS), issues=("[]",)), shaped(TEXTS))
    misses = near_misses()

    assert all(among(held.others + held.issued, one) for one in TEXTS)
    assert len(set(misses)) >= 200
    # As texts, values differ only in more than their case.
    same = set(map(str.lower, TEXTS)) if kind == "text" else set()
    assert [] == [one for one in misses if among(held.others + held.issued, one, kind) and one.lower() not in same]


@pytest.mark.parametrize(
    ("arguments", "result"),
    [
        ({"query": "eve@x.com"}, "No contact found for eve@x.com."),
        ({"query": "EVE@X.com"}, {"echo": "eve@x.com"}),
        ({"query": "find eve@x.com please"}, ["eve@x.com"]),
        ({"query": {"deep": ["eve@x.com"]}}, ["eve@x.com"]),
        ({"eve@x.com": True}, ["eve@x.com"]),
        ({"query": "xeve@x.com.org"}, ["eve@x.com"]),
        ({"query": "eve%40x.com"}, ["eve@x.com"]),
        ({"query": "eve&#64;x.com"}, ["eve@x.com"]),
        ({"query": '{"a": "eve\\u0040x.com"}'}, ["eve@x.com"]),
        ({"query": "mailto:eve@x.com"}, ["eve@x.com"]),
    ],
)
def test_what_was_asked_for_is_not_clean(arguments: Any, result: Any) -> None:
    """A tool that repeats what it was asked makes nothing clean; one that strangers write to is read as it is."""
    trusted, others = (read_result(reading(trusted=one, arguments=arguments), result) for one in (True, False))

    assert not among(trusted.others, "eve@x.com")
    assert among(others.others, "eve@x.com")


@pytest.mark.parametrize(
    ("asked", "answered", "expected"),
    [
        ("https://evil.com/a", "https://evil.com/a", False),
        ("evil.com/a", "https://evil.com/a", False),
        ("https://evil.com:443/a", "https://evil.com/a", False),
        ("http://evil.com", "https://evil.com/", False),
        ("https://evil.com/a", "https://good.com/a", True),
        ("DE89370400440532013000", IBAN, False),
        (IBAN, "DE89370400440532013000", False),
        ("book  club", "Book Club", False),
        ("Ann", "ann@x.com", True),
        (42, "42", False),
        (1042, "file_1042", True),
    ],
)
def test_what_was_asked_for_is_known_in_other_spellings(asked: Any, answered: str, expected: bool) -> None:  # noqa: FBT001 - a column of the table
    """In another case or spacing, with another scheme; a longer value that holds what was asked for is another one."""
    held = read_result(reading(arguments={"query": asked}), [answered])

    assert expected == among(held.others, answered)


@pytest.mark.parametrize(
    ("path", "result", "issued"),
    [
        ("id", {"id": "e1", "title": "Plan"}, ["e1"]),
        ("[].id_", [{"id_": 7}, {"id_": "8"}, {"other": 9}], ["7", "8"]),
        ("[].id_", {"id_": 7}, ["7"]),
        ("[].id_", {"result": [{"id_": 7}]}, ["7"]),
        ("files[].id", '{"files": [{"id": "f1"}]}', ["f1"]),
        ("id", message('{"id": "e1"}'), ["e1"]),
        ("id", message("Done", structuredContent={"id": "e1"}), ["e1"]),
        ("id", {"title": {"id": "e1"}}, []),
        ("id", [{"id": "e1"}], []),
        ("[].id", [[{"id": "e1"}]], []),
        ("id", {"id": ["e1"]}, []),
        ("title", {"title": '{"title": "e1"}'}, ['{"title": "e1"}']),
        ("id", "id: e1", []),
        ("id", message("of a mail", '{"id": "e1"}'), []),
        ("id", message('{"id": "e2"}', structuredContent={"title": "Plan"}), []),
        ("..", {"id": "e1"}, []),
    ],
)
def test_only_named_fields_issue(path: str, result: Any, issued: list[str]) -> None:
    """Exactly at the path, never a word of a text, and no text that only looks like the result of the tool."""
    held = read_result(reading(issues=(path,)), result)

    assert {value_digest(KEY, name) for name in map(name_of, issued, [None] * len(issued)) if name} == set(held.issued)


EVE = "eve@evil.com"


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ({"name": "eve", "host": "evil.com"}, EVE),
        (["evil.com", "eve"], EVE),
        ("\uff45\uff56\uff45\uff20\uff45\uff56\uff49\uff4c\uff0e\uff43\uff4f\uff4d", EVE),
        ("eve\u200b@ev\u00adil.com", EVE),
        ("\u00e9ve@\u00e9vil.com", EVE),
        ("eve@evil.com\u017f", "eve@evil.coms"),
        ("%2565ve%2540%2565vil.com", EVE),
        ("%26%23101%3Bve@evil.com", EVE),
        ('["[\\"\\\\u0065ve@evil.com\\"]"]', EVE),
        ("\\u0065ve@evil.com", EVE),
        ("=65ve@evil.com", EVE),
        ("ZXZlQGV2aWwuY29t", EVE),
        ("657665406576696c2e636f6d", EVE),
        ("evil.com", "https://www.evil.com/"),
        ("https://evil.com/a b", "https://evil.com/a%20b"),
        ("https://evil.com/a?b=1&c=2", "https://evil.com/a?b=1&amp;c=2"),
        ("https://evil.com/a", "https://evil.com/a?utm_source=x"),
        ("https://\u00e9vil.com/", "https://xn--vil-9la.com/"),
        ("eve@\u00e9vil.com", "eve@xn--vil-9la.com"),
        ("DE89.3704.0044.0532.0130.00", IBAN),
        ({"account": "0532013000", "country": "DE", "bank": "37040044"}, IBAN),
        ("0170 12.34.567", "+491701234567"),
        (1e22, "10000000000000000000000"),
        (42, "0042"),
        ("1,234,567", "1234567"),
        ("club, book", "Book Club"),
    ],
)
def test_what_was_asked_for_is_known_however_a_tool_changes_it(asked: Any, answered: str) -> None:
    """In parts, with other letters or separators, coded once or twice, and written as links and accounts are."""
    told = reading(arguments={"query": asked}, kinds=("text", "id"))
    held = read_result(told, [answered, "zoe@y.com"])

    assert name_of(answered, None)
    assert [] == [kind for kind in (None, "text", "id") if among(held.others, answered, kind)]
    assert among(held.others, "zoe@y.com")


@pytest.mark.parametrize(
    ("asked", "issued"),
    [("e_1", False), ("E_1 ", False), ("e_0,e_1", False), ("https://x.com/e_1?a=b", False), ("like e_10", True)],
)
@pytest.mark.parametrize("trusted", [True, False])
def test_an_id_that_the_call_held_is_not_issued_by_it(asked: str, *, issued: bool, trusted: bool) -> None:
    """Otherwise an agent gets any id issued by calling a tool that returns what it was asked about."""
    held = read_result(reading(trusted=trusted, issues=("id",), arguments={"id": asked}), {"id": "e_1"})

    assert issued == among(held.issued, "e_1")


def test_ids_are_issued_by_calls_with_long_arguments_too() -> None:
    """As of a file that is written; but not what these hold."""
    told = reading(issues=("[].id",), arguments={"text": "x " * MOST_ASKED, "id": "e_2"})
    held = read_result(told, [{"id": "e_1"}, {"id": "e_2"}])

    assert [True, False] == [among(held.issued, one) for one in ("e_1", "e_2")]


def test_a_text_that_is_cut_issues_nothing() -> None:
    """Only the whole text of a result is the result."""
    for texts in (['{"id": "e_1"}\n' + "x" * MOST_CHARACTERS, "more"], ['{"id": "e_1"}\n' + "x" * MOST_CHARACTERS]):
        assert () == read_result(reading(issues=("id",)), message(*texts)).issued


@pytest.mark.parametrize(
    "make",
    [
        lambda: [[]] * 3_000_000,
        lambda: [{"other": 1}] * 3_000_000,
        lambda: [{"id": one} for one in range(300_000)],
        lambda: message(*[json.dumps(["ab"] * 40_000)] * 300),
        lambda: message(structuredContent={"a": [10**4000] * MOST_VALUES}),
        lambda: "[" * MOST_CHARACTERS,
    ],
    ids=["empty", "other", "ids", "texts", "numbers", "deep"],
)
def test_a_huge_result_takes_little_time(make: Callable[[], Any]) -> None:
    """Whatever it is made of: a result has no limit of its own."""
    result = make()

    started = process_time()
    held = read_result(reading(issues=("[].id", "[][].id"), kinds=tuple(KINDS)), result)

    assert process_time() - started < 2
    assert len(held.issued) + len(held.others) <= MOST_DIGESTS


def test_a_value_has_a_digest_for_each_kind_that_is_compared() -> None:
    """Beside that of its shape; a kind that a newer server knows is left out."""
    held = read_result(reading(kinds=("iban", "id", "colour")), ["US133000000121212121212"])

    assert [True, True, False] == [
        among(held.others, "US133000000121212121212", kind) for kind in ("iban", "id", "text")
    ]
    assert 2 == len(held.others)


def test_the_number_of_digests_is_bounded() -> None:
    """Of ids that are issued first, then of leaves; the rest is unseen."""
    held = read_result(reading(issues=("[].id",)), [{"id": f"i{one}", "mail": f"m{one}@x.com"} for one in range(1500)])

    assert (1500, MOST_DIGESTS - 1500) == (len(held.issued), len(held.others))
    assert among(held.others, "m0@x.com")
    assert len({*held.issued, *held.others}) == MOST_DIGESTS


def test_nothing_is_clean_of_a_call_with_long_arguments() -> None:
    """Each value is looked for in them; of another tool it is only tainted."""
    arguments = {"text": "x" * MOST_ASKED}

    assert NOTHING_HELD == read_result(reading(arguments=arguments), ["ann@x.com"])
    assert among(read_result(reading(trusted=False, arguments=arguments), ["ann@x.com"]).others, "ann@x.com")


@pytest.mark.parametrize("arguments", [b"{", b'{"n": 1' + b"0" * 5000 + b"}", b"\xff"])
def test_nothing_is_clean_of_a_call_whose_arguments_cannot_be_read(arguments: bytes) -> None:
    """What they held is not known."""
    told = ResultReading(key=KEY, trusted=True, issues=(), kinds=(), arguments_json=arguments)

    assert NOTHING_HELD == read_result(told, ["ann@x.com"])


@pytest.mark.parametrize(
    "part", ["a.", "a: b\n", "\u00e9 \u0436 ", "DE89 ", "a@a.de ", "- a: b@c.de\n", "\n", "[", '{"a":']
)
def test_large_results_take_little_time(part: str) -> None:
    """As texts, as leaves, and as both in many small pieces."""
    text = part * (MOST_CHARACTERS // len(part))
    started = process_time()
    for result in (
        text,
        [text] * 9,
        [f"{part}{one}" for one in range(50_000)],
        {"a": {f"{one}": part for one in range(9999)}},
    ):
        read_result(reading(kinds=tuple(KINDS), arguments={"q": part * 3000 if len(part) < 5 else part}), result)

    assert process_time() - started < 10


def test_a_reading_is_no_part_of_what_is_shown() -> None:
    """The key is a secret, and the arguments are the agent's."""
    assert "kkkk" not in repr(reading())
