"""Say how many of a thing there are."""

from __future__ import annotations


def counted(number: int, thing: str) -> str:
    """Return a number of things: `1 tool`, `2 tools`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
