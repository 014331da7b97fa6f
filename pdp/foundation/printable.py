"""Show what other people wrote, so that it hides and moves nothing around it."""

from __future__ import annotations

import json
from typing import Any


def visible(text: str) -> str:
    """Return the text with an escape for each character that moves or hides others, such as a bidi override.

    What an approver reads was written by somebody who wants it approved.
    """
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def visible_json(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Write a value as indented JSON with the same characters escaped, as JSON escapes them: its value is the same."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if text.isascii():
        return text
    return "".join(one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text)
