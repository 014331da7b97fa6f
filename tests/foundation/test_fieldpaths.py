"""Paths to fields of a JSON value."""

from __future__ import annotations

import pytest

from pdp.foundation.fieldpaths import LONGEST_PATH, field_path, last_name


@pytest.mark.parametrize(
    ("text", "path", "last"),
    [
        ("email", ("email",), "email"),
        ("user.iban", ("user", "iban"), "iban"),
        ("[].email", (None, "email"), "email"),
        ("users[].addresses[].street", ("users", None, "addresses", None, "street"), "street"),
        ("tags[]", ("tags", None), "tags"),
        ("[]", (None,), None),
        ("[][].x", (None, None, "x"), "x"),
        ('["first.name"]', ("first.name",), "first.name"),
        ('user["a b"]["c\\"d"].e-f', ("user", "a b", 'c"d', "e-f"), "e-f"),
        ("名前", ("名前",), "名前"),
    ],
)
def test_paths(text: str, path: tuple[str | None, ...], last: str | None) -> None:
    """A path is names, and `[]` for every element."""
    assert (path, last) == (field_path(text), last_name(field_path(text)))


@pytest.mark.parametrize(
    "text",
    ["", ".a", "a.", "a..b", "a.[]", "[]a", "a b", "a[0]", "a[*]", "a['b']", '["b', '["\\x"]', "a" * 257, "$.a["],
)
def test_what_is_no_path(text: str) -> None:
    """Anything else is refused, since a path that leads elsewhere protects nothing."""
    with pytest.raises(ValueError, match=r"path|name in quotes"):
        field_path(text)


def test_a_path_is_as_long_as_it_may_be() -> None:
    """The bound itself is a path."""
    assert ("a" * LONGEST_PATH,) == field_path("a" * LONGEST_PATH)
