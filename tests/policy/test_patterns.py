"""Tool patterns: what they match, held against another matcher, and in how many steps."""

from __future__ import annotations

import re
import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.policy.patterns import ToolPatterns, pattern_problem

# Few letters, so that pieces overlap and repeat.
WORDS = st.text(alphabet="ab/", max_size=12)
PATTERNS = st.text(alphabet="ab*/", max_size=10)


def matches(pattern: str, action: str) -> bool:
    """Say by definition whether a pattern matches: each `*` is any text."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), action, re.DOTALL) is not None


@given(patterns=st.lists(PATTERNS, max_size=4), action=WORDS)
def test_patterns_match_what_they_say(patterns: list[str], action: str) -> None:
    """A set of patterns matches exactly what one of them matches by definition."""
    assert any(matches(one, action) for one in patterns) == ToolPatterns(tuple(patterns)).match(action)


@pytest.mark.parametrize(
    ("pattern", "action", "expected"),
    [
        ("s/a*a", "s/a", False),
        ("s/a*a", "s/aa", True),
        ("s/*", "s/", True),
        ("s/*", "S/x", False),
        ("s/**", "s/x", True),
        ("s/a.c", "s/abc", False),
        ("s/*é*", "s/caféine", True),
        ("s/*\n*", "s/a\nb", True),
        ("s/get_*", "s/get_", True),
        ("s/*_x*x", "s/a_x", False),
    ],
)
def test_some_patterns(pattern: str, action: str, *, expected: bool) -> None:
    """Pieces do not overlap, `*` may stand for nothing, and nothing else is special."""
    assert expected == ToolPatterns((pattern,)).match(action)


def test_an_empty_set_matches_nothing() -> None:
    """Without a pattern there is nothing that matches."""
    assert not ToolPatterns(()).match("s/x")


def test_matching_takes_few_steps_whatever_the_pattern() -> None:
    """64 patterns full of `*` on a long name of one letter take as many searches as they have pieces, and no more."""
    patterns = ToolPatterns(tuple(f"s/{'a*' * 60}{place:02}b" for place in range(64)))
    searches = 0

    def count(_frame: FrameType, event: str, argument: Any) -> None:
        nonlocal searches
        searches += event == "c_call" and argument.__name__ == "find"

    sys.setprofile(count)
    try:
        matched = patterns.match("s/" + "a" * 128)
    finally:
        sys.setprofile(None)

    assert not matched
    assert 0 < searches <= 64 * 60


@pytest.mark.parametrize("pattern", ["*", "s", "s/", "s*/x", "/x", "s/\x1b", "s/" + "x" * 129])
def test_what_is_no_pattern(pattern: str) -> None:
    """The server part is literal, the tool part is there, printable and no longer than a tool's name."""
    assert pattern_problem(pattern) is not None
