"""What a selector says, and what is refused because it would mean everything or nothing."""

from __future__ import annotations

import pytest

from pdp.audit.values import Selector, Window, listed, selector_of
from pdp.errors import InvalidRequestError


def test_several_selectors_are_one() -> None:
    """Each names its field; a value may hold colons and slashes."""
    texts = ("agent:coder", "tool:git/a/b", "bundle:sha256:abc", "resource:a:b", "pep:gateway", "approver:carol")

    assert Selector(
        agent="coder",
        tool="git/a/b",
        bundle="sha256:abc",
        resource="a:b",
        pep="gateway",
        approver="carol",
    ) == selector_of((*texts, "agent:coder"), window=Window())


@pytest.mark.parametrize(
    ("value", "expected"),
    [(["a", "b,c"], ("a", "b,c")), ("a,b", ("a", "b")), ("", ()), ([], ()), (7, ()), (None, ())],
)
def test_lists_of_old_records_are_read(value: object, expected: tuple[str, ...]) -> None:
    """A record from before lists were recorded holds a text with commas."""
    assert expected == listed({"grants": value}, "grants")
    assert () == listed({}, "grants")


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        (("coder",), "`coder` must have the form `KIND:VALUE`"),
        (("agent:",), "`agent:` must have the form"),
        (("purpose:x",), "`purpose:x` must have the form"),
        (("tool:git",), "`tool:git` must have the form `tool:SERVER/TOOL`"),
        (("agent:a", "agent:b"), "`agent` appears twice"),
        ((), "name at least one"),
    ],
)
def test_what_cannot_be_meant_is_refused(texts: tuple[str, ...], problem: str) -> None:
    """A typing error never becomes a plan for other sessions."""
    with pytest.raises(InvalidRequestError, match=problem):
        selector_of(texts, window=Window())


def test_a_window_alone_is_enough() -> None:
    """Whatever was live in it is meant."""
    assert Selector(window=Window(since_at=1.0)) == selector_of((), window=Window(since_at=1.0))
