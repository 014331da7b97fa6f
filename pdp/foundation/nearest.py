"""Which known name is meant by one that nothing has."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_ALIKE = 0.6


def nearest(name: str, known: Iterable[str], *, alike: float = _ALIKE) -> str:
    """Return the known name that is spelled most like another; empty when none is `alike` (0 to 1).

    Comparing takes the square of the length: bound what may be anything.
    """
    return next(iter(get_close_matches(name, tuple(known), n=1, cutoff=alike)), "")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``did you mean `…`?`` with the nearest known name; empty when there is none."""
    near = nearest(name, known)
    return f"did you mean `{near}`?" if near else ""


def hint(name: str, known: Iterable[str]) -> str:
    """Return the same as the end of a message, behind a semicolon."""
    said = did_you_mean(name, known)
    return f"; {said}" if said else ""
