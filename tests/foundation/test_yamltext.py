"""The YAML that people write is read strictly, with the line of each key and of each problem."""

from __future__ import annotations

import pytest

from pdp.errors import BundleError
from pdp.foundation.yamltext import Section, load_section


def test_a_file_is_read_with_its_lines() -> None:
    """Plain mappings, lists and scalars have their values, and each key its line."""
    section = load_section("f", b'\n# people\nusers:\n  ada: {groups: [staff, 7]}\n"on": !!str 1\nempty:\nlast: 1.5\n')

    assert {"users": {"ada": {"groups": ["staff", 7]}}, "on": "1", "empty": None, "last": 1.5} == section
    assert {"users": 3, "on": 5, "empty": 6, "last": 7} == section.lines
    users = section["users"]
    assert isinstance(users, Section)
    assert (4, {"ada": 4}) == (users.line, users.lines)


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"\n\n"])
def test_an_empty_file_is_an_empty_mapping(content: bytes) -> None:
    """A file without a document has no keys."""
    assert {} == load_section("f", content)


def test_times_are_text_where_that_is_asked_for() -> None:
    """Without quotes a time is a problem, unless the reader wants its text."""
    assert {"at": "2026-01-05T10:00:00Z"} == load_section("f", b"at: 2026-01-05T10:00:00Z", times_as_text=True)
    assert "f:1: dates and binary values must be in quotes" == problem(b"at: 2026-01-05T10:00:00Z")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a: 1\nb: \xff", "f:2: not UTF-8"),
        (b"a: 1\nb: [1,\n", "f:3: not YAML: did not find expected node content"),
        (
            b'a: 1\nb: "c\nd: 1\n',
            "f:4: not YAML: found unexpected end of stream, while scanning a quoted scalar that begins in line 2",
        ),
        (b"a: 1\nb: c: d\n", "f:2: not YAML: mapping values are not allowed in this context"),
        ("# ä\na: \x1b[31m".encode(), "f:2: not YAML: control characters are not allowed"),
        (b"- 1\n", "f:1: must be a mapping"),
        (b"a: 1\n---\nb: 2\n", "f:2: not YAML: expected a single document"),
        (b"a: 1\nb: &x 2\nc: *x\n", "f:3: aliases are not allowed"),
        (b"a: &x b\n*x : c\n", "f:2: a key must be a string; put it in quotes"),
        (b"a: *nothing\n", "f:1: aliases are not allowed"),
        (b"a: 1\nb: !thing 2\n", "f:2: tags are not allowed"),
        (b"a: !thing {b: c}\n", "f:1: tags are not allowed"),
        (b"!thing a: b\n", "f:1: not a plain value"),
        (b"a: 1\n\na: 2\n", "f:3: key `a` appears twice"),
        (b"1: a\n", "f:1: a key must be a string; put it in quotes"),
        (b"? [a]\n: b\n", "f:1: a key must be a string; put it in quotes"),
        (b"a: 1\nb: " + b"9" * 65, "f:2: a long value must be in quotes"),
        (b"a: " + b"[" * 17 + b"]" * 17, "f:1: deeper than 16 levels"),
        (b"a: " + b"[" * 1000000, "f:1: not YAML: exceeded maximum nesting depth"),
        (b"a:\n" + b"".join(b" " * depth + b"-\n" for depth in range(1, 19)), "f:18: deeper than 16 levels"),
        (b"%YAML 1.1\n---\na: 1\n", "f:1: a line must not begin with `%`: directives are not allowed"),
        # The parser would compare each of them with all before it.
        (b"a: 1\n...\n" + b"%TAG ! x\n" * 9, "f:3: a line must not begin with `%`: directives are not allowed"),
    ],
)
def test_what_is_no_plain_yaml_is_a_problem_with_its_line(content: bytes, expected: str) -> None:
    """Everything else than plain values is refused, with the line that it is in."""
    assert expected == problem(content)


def test_as_deep_as_allowed_is_read() -> None:
    """Sixteen levels are no problem."""
    section = load_section("f", b"a: " + b"[" * 16 + b"]" * 16)

    deep = section["a"]
    for _ in range(15):
        (deep,) = deep
    assert [] == deep


def problem(content: bytes) -> str:
    """Return the one problem of a file."""
    with pytest.raises(BundleError) as caught:
        load_section("f", content)
    (only,) = caught.value.problems
    return str(only)
