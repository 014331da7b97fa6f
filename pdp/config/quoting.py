"""Values of settings as errors show them."""

from __future__ import annotations

import json

from pdp.errors import one_line

_SHOWN_CHARACTERS = 80


def shown(value: object) -> str:
    """Return a value as written in a file of settings."""
    if isinstance(value, str):
        return value
    text = json.dumps(value)
    return text.removesuffix(".0") if isinstance(value, float) else text


def quoted(value: object) -> str:
    """Return the first line of a value as written, without the rest of a key pasted by mistake."""
    whole = shown(value)
    line = one_line(whole.partition("\n")[0])
    return f"`{line[:_SHOWN_CHARACTERS]}…`" if len(whole) > min(len(line), _SHOWN_CHARACTERS) else f"`{line}`"
