"""Paths to fields of a JSON value, such as `user.iban` or `[].email`: names, and `[]` for every element of a list."""

from __future__ import annotations

import json
import re
from typing import Final

# A name, or None for every element of a list.
FieldPath = tuple[str | None, ...]

LONGEST_PATH: Final = 256
# A name that holds one of these characters is written as `["first.name"]`.
_STEP: Final = re.compile(r"""\[\]|\[("(?:[^"\\]|\\.)*")\]|(\.?)([^.\[\]"'\s]+)""")


def field_path(text: str) -> FieldPath:
    """Read a path. Raise `ValueError` with what is wrong with it."""
    if not 0 < len(text) <= LONGEST_PATH:
        raise ValueError(f"a path must be 1 to {LONGEST_PATH} characters long")
    steps: list[str | None] = []
    at = 0
    while at < len(text):
        found = _STEP.match(text, at)
        # A name follows another step after a dot, and begins a path without one.
        if found is None or (found.group(3) and bool(found.group(2)) != bool(steps)):
            raise ValueError(f"not a path such as `user.iban` or `[].email`: `{text}`")
        steps.append(found.group(3) or (_name(found.group(1), text) if found.group(1) else None))
        at = found.end()
    return tuple(steps)


def last_name(path: FieldPath) -> str | None:
    """Return the last name of a path, or None when it has none."""
    return next((step for step in reversed(path) if step is not None), None)


def _name(quoted: str, text: str) -> str:
    try:
        return str(json.loads(quoted))
    except ValueError:
        raise ValueError(f"a name in quotes must be a JSON text: `{text}`") from None
