"""Remove sessions that have been over for long, so that a store does not grow for ever.

Nothing depends on it: a session that is over stays over whether or not it is stored, and a handle that is no longer
stored is answered like one that never was. What sessions did stands in the record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pdp.clock import Clock
from pdp.sessions.store import SessionWriter

# A step holds the store for some milliseconds; calls and other writers go between two.
_SESSIONS_OF_A_STEP: Final = 200
_PAUSE_SECONDS: Final = 0.2


class Purge:
    """Removes what has been over for `keep_ended_seconds`."""

    def __init__(self, sessions: SessionWriter, clock: Clock, *, keep_ended_seconds: float) -> None:
        self._sessions = sessions
        self._clock = clock
        self._keep_ended_seconds = keep_ended_seconds

    def run(self, pause: Callable[[float], bool]) -> int:
        """Remove all that may go, in small steps; return how many sessions went.

        `pause` waits so many seconds between two steps, and says whether to leave the rest. Raise
        `StoreUnavailableError` when the store cannot be written.
        """
        total = 0
        while True:
            wall_at = self._clock.now().wall_at
            # Sessions go before those that they stand below, so a step with few may be followed by one with more.
            removed = self._sessions.purge(
                over_before=wall_at - self._keep_ended_seconds, limit=_SESSIONS_OF_A_STEP, wall_at=wall_at
            )
            total += removed
            if not removed or pause(_PAUSE_SECONDS):
                return total
