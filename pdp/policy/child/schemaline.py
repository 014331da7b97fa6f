"""Where an author's schema does not parse: the engine says what is wrong, and gives no position."""

from __future__ import annotations

import cedarpy

# So begin the messages about a text that does not parse. Others are about names, which an earlier line may lack too.
_SYNTAX = "error parsing schema:"


def syntax_problem(author: str, message: str) -> tuple[int, str]:
    """Return the line (from 1) of what does not parse in an author's schema, and the engine's message about it.

    `message` is the engine's about the whole schema. The line is 0 for a message that is not about syntax.
    """
    if not message.startswith(_SYNTAX):
        return 0, message
    lines = author.rstrip().split("\n")
    if (own := _said(lines)) != message:
        # The declaration at the end goes on into what is generated after it.
        return len(lines), own or message
    # INVARIANT: `good` lines do not have this problem, and `bad` lines do.
    good, bad = 0, len(lines)
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (good, middle) if _said(lines[:middle]) == message else (middle, bad)
    return bad, message


def _said(lines: list[str]) -> str:
    try:
        cedarpy.Schema.from_str("\n".join(lines))
    except ValueError as error:
        return str(error)
    return ""
