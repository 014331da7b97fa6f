"""Find the known name that an unknown one probably means."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_ALIKE = 0.6
# Comparing takes the square of the length, and a name can be as long as the file that holds it.
_LONGEST = 256


def nearest(name: str, known: Iterable[str], *, alike: float = _ALIKE) -> str:
    """Return the known name with the most similar spelling; empty when none is `alike` (0 to 1).

    None is alike to a name of more than 256 characters.
    """
    if len(name) > _LONGEST:
        return ""
    return next(iter(get_close_matches(name, tuple(known), n=1, cutoff=alike)), "")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``did you mean `…`?`` with the nearest known name; empty when there is none."""
    near = nearest(name, known)
    return f"did you mean `{near}`?" if near else ""


def hint(name: str, known: Iterable[str]) -> str:
    """Return the same text as the end of a message, after a semicolon."""
    said = did_you_mean(name, known)
    return f"; {said}" if said else ""
