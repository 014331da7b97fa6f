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


# What a person or a program could take for the repository, or for a part of its name.
NEAR_ACME_SHOP = (
    *("acme", "shop", "shop/acme", "acme/acme", "acme/", "/shop", "/acme/shop", "acme/shop/", "acme//shop"),
    *(
        "acme/shop2",
        "acme/shops",
        "acme/sho",
        "acme/shop.git",
        "acme/shop-x",
        "acme/shop/tree",
        "cme/shop",
        "x/acme/shop",
    ),
    *("acme.shop", "acme-shop", "acme_shop", "acme shop", "acme / shop", "acme\\shop", "acme%2fshop", "acme:shop"),
    *("acmeshop", "@acme/shop", "acme@shop", "acme/shop@main", "acme/shop#3", "acme/./shop", "acme/../shop", "acme/*"),
    *("\u0430cme/shop", "acme/sh\u043ep", "acme\u2215shop", "acme\uff0fshop", "acme\u200b/shop", "acme/shop\u200b"),
    *("\uff41cme/shop", "acme/\u017fhop", "https://acme/shop", "github.com/acme/shop", "acme/shop ", " acme/shop"),
)


@pytest.mark.parametrize("purpose", ["Fix issue 3 in acme/shop", "In acme/shop: fix issue 3.", "(acme/shop) issue 3"])
@pytest.mark.parametrize("kind", [None, "text", "id"])
def test_a_repository_is_named_as_a_whole(purpose: str, kind: str | None) -> None:
    """By owner and name together, and by nothing that is like it, nor by one of the two."""
    found = [
        value
        for value in ("acme/shop", *NEAR_ACME_SHOP)
        if (name := name_of(value, kind)) and Purpose(purpose).names(name)
    ]

    assert ["acme/shop"] == found
