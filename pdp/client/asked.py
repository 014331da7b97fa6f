"""Tell which values of a result the arguments of its call held: an agent must not make a name good by asking for it.

Tools change what they repeat: case and separators, accents, percent signs, the parts of a name. So a value counts as
held when all its words are anywhere in the arguments, as they are written or decoded. Letters and digits are compared
without case, accents and what is invisible.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from base64 import urlsafe_b64decode
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import unquote_plus

from pdp.foundation.names import Name, name_of

# Of a call with longer arguments, nothing is clean: each value is looked for in them.
MOST_ASKED: Final = 16 * 1024
# How often what was decoded is decoded again, and how much all of that may be.
_ROUNDS: Final = 4
_MOST_DECODED: Final = 4 * MOST_ASKED
# A word can be put together from a few parts, if these have so many characters on average.
_MOST_PARTS: Final = 8
_PART: Final = 4
# What follows the country and the check digits of an account, and the end of a phone number, with any prefix.
_OF_AN_ACCOUNT: Final = 4
_OF_A_PHONE: Final = 7

_ESCAPED: Final = re.compile(r"\\u([0-9A-Fa-f]{4})|(?:\\x|=)([0-9A-Fa-f]{2})")
_CODED: Final = re.compile(r"[A-Za-z0-9+/_-]{6,}")
_HEX: Final = re.compile(r"(?:[0-9A-Fa-f]{2}){3,}")
_ENDS: Final = re.compile(r"[\s,;|\"'`()\[\]{}<>/?&=#]+")
_AFTER_A_HOST: Final = re.compile("[/?#:]")
_NO_WORD: Final = re.compile(r"[\W_]+")


class Asked:
    """What the arguments of a call held. Raise `ValueError` where they cannot be read."""

    def __init__(self, arguments_json: bytes) -> None:
        texts = list(_texts(json.loads(arguments_json or b"{}")))
        self._named = {_unpadded(_plain(part)) for text in texts for part in (text, *_ENDS.split(text))}
        decoded = _decoded(texts) if len(arguments_json) <= MOST_ASKED else None
        self._letters = None if decoded is None else "".join(map(_plain, decoded))

    def named(self, name: Name) -> bool:
        """Return whether an argument, or one between commas or in a path, is the name: the call did not bring it."""
        return _unpadded(_plain(name.text)) in self._named

    def held(self, name: Name) -> bool:
        """Return whether the arguments held all words of a name; so it is where they are too long to tell."""
        return self._letters is None or any(self._hold(words) for words in _readings(name))

    def _hold(self, words: Sequence[str]) -> bool:
        return all(self._holds(_unpadded(word)) for word in words)

    def _holds(self, word: str) -> bool:
        letters = self._letters or ""
        at, parts_left = 0, min(max(len(word) // _PART, 1), _MOST_PARTS)
        while at < len(word) and parts_left:
            # The fewest parts are those that are each as long as can be.
            at += _longest(word[at:], letters)
            parts_left -= 1
        return at == len(word)


def _longest(word: str, letters: str) -> int:
    """Return how many characters at the beginning of a word are among letters."""
    least, most = 0, len(word)
    if word in letters:
        return most
    while least < most:
        middle = (least + most + 1) // 2
        if word[:middle] in letters:
            least = middle
        else:
            most = middle - 1
    return least


def _readings(name: Name) -> Iterator[Sequence[str]]:
    """Yield the words of a name in each way to read it: by its kind and its shape, and decoded."""
    texts = {name.text}
    if "%" in name.text or "+" in name.text:
        texts.add(unquote_plus(name.text))
    if "&" in name.text:
        texts.add(html.unescape(name.text))
    for text in texts:
        shaped = name_of(text, None)
        for kind in dict.fromkeys((name.kind, shaped.kind if shaped else name.kind)):
            yield from _words(text, kind)


def _words(text: str, kind: str) -> Iterator[Sequence[str]]:
    if kind == "url":
        # Whoever asks for a host chooses where all links to it lead.
        host = _AFTER_A_HOST.split(text.partition("://")[2] or text, maxsplit=1)[0]
        for one in {host, _shown(host)}:
            yield [word for word in _split(one) if word != "www"]
    elif kind == "address":
        local, _, host = text.partition("@")
        for one in {host, _shown(host)}:
            yield _split(f"{local}@{one}")
    elif kind == "iban":
        yield [_plain(text)[_OF_AN_ACCOUNT:]]
    elif kind == "phone":
        yield [_plain(text)[-_OF_A_PHONE:]]
    else:
        yield _split(text)


def _split(text: str) -> list[str]:
    return [word for word in _NO_WORD.split(_bare(text)) if word]


def _plain(text: str) -> str:
    """Return the letters and digits of a text."""
    return _NO_WORD.sub("", _bare(text))


def _unpadded(word: str) -> str:
    """Return a number without zeros before it."""
    return (word.lstrip("0") or "0") if word.isdigit() else word


def _bare(text: str) -> str:
    """Return a text without case, accents, and what is invisible."""
    if text.isascii():
        return text.lower()
    parts = unicodedata.normalize("NFKD", text)
    return "".join(one for one in parts if unicodedata.category(one)[0] not in "MC").casefold()


def _shown(host: str) -> str:
    """Return a host with the letters that programs show of it."""
    try:
        labels = [one[4:].encode().decode("punycode") if one.startswith("xn--") else one for one in host.split(".")]
    except UnicodeError:
        return host
    return ".".join(labels)


def _decoded(texts: Sequence[str]) -> Sequence[str] | None:
    """Return texts, and what a tool may decode of them on its way; None where that is too much."""
    found, fresh = dict.fromkeys(texts), list(texts)
    size = sum(map(len, found))
    for _ in range(_ROUNDS):
        more = [inner for text in fresh for inner in _inner(text) if inner not in found]
        fresh = list(dict.fromkeys(more))
        found |= dict.fromkeys(fresh)
        size += sum(map(len, fresh))
        if size > _MOST_DECODED:
            return None
    # What is coded more often is not told from what it says.
    return None if any(one not in found for text in fresh for one in _inner(text)) else list(found)


def _inner(text: str) -> Iterator[str]:
    yield unquote_plus(text)
    yield html.unescape(text)
    yield _ESCAPED.sub(lambda found: chr(int(found[1] or found[2], 16)), text)
    if text.lstrip()[:1] in ("{", "[", '"'):
        with suppress(ValueError, RecursionError):
            yield from _texts(json.loads(text))
    for found in _CODED.findall(text):
        yield from _of_bytes(found)


def _of_bytes(coded: str) -> Iterator[str]:
    """Yield the text that Base64 or hexadecimal digits stand for."""
    bare = coded.replace("+", "-").replace("/", "_")
    contents = [bytes.fromhex(coded)] if _HEX.fullmatch(coded) else []
    with suppress(ValueError):
        contents.append(urlsafe_b64decode(bare + "=" * (-len(bare) % 4)))
    texts = (content.decode(errors="replace") for content in contents)
    yield from (text for text in texts if text.isprintable() and "\ufffd" not in text)


def _texts(value: Any) -> Iterator[str]:  # noqa: ANN401 - a JSON value
    """Yield the texts and numbers in a value, and the names of fields."""
    pending = [value]
    while pending:
        one = pending.pop()
        if type(one) is dict:
            yield from one
            pending += reversed(one.values())
        elif type(one) is list:
            pending += reversed(one)
        elif type(one) is float:
            # A tool can write a number in full.
            yield from (str(one), f"{one:f}")
        elif type(one) in (str, int):
            yield str(one)
