"""How a call becomes the resource that it is about."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pdp.errors import InvalidArgumentsError
from pdp.policy.tools.mapping import ResourceMapping, map_resource, split_template

TEMPLATES = ["{a}/{b}", "{a}::{b}", "{a}aba{b}", "x{a}-{b}x", "{a}--{b}/{c}", "{a}", "aa{a}", "{a}aa", "{a}\n{b}"]


@dataclass(frozen=True)
class MappedTool:
    """As much of a tool as the mapping looks at."""

    server: str = "github"
    mapping: ResourceMapping | None = None


def mapping(template: str, **canonical: str) -> ResourceMapping:
    """Return the mapping of a template."""
    literals, fields = split_template(template)
    return ResourceMapping(type="Thing", literals=literals, fields=fields, canonical=canonical)


def test_without_a_mapping_the_server_is_the_resource() -> None:
    """A tool that maps nothing is about its server, whatever the arguments say."""
    assert map_resource(MappedTool(), {"server": "other"}) == ("Server", "github")


def test_template() -> None:
    """The placeholders are replaced by the arguments and everything else stays."""
    tool = MappedTool(mapping=mapping("repo:{owner}/{repo}!"))

    assert map_resource(tool, {"repo": "b", "owner": "Ä\0", "more": 1}) == ("Thing", "repo:Ä\0/b!")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"a": "x/y", "b": "z"}, "parameter `a`: holds text that separates the parts of the resource's id"),
        ({"a": "x", "b": "/"}, "parameter `b`: holds text that separates the parts of the resource's id"),
        ({"a": "", "b": "z"}, "parameter `a`: must be a string that is not empty, it names the resource"),
        ({"a": 5, "b": "z"}, "parameter `a`: must be a string that is not empty, it names the resource"),
        ({"a": "x"}, "parameter `b`: must be a string that is not empty, it names the resource"),
        ({"a": "x" * 1000, "b": "y" * 24}, "the resource's id would be longer than 1024 characters"),
    ],
)
def test_refused_values(arguments: dict[str, object], problem: str) -> None:
    """A value that would blur the id is refused by parameter and rule, without the value."""
    with pytest.raises(InvalidArgumentsError) as refusal:
        mapping("{a}/{b}").id(arguments)

    assert str(refusal.value) == problem


def test_longest_id() -> None:
    """The limit counts code points and includes its own value."""
    assert len(mapping("{a}/{b}").id({"a": "\U0001f600" * 1000, "b": "y" * 23})) == 1024


@given(st.sampled_from(TEMPLATES), st.data())
def test_injective(template: str, data: st.DataObject) -> None:
    """Two calls whose placeholders differ never get one id."""
    thing = mapping(template)
    values = st.fixed_dictionaries({name: st.text("ab:-/x\n", min_size=1, max_size=4) for name in thing.fields})
    first, second = data.draw(values), data.draw(values)
    assume(first != second)
    try:
        ids = (thing.id(first), thing.id(second))
    except InvalidArgumentsError:
        assume(condition=False)

    assert ids[0] != ids[1]


def test_injective_in_every_small_case() -> None:
    """The same without chance, where a separator overlaps itself."""
    words = [a + b + c for a in ("", "a", ":") for b in ("", "a", ":") for c in ("a", ":")]
    for template in ("{a}::{b}", "{a}:a:{b}"):
        thing, seen = mapping(template), dict[str, tuple[str, str]]()
        for pair in {(a, b) for a in words for b in words}:
            try:
                found = thing.id({"a": pair[0], "b": pair[1]})
            except InvalidArgumentsError:
                continue
            assert seen.setdefault(found, pair) == pair
        assert len(seen) > 20


def test_unicode_is_never_normalised() -> None:
    """Composed and decomposed characters stay different."""
    assert mapping("{a}").id({"a": "\u00e9"}) != mapping("{a}").id({"a": "e\u0301"})


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Octo-Cat", "octo-cat"),
        ("ÄÖ日本", "äö日本"),
        ("\u0130", None),  # grows when it is lowered
        ("\u0131", None),  # dotless i: upper case I
        ("\u212a", None),  # Kelvin: lower case k
        ("\u017f", None),  # long s: upper case S
        ("\u0391\u03a3", "\u03b1\u03c3"),  # `str.lower` of the whole would make the sigma a final one
        ("\u03b1\u03c2", None),  # a final sigma is a sigma to whoever ignores case
        ("stra\u00dfe", None),
        ("\u01c5", None),  # title case
    ],
)
def test_lower(written: str, expected: str | None) -> None:
    """`lower` takes characters whose case is a clean pair, each by itself."""
    thing = mapping("{a}", a="lower")
    if expected is None:
        with pytest.raises(InvalidArgumentsError, match="ambiguous"):
            thing.id({"a": written})
    else:
        assert thing.id({"a": written}) == expected


def test_lower_makes_pairs_only() -> None:
    """No three characters share a lower form, and none of the taken ones meets another in any comparison."""
    thing, meet = mapping("{a}", a="lower"), dict[str, set[str]]()
    cased = (one for one in map(chr, range(sys.maxunicode + 1)) if not one == one.upper() == one.casefold())
    for character in cased:
        try:
            meet.setdefault(thing.id({"a": character}), set()).add(character)
        except InvalidArgumentsError:
            continue

    assert len(meet) > 1000
    assert all(len(found) <= 2 for found in meet.values())
    assert all(
        len({one.casefold() for one in found}) == len({one.upper() for one in found}) == 1 for found in meet.values()
    )


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("/a/b", "/a/b"),
        ("//a///b/", "/a/b"),
        ("/a/./b/.", "/a/b"),
        ("/a/x/../b", "/a/b"),
        ("a/b", "a/b"),
        ("./a", "a"),
        (".", "."),
        ("a/..", "."),
        ("/", "/"),
        ("/.", "/"),
        ("...", "..."),
        ("a b/ü", "a b/ü"),
        ("..", None),
        ("a/../..", None),
        ("/..", None),
        ("/a/../../b", None),
        ("/a\0b", None),
    ],
)
def test_path(written: str, expected: str | None) -> None:
    """`path` gives one path one name, and refuses what leads above its root."""
    thing = mapping("{a}", a="path")
    if expected is None:
        with pytest.raises(InvalidArgumentsError, match="`a`"):
            thing.id({"a": written})
    else:
        assert thing.id({"a": written}) == expected
        assert thing.id({"a": expected}) == expected


@pytest.mark.parametrize(
    ("written", "found"), [("/srv//a/./b/", "/srv/a/b"), ("/a/../b", "/b"), ("/", "/"), ("//", "/")]
)
def test_absolute_paths_have_one_form(written: str, found: str) -> None:
    """The form is that of `path`."""
    assert found == mapping("{a}", a="absolute-path").id({"a": written})


@pytest.mark.parametrize("written", ["srv/a", "./srv", "../srv", ".", "~/a", " /srv", "C:/srv"])
def test_relative_paths_are_refused_where_paths_are_absolute(written: str) -> None:
    """A second name for the same thing would dodge a forbid by its id."""
    with pytest.raises(InvalidArgumentsError, match="absolute path"):
        mapping("{a}", a="absolute-path").id({"a": written})


def test_separators_are_looked_for_after_the_canonical_form() -> None:
    """A separator that only the canonical form brings to light is refused too."""
    with pytest.raises(InvalidArgumentsError, match="separates"):
        mapping("{a}x{b}", a="lower").id({"a": "aX", "b": "b"})


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{a}{b}", "two parameters need text between them, else different calls would get one id"),
        ("{a}/{a}", "names a parameter twice"),
        ("owner/repo", "names no parameter; write `{parameter}`"),
        ("", "names no parameter; write `{parameter}`"),
        ("{a}}", "a brace without its partner"),
        ("{{a}", "a brace without its partner"),
    ],
)
def test_bad_templates(template: str, problem: str) -> None:
    """A template that could not be injective, or names nothing, is refused."""
    with pytest.raises(ValueError, match=r".") as refusal:
        split_template(template)

    assert str(refusal.value) == problem
