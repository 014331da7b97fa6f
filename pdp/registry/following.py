"""What changes of sessions, for those who follow them. Nothing here says that a call is allowed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pdp.clock import Clock, Instant, no_earlier
from pdp.model import Session, SessionState
from pdp.sessions.freezes import Freeze
from pdp.sessions.lifecycle import state_of
from pdp.sessions.store import SessionChanges, SessionReader

# More in one step are not told one by one.
MOST_CHANGES = 256


class FollowedSessions(SessionChanges, SessionReader, Protocol):
    """What following needs of a store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """What changed up to a revision: sessions with their present states; the active bundle's version, all freezes."""

    revision: int
    sessions: tuple[tuple[Session, SessionState], ...]
    bundle_version: str
    freezes: tuple[Freeze, ...]


class Following:
    """Tells what has changed since a revision. Safe for threads."""

    def __init__(self, sessions: FollowedSessions, clock: Clock) -> None:
        self._sessions = sessions
        self._clock = clock

    def revision(self) -> int:
        """Return the latest revision. Raise `StoreUnavailableError` when the store does not say."""
        return self._sessions.revision()

    def since(self, revision: int) -> Followed | None:
        """Return what changed after a revision; None when that must be read anew."""
        changes = self._sessions.changed(after=revision, limit=MOST_CHANGES)
        if changes is None:
            return None
        now = self._now()
        return Followed(
            revision=changes.revision,
            sessions=tuple((session, state_of(session, now)) for session in changes.sessions),
            bundle_version=changes.bundle_version,
            freezes=changes.freezes,
        )

    def one(self, session_id: str) -> tuple[Session, SessionState] | None:
        """Return one session with its present state; None when there is none."""
        chain = self._sessions.get(session_id)
        return (chain[0], state_of(chain[0], self._now())) if chain else None

    def _now(self) -> Instant:
        return no_earlier(self._clock.now(), self._sessions.high_water_at())
