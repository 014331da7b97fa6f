"""Lists in pages: all of a list can be reached, nothing breaks the links, and no party pushes others out."""

from __future__ import annotations

import pytest

from pdp.console.paging import MOST_SHOWN, part_of, shares_of
from pdp.testing.inprocess import running_server
from tests.console.desk import CALLERS, console, files, live, requested


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


def test_a_share_is_the_first_page_of_a_party() -> None:
    """All of the others stays, in its order."""
    found = ["a", *["b"] * (MOST_SHOWN + 2), "c", "a"]

    kept, left_out = shares_of(found, str)

    assert ["a", *["b"] * MOST_SHOWN, "c", "a"] == kept
    assert {"b": 2} == left_out


def test_who_asks_much_pushes_nothing_of_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """More waits of one agent and user than is read at a time: what others ask is there, and the rest behind a link."""
    monkeypatch.setattr("pdp.console.waiting._AT_ONCE", 10)
    with running_server(files(), callers=CALLERS) as server, console(server) as world:
        first, _ = requested(server, user="bob")
        # Of what is asked at one moment, the order is that of random ids.
        server.clock.advance(1.0)
        for _ in range(MOST_SHOWN + 2):
            requested(server)
        person = world.person()
        person.open("/")
        assert f"Waiting for a person {MOST_SHOWN + 3}" in person.words
        assert first in person.text
        person.open(person.leads("2 more requests"))
        assert first not in person.text
        assert f"Waiting for a person {MOST_SHOWN + 2}" in person.words
        person.open(person.leads("Later"))
        assert 2 == person.text.count("data-key")
        person.open("/?user=bob&agent=nobody")

    assert "Nothing waits of user bob and agent nobody." in person.words


def test_a_list_that_was_not_read_whole_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that names a user or an agent finds what is missing in it."""
    monkeypatch.setattr("pdp.console.waiting.MOST_READ", 2)
    monkeypatch.setattr("pdp.console.now._MOST_READ", 2)
    with running_server(files(), callers=CALLERS) as server, console(server) as world:
        pushed_out = requested(server, user="bob")[0], live(server, user="bob")[0]
        server.clock.advance(1.0)
        for _ in range(2):
            requested(server)
            live(server)
        person, seen = world.person(), []
        notes = "what is older may be missing", "the newest 2"
        for path, said, one in zip(("/", "/now"), notes, pushed_out, strict=True):
            person.open(path)
            assert said in person.words
            assert one not in person.text
            person.open(f"{path}?user=bob")
            seen.append(one in person.text)

    assert [True, True] == seen
