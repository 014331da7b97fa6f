"""What results hold, and which of it a session can rely on: written anew from the page for authors of policies.

It shares no line with the product and imports nothing of it.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from html import unescape
from typing import Any
from unicodedata import category, normalize
from urllib.parse import unquote_plus

from tests.machinery.oracle.outside import Form, form_of, links

_BEST = ("issued", "clean", "tainted")
_MARKED = r"(?:[-*+\u2022]|\d+[.)])\s+"
_KEYED = r"[^:\s][^:]*:\s+"


def read(
    known: Mapping[Form, str], result: Any, *, trusted: bool, issues: Sequence[str], kinds: Sequence[str], asked: Any
) -> dict[Form, str]:
    """Return what a tree of sessions knows after one more result, each form with the best word that it had."""
    shaped = _shaped(result)
    issued = [form for path in issues for one in _at(shaped, path) for form in _forms(one, kinds)]
    found = {form: "issued" for form in issued if _brought(form, asked)}
    word = "clean" if trusted else "tainted"
    for piece in _pieces(shaped):
        for form in _forms(piece, kinds) if isinstance(piece, str | int) else [piece]:
            if not (trusted and _asked_for(form, asked)):
                found.setdefault(form, word)
    words = {**known}
    for form, one in found.items():
        words[form] = min(one, words.get(form, one), key=_BEST.index)
    return words


def _shaped(result: Any) -> Any:
    if isinstance(result, str) and result.lstrip().startswith(("{", "[")):
        try:
            return json.loads(result)
        except ValueError:
            return result
    return result


def _forms(value: Any, kinds: Sequence[str]) -> list[Form]:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return []
    own = "id" if isinstance(value, int) else ""
    return [form for kind in (own, *kinds) if (form := form_of(str(value), kind)) is not None]


def _pieces(value: Any) -> Iterator[Any]:
    """Yield all that can be named: texts and numbers, and forms that a text shows by their shape."""
    if isinstance(value, dict):
        for one in value.values():
            yield from _pieces(one)
    elif isinstance(value, list):
        for one in value:
            yield from _pieces(one)
    elif isinstance(value, str):
        yield from (one for one in (value, *_lines(value)) if len(one) > 2)
        yield from _tokens(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield value


def _lines(text: str) -> Iterator[str]:
    for line in re.split(r"\r?\n", text):
        bare = line.strip()
        item = re.sub(f"^{_MARKED}", "", bare)
        said = re.sub(f"^{_KEYED}", "", item)
        yield from (bare, item, said, said.strip("\"'` "))


def _tokens(text: str) -> Iterator[Form]:
    yield from (form for form in links(text) if form is not None)
    for word in re.split(r"[\s<>\"'`()\[\]{},;|]+", text):
        form = form_of(re.sub(r"[.,:;!?]+$", "", word), "address") if "@" in word else None
        if form is not None:
            yield form
    for start in re.finditer(r"\b[A-Za-z]{2}\d\d", text):
        rest = text[start.start() :]
        for end in range(15, 43):
            form = form_of(rest[:end]) if len(rest) >= end else None
            if form and form[0] == "iban" and not re.match(r"[A-Za-z0-9]|[ -]\d", rest[end:]):
                yield form


def _asked_for(form: Form, asked: Any) -> bool:
    """Say whether all words of a form are in what was asked for, in one of the ways to read it."""
    said = "".join(_letters(one) for one in _said(asked))
    kind, text = form
    for read_as in {text, unquote_plus(text), unescape(text)}:
        for one in {kind, (form_of(read_as) or (kind,))[0]}:
            if any(all(_within(word, said) for word in words) for words in _words(one, read_as)):
                return True
    return False


def _words(kind: str, text: str) -> Iterator[list[str]]:
    if kind == "iban":
        yield [_letters(text)[4:]]
        return
    if kind == "phone":
        yield [_letters(text)[-7:]]
        return
    if kind == "url":
        text = re.sub(r"^[^/]*://", "", text)
        text = re.sub(r"[/?#:].*", "", text, flags=re.DOTALL)
    words = [word for part in re.split(r"[^\w]|_", _without_marks(text)) if (word := _letters(part))]
    yield [word for word in words if not (kind == "url" and word == "www")]


def _within(word: str, said: str) -> bool:
    """Say whether a word is in what was said, if need be in at most eight parts, on average of four characters."""
    word = word.lstrip("0") or "0" if word.isdigit() else word
    # After so many parts, how far one can be.
    reached = {0}
    for _ in range(min(8, max(1, len(word) // 4))):
        reached |= {end for start in reached for end in range(start + 1, len(word) + 1) if word[start:end] in said}
    return len(word) in reached


def _without_marks(text: str) -> str:
    return "".join(one for one in normalize("NFKD", text) if category(one)[0] not in ("M", "C")).casefold()


def _letters(text: str) -> str:
    return "".join(one for one in _without_marks(text) if one.isalnum())


def _said(asked: Any) -> list[str]:
    """Return all that was said, as it is and decoded in all ways until nothing is new."""
    found = list(_texts(asked))
    for text in found:
        more = [
            unquote_plus(text),
            unescape(text),
            re.sub(r"=([0-9A-Fa-f]{2})", lambda one: chr(int(one[1], 16)), text),
        ]
        for word in re.findall(r"[\w+/-]{6,}", text, re.ASCII):
            more += [one for one in _coded(word) if one.isprintable()]
        found += [one for one in dict.fromkeys(more) if one not in found]
    return found


def _coded(word: str) -> Iterator[str]:
    with suppress(ValueError):
        yield bytes.fromhex(word).decode()
    with suppress(ValueError):
        yield b64decode(word.replace("-", "+").replace("_", "/") + "=" * (-len(word) % 4)).decode()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, one in value.items():
            yield from (name, *_texts(one))
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif value is not None:
        yield str(value)


def _brought(form: Form, asked: Any) -> bool:
    """Say whether a call did not hold an id as a whole argument, between commas or in a path."""
    parts = [part for text in _texts(asked) for part in (text, *re.split(r"[\s,;|\"'`()\[\]{}<>/?&=#]+", text))]
    return _number(_letters(form[1])) not in {_number(_letters(part)) for part in parts}


def _number(word: str) -> str:
    return str(int(word)) if word.isascii() and word.isdigit() else word


def _at(value: Any, path: str) -> list[Any]:
    """Return what is at a path; a list may be its one element, or inside `result`."""
    if isinstance(value, dict) and list(value) == ["result"] and not path.startswith("result"):
        return _at(value["result"], path)
    if isinstance(value, dict) and path.startswith("[]"):
        path = path[2:].removeprefix(".")
    return _exactly(value, [one for one in re.split(r"\.|(?=\[\])", path) if one])


def _exactly(value: Any, steps: list[str]) -> list[Any]:
    if not steps:
        return [value]
    step, *rest = steps
    if step == "[]":
        return [found for one in value for found in _exactly(one, rest)] if isinstance(value, list) else []
    return _exactly(value[step], rest) if isinstance(value, dict) and step in value else []
