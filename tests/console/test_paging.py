"""Lists in pages: all of a list can be reached, and nothing breaks the links."""

from __future__ import annotations

import pytest

from pdp.console.paging import MOST_SHOWN, part_of


def test_every_item_is_on_one_page() -> None:
    """From the first page on by its links, and back."""
    found, path = [*range(2 * MOST_SHOWN + 1)], "/now"
    shown: list[int] = []
    before = []
    while path:
        part = part_of(found, "/now", {"user": "a&b"}, path.partition("page=")[2])
        shown += part.items
        before.append(part.before)
        path = part.after

    assert found == shown
    assert ["", "/now?user=a%26b", "/now?user=a%26b&page=1"] == before
    assert "/now?user=a%26b&page=2&again=1" == part.again


@pytest.mark.parametrize("page", ["", "-1", "1", "99999", "1e3", "\u0661", "x"])
def test_a_page_that_is_not_there_is_the_first(page: str) -> None:
    """A list becomes shorter while somebody reads it."""
    part = part_of([1], "/", {}, page)

    assert ([1], "", "", "/?again=1") == (part.items, part.before, part.after, part.again)
