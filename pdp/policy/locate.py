"""Find the position of an expression in a policy's text: the engine's trees have no positions.

The result is the first place whose text matches; comments are skipped.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pdp.policy.tools.parameters import cedar_string

# A path, for example `("context", "input", "amount")`; or literal text, for example an entity's type and id.
Anchor = tuple[str, ...] | str

_COMMENT_OR_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|//[^\n\r]*', re.DOTALL)
_HEAD = re.compile(r"\b(permit|forbid)\b")
# More carets under a whole line would show nothing more.
_LONGEST = 60
_QUOTED = re.compile(r"`([^`]+)`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A line and a column, both from 1, and a number of characters."""

    line: int
    column: int
    width: int


def find(text: str, anchors: Iterable[Anchor], line: int = 1, column: int = 1, *, nth: int = 0) -> Place | None:
    """Return the place of the first anchor that the text of a policy holds, or None.

    `line` and `column` are the start of the text in its file. `nth`, from 0, selects one of the places that match the
    first anchor.
    """
    bare = _COMMENT_OR_STRING.sub(_blank, text)
    quoted = [one.span() for one in _COMMENT_OR_STRING.finditer(bare)]
    begins = [begin for begin, _ in quoted]
    for number, anchor in enumerate(anchors):
        found = list(_pattern(anchor).finditer(bare)) if anchor else []
        if not isinstance(anchor, str):
            # A path inside a string or a comment is not an expression.
            found = [one for one in found if not _within(quoted, begins, one.start())]
        if found:
            return _place(text, found[min(nth if number == 0 else 0, len(found) - 1)], line, column)
    return None


def head(text: str, line: int = 1, column: int = 1) -> Place:
    """Return the place of the word `permit` or `forbid` of a policy."""
    found = _HEAD.search(_COMMENT_OR_STRING.sub(_blank, text))
    return _place(text, found, line, column) if found else start(text, line, column)


def start(text: str, line: int = 1, column: int = 1) -> Place:
    """Return the place of a policy's first line."""
    return Place(line=line, column=column, width=max(len(text.partition("\n")[0].rstrip()), 1))


def in_line(line_text: str, message: str) -> tuple[int, int]:
    """Return column and width of the first word that a message quotes and a line holds; else of the whole line."""
    for word in _QUOTED.findall(message):
        for name in (word, word.rpartition("::")[2].strip('"'), word.rpartition(".")[2]):
            if name and (at := line_text.find(name)) >= 0:
                return at + 1, len(name)
    bare = line_text.strip()
    return len(line_text) - len(line_text.lstrip()) + 1 if bare else 1, min(max(len(bare), 1), _LONGEST)


def entity_anchor(kind: str, name: str) -> str:
    """Return the text of an entity's literal."""
    return f"{kind}::{cedar_string(name)}"


def _pattern(anchor: Anchor) -> re.Pattern[str]:
    if isinstance(anchor, str):
        return re.compile(r"\s*".join(map(re.escape, anchor.split(" "))).replace("::", r"\s*::\s*"))
    first, *steps = anchor
    parts = [
        rf"\s*(?:\.\s*{re.escape(step)}(?![A-Za-z0-9_])|\[\s*{re.escape(cedar_string(step))}\s*\])" for step in steps
    ]
    return re.compile(rf"\b{re.escape(first)}\b" + "".join(parts))


def _within(spans: Sequence[tuple[int, int]], begins: Sequence[int], at: int) -> bool:
    """Return whether one of the spans, in their order, holds a place and begins before it."""
    before = bisect_left(begins, at)
    return before > 0 and at < spans[before - 1][1]


def _blank(found: re.Match[str]) -> str:
    text = found.group()
    return text if text.startswith('"') else " " * len(text)


def _place(text: str, found: re.Match[str], line: int, column: int) -> Place:
    start = found.start()
    begins = text.rfind("\n", 0, start) + 1
    before = text.count("\n", 0, start)
    width = len(found.group().partition("\n")[0].rstrip())
    return Place(line=line + before, column=start - begins + (column if before == 0 else 1), width=max(width, 1))
