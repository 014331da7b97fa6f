"""Remove sessions that have been over for a long time, and what their calls left, so that no store grows for ever.

Nothing depends on it: a session that is over stays over whether or not it is stored, and a handle that is no longer
stored gets the same answer as one that never existed. What sessions did is in the record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from pdp.clock import Clock
from pdp.sessions.historycontract import RETRY_SECONDS, SessionHistory
from pdp.sessions.lifecycle import over_at
from pdp.sessions.store import SessionReader, SessionWriter

# A step locks the store for some milliseconds; calls and other writers run between two steps.
_SESSIONS_OF_A_STEP: Final = 200
_PAUSE_SECONDS: Final = 0.2


class PurgedSessions(SessionReader, SessionWriter, Protocol):
    """The sessions as the purge needs them."""


class Purge:
    """Removes sessions that have been over for `keep_ended_seconds`, and reports older than `keep_reports_seconds`.

    What results held is removed as soon as the root of their tree is over.
    """

    def __init__(
        self,
        sessions: PurgedSessions,
        history: SessionHistory,
        clock: Clock,
        *,
        keep_ended_seconds: float,
        keep_reports_seconds: float,
    ) -> None:
        self._sessions = sessions
        self._history = history
        self._clock = clock
        self._keep_ended_seconds = keep_ended_seconds
        self._keep_reports_seconds = keep_reports_seconds

    def run(self, pause: Callable[[float], bool]) -> int:
        """Remove all that is due, sessions in small steps; return how many sessions were removed.

        `pause` waits the given seconds between two steps, and says whether to stop early. Raise `StoreUnavailableError`
        when one of the two cannot be written.
        """
        total = 0
        while True:
            now = self._clock.now()
            wall_at = now.wall_at
            # A session is removed before its ancestors, so a step that removes few can be followed by one that removes
            # more.
            removed = self._sessions.purge(
                over_before=wall_at - self._keep_ended_seconds, limit=_SESSIONS_OF_A_STEP, wall_at=wall_at
            )
            total += removed
            if not removed or pause(_PAUSE_SECONDS):
                break
        # After the sessions, which can go when the history does not answer.
        self._history.forget_reports(reported_before=wall_at - self._keep_reports_seconds)
        # The sessions were removed as of `wall_at`, so none of them can come back to life with a budget that is new.
        self._history.forget_charges(
            ended_before=wall_at - self._keep_ended_seconds, charged_before=wall_at - RETRY_SECONDS
        )
        access = self._history.access()
        access.expire(now)
        access.forget(ended_before=wall_at - self._keep_ended_seconds)
        self._forget_values(wall_at, pause)
        return total

    def _forget_values(self, wall_at: float, pause: Callable[[float], bool]) -> None:
        """Remove what results held in trees whose root is over, or is no longer stored."""
        after = ""
        values = self._history.values()
        while trees := values.trees(after=after, limit=_SESSIONS_OF_A_STEP):
            values.forget([one for one in trees if self._is_over(one, wall_at)])
            after = trees[-1]
            if len(trees) < _SESSIONS_OF_A_STEP or pause(_PAUSE_SECONDS):
                break

    def _is_over(self, root_id: str, wall_at: float) -> bool:
        chain = self._sessions.get(root_id)
        return not chain or over_at(chain[0]) <= wall_at
