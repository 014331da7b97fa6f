"""Show what other people wrote, so that it hides and moves nothing around it.

What is shown holds nothing but what `str.isprintable` lets through: here the rest is escaped, and where an escape would
be of no use, `pdp.errors.one_line` leaves a blank. What people are asked for is refused for less: names and reasons may
hold characters that do not print, such as those that join emoji.
"""

from __future__ import annotations

import json
import re
from typing import Any

# Control characters, line separators, and what turns the direction of text: they would forge what a person reads.
_FORGING = "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"
_FORGING_LINE = re.compile(_FORGING)
# In lines a line feed, also after a carriage return, and a tab do no harm.
_FORGING_LINES = re.compile(f"(?!\t|\n|\r\n){_FORGING}")


def visible(text: str, *, kept: str = "") -> str:
    """Return the text with an escape for each character that moves or hides others, such as a bidi override.

    What an approver reads was written by somebody who wants it approved. Characters in `kept` stay as they are.
    """
    return "".join(one if one.isprintable() or one in kept else ascii(one)[1:-1] for one in text)


def visible_json(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Write a value as indented JSON with the same characters escaped, as JSON escapes them: its value is the same."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if text.isascii():
        return text
    return "".join(one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text)


def forges(text: str, *, lines: bool = False) -> bool:
    """Say whether a text could forge what a person reads beside it; with `lines` it may have more than one."""
    return (_FORGING_LINES if lines else _FORGING_LINE).search(text) is not None
