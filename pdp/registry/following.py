"""What changes of sessions, for those who follow them. Nothing here says that a call is allowed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pdp.clock import Clock, Instant, no_earlier
from pdp.model import Head, Session, SessionState
from pdp.sessions.freezes import Freeze
from pdp.sessions.lifecycle import state_of
from pdp.sessions.store import SessionChanges, SessionReader

# More in one step are not told one by one.
MOST_CHANGES = 256


class FollowedSessions(SessionChanges, SessionReader, Protocol):
    """What following needs of a store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """What changed up to `head`: sessions with their present states; the active bundle's version, all freezes."""

    head: Head
    sessions: tuple[tuple[Session, SessionState], ...]
    bundle_version: str
    freezes: tuple[Freeze, ...]


class Following:
    """Tells what has changed since a change. Safe for threads."""

    def __init__(self, sessions: FollowedSessions, clock: Clock) -> None:
        self._sessions = sessions
        self._clock = clock

    def head(self) -> Head:
        """Return the latest change. Raise `StoreUnavailableError` when the store does not say."""
        return self._sessions.head()

    def known_at(self) -> float:
        """Return a moment by the boot clock: what `head` returns afterwards has all that was acknowledged until then.

        Under a lease it is when that was asked for.
        """
        lease, now = self._sessions.lease(), self._clock.now()
        return now.boot_at if lease is None else lease.begun.boot_at

    def since(self, head: Head) -> Followed | None:
        """Return what changed after a change; None when that must be read anew."""
        changes = self._sessions.changed(after=head, limit=MOST_CHANGES)
        if changes is None:
            return None
        now = self._now()
        return Followed(
            head=changes.head,
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
