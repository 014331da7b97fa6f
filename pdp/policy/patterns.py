"""Tool patterns: `server/tool`, where `*` in the tool part matches any text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

_SERVER = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")


def pattern_problem(pattern: str) -> str | None:
    """Return what is wrong with a tool pattern, or None. The server part is literal: `*` alone is refused."""
    server, slash, tool = pattern.partition("/")
    if not slash or not tool:
        return "must have the form `server/tool`; only the tool part may contain `*`"
    if not _SERVER.match(server):
        return "the server part must be a literal name"
    if len(tool) > 128 or not tool.isprintable():  # noqa: PLR2004 - the longest tool name that the catalogue takes
        return "the tool part must be printable and at most 128 characters long"
    return None


@dataclass(frozen=True, slots=True)
class ToolPatterns:
    """A set of tool patterns. The time to match a name is proportional to its length and the number of patterns."""

    patterns: tuple[str, ...]
    _literal: frozenset[str] = field(init=False, repr=False, compare=False)
    # What stands before the `*` of each pattern that only ends with one.
    _begun: tuple[str, ...] = field(init=False, repr=False, compare=False)
    # Each other pattern with a `*`, split at them: what a name must begin with, contain in this order, and end with.
    _cut: tuple[Sequence[str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_literal", frozenset(one for one in self.patterns if "*" not in one))
        cut = [one.split("*") for one in self.patterns if "*" in one]
        object.__setattr__(self, "_begun", tuple(first for first, *more in cut if more == [""]))
        object.__setattr__(self, "_cut", tuple(pieces for pieces in cut if pieces[1:] != [""]))

    def match(self, action: str) -> bool:
        """Return whether an action id, `server/tool`, matches any of the patterns."""
        if action in self._literal or action.startswith(self._begun):
            return True
        return bool(self._cut) and any(_fits(action, pieces) for pieces in self._cut)


def _fits(text: str, pieces: Sequence[str]) -> bool:
    first, *between, last = pieces
    if not text.startswith(first):
        return False
    at, end = len(first), len(text) - len(last)
    for piece in between:
        # The leftmost match leaves the most text for the other pieces, so no other match needs to be tried.
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return at <= end and text.endswith(last)
