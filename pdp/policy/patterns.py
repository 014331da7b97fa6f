"""Tool patterns: `server/tool`, where `*` in the tool part stands for anything."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_SERVER = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_WILDCARDS = 4


def pattern_problem(pattern: str) -> str | None:
    """Say what is wrong with a tool pattern, or None. The server part is literal: `*` alone is refused."""
    server, slash, tool = pattern.partition("/")
    if not slash or not tool:
        return "must read `server/tool`; `*` may stand in the tool part only"
    if not _SERVER.match(server):
        return "the server part must be a literal name"
    if len(tool) > 128 or not tool.isprintable():  # noqa: PLR2004 - the longest tool name that the catalogue takes
        return "the tool part must be printable and at most 128 characters long"
    if tool.count("*") > _WILDCARDS:
        # More of them make matching slow on names that an agent chooses.
        return f"the tool part may hold at most {_WILDCARDS} `*`"
    return None


@dataclass(frozen=True, slots=True)
class ToolPatterns:
    """A set of tool patterns, compiled."""

    patterns: tuple[str, ...]
    _regex: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        alternatives = (".*".join(re.escape(part) for part in re.split(r"\*+", pattern)) for pattern in self.patterns)
        object.__setattr__(
            self, "_regex", re.compile("|".join(f"(?:{one})" for one in alternatives) or r"(?!)", re.DOTALL)
        )

    def match(self, action: str) -> bool:
        """Say whether an action id, `server/tool`, matches any of the patterns."""
        return self._regex.fullmatch(action) is not None
