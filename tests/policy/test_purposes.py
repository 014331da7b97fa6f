"""The purpose of a session names whole words."""

from __future__ import annotations

import pytest

from pdp.foundation.names import name_of
from pdp.policy.purposes import Purpose

PURPOSE = Purpose(
    "Write to emma@x.com.evil.org and Bob@y.com; pay DE89 3704 0044 0532 0130 00 for Emma  Smith's file-12 "
    "(https://x.com/a), call +49 30 1234567 or ask in the channel #general-help. IT is ok."
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bob@Y.com", True),
        ("emma@x.com", False),
        ("emma@x.com.evil.org", True),
        ("y.com", False),
        ("bob", False),
        ("DE89370400440532013000", True),
        ("emma smith", True),
        ("smith", True),
        ("emma", True),
        ("file-12", True),
        ("12", False),
        ("+1234567", False),
        ("+49301234567", True),
        ("+4930123456", False),
        ("https://x.com/a", True),
        ("https://x.com/", False),
        ("x.com", False),
        ("general", False),
        ("it", False),
        ("is ok", True),
    ],
)
def test_a_purpose_names_whole_words(value: str, expected: bool) -> None:  # noqa: FBT001 - a column of the table
    """Nothing that is a part of a longer name, and no single word of fewer than three characters."""
    name = name_of(value, None)

    assert name is not None
    assert expected == PURPOSE.names(name)
