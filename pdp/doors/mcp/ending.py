"""What becomes of messages over pipes once the session is over: nothing of the server reaches its client any more.

Over HTTP each request asks anew for its session. A pipe outlives it, and its client must not take that for a fault.
"""

from __future__ import annotations

from typing import Any

from pdp.doors import refusals
from pdp.doors.mcp import answers
from pdp.doors.mcp.messages import Message
from pdp.doors.mcp.methods import GREETINGS, LIST, PING


class Ending:
    """Whether the session is over, as it was last seen."""

    def __init__(self) -> None:
        self.over = False
        self._lived = False

    def saw(self, *, alive: bool) -> None:
        """Take what was seen of the session: one that is not active is over, or was never approved."""
        self.over = not alive
        self._lived |= alive

    def closes(self, method: str) -> bool:
        """Say whether the answers to a method are kept from the client. It can begin before a person has approved."""
        return self.over and (self._lived or method not in GREETINGS)


def in_place_of(request: Message) -> str:
    """Return what the client of a session that is over gets in place of an answer of the server."""
    result: dict[str, Any] = {"resultType": "complete"} if request.modern else {}
    if request.method == PING:
        return answers.result_of(request.id, result)
    if request.method != LIST:
        return answers.refusal(request, refusals.SESSION_OVER)
    lasting = {"ttlMs": 0, "cacheScope": "private"} if request.modern else {}
    return answers.result_of(request.id, {"tools": [], **result, **lasting})


def to_server(question: Message) -> str:
    """Return what the server gets that asks the client of a session that is over."""
    if question.method == PING:
        return answers.result_of(question.id, {})
    return answers.error(question.id, answers.DENIED, refusals.IS_OVER)
