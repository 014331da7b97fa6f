"""Names of one list that people cannot tell apart."""

from __future__ import annotations

import pytest

from pdp.policy.lint.lookalikes import twins


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("caf\u00e9", "cafe\u0301"),
        ("read file", "read\u00a0file"),
        ("read file", "read  file"),
        ("list_all", "Iist_aII"),
        ("v1", "vl"),
        ("s0rt", "sort"),
        ("getFile", "getfile"),
        ("copy", "\u0441\u043e\u0440\u0443"),
        ("\ufb01nd", "find"),
    ],
)
def test_twins(one: str, other: str) -> None:
    """Composed and decomposed letters, blanks, letters of one shape, and case make no other name for people."""
    assert [(one, other)] == list(twins(["unrelated", one, "other", other]))


def test_names_that_people_tell_apart() -> None:
    """Names that differ in a letter are different names."""
    assert [] == list(twins(["get_issue", "get_issues", "git_diff", "git_diff_staged", "read", "reads", "a1", "a2"]))
