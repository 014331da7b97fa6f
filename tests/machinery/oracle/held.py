"""What results hold, and which of it a session can rely on: written anew from the page for authors of policies.

It shares no line with the product and imports nothing of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from tests.machinery.oracle.outside import Form, form_of, links

_BEST = ("issued", "clean", "tainted")
_MARKED = r"(?:[-*+\u2022]|\d+[.)])\s+"
_KEYED = r"[^:\s][^:]*:\s+"


def read(
    known: Mapping[Form, str], result: Any, *, trusted: bool, issues: Sequence[str], kinds: Sequence[str], asked: Any
) -> dict[Form, str]:
    """Return what a tree of sessions knows after one more result, each form with the best word that it had."""
    shaped = _shaped(result)
    found = {form: "issued" for path in issues for one in _at(shaped, path) for form in _forms(one, kinds)}
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
    kind, text = form
    if kind == "url":
        text = text.split("://", 1)[1].rstrip("/")
    said = "\n".join(one for text_ in _texts(asked) for one in (text_, unquote(text_)))
    said = " ".join(said.split()).lower()
    text = " ".join(text.split()).lower()
    if kind == "url" and any(re.sub("(?=/|$)", port, text, count=1) in said for port in (":80", ":443")):
        return True
    return text in said or re.sub("[ -]", "", text) in re.sub("[ -]", "", said)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, one in value.items():
            yield from (name, *_texts(one))
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif value is not None:
        yield str(value)


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
