"""Show text from other people so that it cannot hide or move the text around it.

Shown text holds only what `str.isprintable` accepts and what draws something: here the rest is escaped; where an
escape would be of no use, `pdp.errors.one_line` puts a blank. Input from people is refused for less: names and reasons
can hold characters that do not print, such as those that join emoji.
"""

from __future__ import annotations

import json
import re
from typing import Any

# Control characters, line separators, and characters that change the text direction: they forge what a person reads.
_FORGING = "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"
# Letters, marks and signs that count as printable and draw nothing: fillers, joiners, and selectors of variants.
_BLANK = frozenset(
    map(
        chr,
        (
            *(0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x2800, 0x3164, 0xFFA0),
            *range(0xFE00, 0xFE10),
            *range(0xE0100, 0xE01F0),
        ),
    )
)
_FORGING_LINE = re.compile(_FORGING)
# In text with several lines, a tab and a line feed, also after a carriage return, do no harm.
_FORGING_LINES = re.compile(f"(?!\t|\n|\r\n){_FORGING}")


def visible(text: str, *, kept: str = "") -> str:
    """Return the text with an escape for each character that moves or hides others.

    A bidi override is one of these. The author of what an approver reads wants it approved. Characters in `kept` stay
    as they are.
    """
    # Most text is this, and known to be in a hundredth of the time.
    if text.isascii() and text.isprintable():
        return text
    return "".join(one if _is_seen(one) or one in kept else ascii(one)[1:-1] for one in text)


def visible_json(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Write a value as indented JSON with the same characters escaped; its value is unchanged."""
    return escaped_json(json.dumps(value, indent=2, ensure_ascii=False))


def escaped_json(text: str) -> str:
    """Return a JSON text with the same characters escaped."""
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "".join(one if _is_seen(one) or one in "\n\t" else json.dumps(one)[1:-1] for one in text)


def forges(text: str, *, lines: bool = False) -> bool:
    """Say whether a text could forge what a person reads beside it; `lines` allows several lines."""
    # What prints does not forge, and is known in a fifth of the time.
    return not text.isprintable() and (_FORGING_LINES if lines else _FORGING_LINE).search(text) is not None


def _is_seen(character: str) -> bool:
    return character.isprintable() and character not in _BLANK
