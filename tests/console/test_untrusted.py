"""What others wrote is only ever text: no string of theirs adds an element or an attribute, or hides what it is."""

from __future__ import annotations

import itertools
from html.parser import HTMLParser

import pytest

from pdp.console.pages import quoted, said
from pdp.v1.session_pb2 import Session
from tests.console.filled import filled, pages
from tests.console.strings import STRINGS

# A person sees each of these as an escape.
_UNSEEN = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c\u200b\u2028\u2029\x00\x1b\x7f\u2800"


class _Elements(HTMLParser):
    """The elements of a page with the names of their attributes, and those values that decide what a browser does."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, ...]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        kept = [f"{name}={value}" if name in ("class", "action", "src", "rel") else name for name, value in attrs]
        assert all(not name.startswith("on") and name != "style" for name, _ in attrs)
        for name, value in attrs:
            # A value of others that leads somewhere is a part of a path or a query of the console.
            assert name not in ("href", "action", "src") or (value or "").startswith(("/", "#"))
            assert name not in ("href", "action", "src") or not (value or "").startswith(("//", "/\\"))
        self.found.append((tag, *kept))


def elements(page: str) -> list[tuple[str, ...]]:
    """Return the elements of a page."""
    parser = _Elements()
    parser.feed(page)
    parser.close()
    return parser.found


Elements = dict[str, list[tuple[str, ...]]]


@pytest.fixture(scope="module")
def harmless() -> Elements:
    """Return the elements of each page that shows a harmless word."""
    return {name: elements(page) for name, page in pages("word").items()}


@pytest.mark.parametrize("text", STRINGS, ids=itertools.count())
def test_no_string_becomes_anything_but_text(harmless: Elements, text: str) -> None:
    """In every field of every page, the elements and their attributes are those of a harmless word."""
    found = {name: elements(page) for name, page in pages(text).items()}

    assert harmless == found


def test_there_are_enough_strings() -> None:
    """Each once."""
    assert len(set(STRINGS)) == len(STRINGS) >= 60


@pytest.mark.parametrize("character", _UNSEEN)
def test_what_draws_nothing_is_shown(character: str) -> None:
    """A character that hides or moves others is an escape, in a line and in a block, and only a line break is kept."""
    for shown in (said(f"a{character}b"), quoted(f"a{character}b")):
        assert character not in shown
        assert "\\" in shown
    assert "a\nb" in quoted("a\r\nb")


def test_the_text_of_others_is_isolated() -> None:
    """Words that are read from right to left do not turn what is beside them."""
    assert "<bdi>\u05d0</bdi>" == said("\u05d0")
    assert quoted("\u05d0").startswith('<bdi class="quoted" dir="auto">')


def test_every_page_shows_the_text() -> None:
    """What this file fills in is what the pages show: a text is on each of them."""
    for name, page in pages("Aardvark").items():
        assert "Aardvark" in page, name
    assert "Aardvark" == filled(Session(), "Aardvark").purpose
