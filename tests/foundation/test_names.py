"""What a call names outside: its kinds, and that nothing which only looks alike is taken for the same."""

from __future__ import annotations

from itertools import product
from time import process_time

import pytest

from pdp.foundation.names import KINDS, Name, kind_of, links, name_of
from tests.machinery.nearmisses import TEXTS, near_misses


@pytest.mark.parametrize(
    ("value", "kind", "form"),
    [
        ("Emma.Johnson@Company.COM", "address", "emma.johnson@company.com"),
        ("j\u00f6rg@b\u00fccher.de", "address", "j\u00f6rg@b\u00fccher.de"),
        ("https://X.com:443/a/../b?q#f", "url", "https://x.com/a/../b?q#f"),
        ("HTTP://x.com", "url", "http://x.com/"),
        ("https://x.com?q=A", "url", "https://x.com/?q=A"),
        ("https://x.com:08443/", "url", "https://x.com:8443/"),
        ("x.com", "url", "://x.com/"),
        ("www.X.com/A", "url", "://www.x.com/A"),
        ("DE89 3704 0044 0532 0130 00", "iban", "DE89370400440532013000"),
        ("DE89-3704-0044-0532-0130-00", "iban", "DE89370400440532013000"),
        ("+49 30-123 456", "phone", "+4930123456"),
        ("File_12", "id", "File_12"),
        ("DE89370400440532013001", "id", "DE89370400440532013001"),
        ("2024-05-15", "id", "2024-05-15"),
        ("Book \n Club", None, ""),
        ("Book   CLUB", "text", "book club"),
        (" Book Club", None, ""),
        ("general", "text", "general"),
        ("Cafe\u0301", "text", "caf\u00e9"),
        ("\u6771\u4eac\u30bf\u30ef\u30fc", "text", "\u6771\u4eac\u30bf\u30ef\u30fc"),
        ("", None, ""),
        ("x" * 2049, None, ""),
        ("\u0430lice", None, ""),
    ],
)
def test_the_shape_of_a_value_gives_its_kind(value: str, kind: str | None, form: str) -> None:
    """Address, URL, account, phone number, id and text: each has one canonical form, or none."""
    assert (None if kind is None else Name(kind, form)) == name_of(value, None)


@pytest.mark.parametrize(
    ("kind", "value", "form"),
    [
        ("address", "Emma <emma@x.com>", None),
        ("address", "a@x.com, b@y.com", None),
        ("address", "a@b@c.com", None),
        ("address", "x.com", None),
        ("url", "https://known.com@evil.com/", None),
        ("url", "https://known.com:p@evil.com/", None),
        ("url", "https://known.com:443@evil.com/", None),
        ("url", "https://known.com\\.evil.com/", None),
        ("url", "https:///x", None),
        ("url", "https://x.com:port/", None),
        ("url", "https://[::1]/", None),
        ("url", "javascript:alert", None),
        ("url", "just text", None),
        ("iban", "US133000000121212121212", "US133000000121212121212"),
        ("iban", "12", None),
        ("phone", "030 123456", "030123456"),
        ("phone", "(030) 123456", None),
        ("id", "A b", "A b"),
        ("text", "A  b", "a b"),
    ],
)
def test_a_stated_kind_decides(kind: str, value: str, form: str | None) -> None:
    """The author's word goes before the shape; what does not fit the kind equals nothing."""
    assert (None if form is None else Name(kind, form)) == name_of(value, kind)


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_no_near_miss_is_taken_for_a_known_value(kind: str | None) -> None:
    """Look-alikes, moved separators, sub-domains, plus-addresses, other schemes and ports: all are others."""
    misses = near_misses()
    known = {name_of(text, one) for text, one in product(TEXTS, KINDS)} - {None}

    assert len(set(misses)) >= 200
    # As texts, values differ only in more than their case.
    folded = set(map(str.lower, TEXTS)) if kind == "text" else set()
    assert {one for one in misses if one.isascii() and one.lower() in folded} == {
        one for one in misses if name_of(one, kind) in known
    }


@pytest.mark.parametrize("miss", ["Emma.Johnson@company.com", "https://WIKI.example.com:443/plan?page=2", "book  club"])
def test_another_spelling_is_the_same(miss: str) -> None:
    """The case of an address and of a host, the usual port, and runs of blanks make no difference."""
    assert name_of(miss, None) in {name_of(text, None) for text in TEXTS}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("See you. Best e.g. at 12:30, re: the plan", []),
        ("https://x.com/a.", ["https://x.com/a"]),
        ("[plan](https://x.com/a)!", ["https://x.com/a"]),
        ("[https://x.com](https://y.com)", ["https://x.com/", "https://y.com/"]),
        ('<a href="https://x.com/a">here</a>', ["https://x.com/a"]),
        ("<https://x.com/a>", ["https://x.com/a"]),
        ("(www.x.com)", ["://www.x.com/"]),
        ("at x.com, y.org", ["://x.com/", "://y.org/"]),
        ("mailto:A@x.com", ["a@x.com"]),
        ("mailto:a@x.com?cc=b@y.com", [None]),
        ("ask a@x.com", ["a@x.com"]),
        ("javascript:alert", [None]),
        ("tel:+4930", [None]),
        ("[x]: //x.com/a", [None]),
        ("e\u200bvil.c\u200dom", [None]),
        ("evil\u3002com", [None]),
        ("https://x.com/a(b)", [None]),
        ("https://x.com/a,b", [None]),
        ("https://x.com|y", [None]),
        ("https://x.com@y.com", [None]),
        ("done.Next", ["://done.next/"]),
    ],
)
def test_links_are_found(text: str, expected: list[str | None]) -> None:
    """In plain text, in Markdown and behind invisible characters; those whose end cannot be told equal nothing."""
    assert expected == [one and one.text for one in links(text)]


@pytest.mark.parametrize("part", ["a.", "a:", "(a.", "a@a.", "www.", "\u200b.a", "//a"])
def test_long_texts_take_little_time(part: str) -> None:
    """A text of the most characters that an argument can have is read in a fraction of a second."""
    text = part * (32768 // len(part))
    started = process_time()
    found = list(links(text))

    assert process_time() - started < 1
    assert len(found) <= len(text)


def test_every_kind_can_be_told_by_a_shape() -> None:
    """No kind is only for authors."""
    assert set(KINDS) == set(map(kind_of, TEXTS))
