"""The questions of a server that its client has not answered yet, such as for its model or its person."""

from __future__ import annotations

import time
from collections.abc import Callable

from pdp.doors.mcp.messages import MessageId

# In one session of MCP. A client need not answer, so that each is open for a time only: that of most sessions.
MOST_ASKED, ASKED_SECONDS = 256, 3600.0


class ServerAsks:
    """The open questions of one session of MCP: at most `MOST_ASKED`, and each for at most `ASKED_SECONDS`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # By their ends, the next one first.
        self._open: dict[MessageId, float] = {}

    def ask(self, message_id: MessageId) -> bool:
        """Take up a question. Say whether it may be asked: none too many, and none by the id of another."""
        self._lapse()
        if message_id in self._open or len(self._open) >= MOST_ASKED:
            return False
        self._open[message_id] = self._clock() + ASKED_SECONDS
        return True

    def close(self, message_id: MessageId | None) -> bool:
        """Close a question that is answered or taken back. Say whether it was open."""
        self._lapse()
        return message_id is not None and self._open.pop(message_id, None) is not None

    def close_all(self) -> tuple[MessageId, ...]:
        """Close all questions, and return their ids."""
        closed = tuple(self._open)
        self._open.clear()
        return closed

    def _lapse(self) -> None:
        now = self._clock()
        for message_id, until in tuple(self._open.items()):
            if until > now:
                break
            del self._open[message_id]
