"""The sessions of one user or agent that came before another one, as far as the store keeps them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pdp.model import Session
from pdp.sessions.store import SessionLists
from pdp.sessions.values import SessionFilter

WINDOW_SECONDS = 30 * 86400.0
# The most sessions that are looked at, and how many are read at a time: writers wait while the store reads.
MOST_SESSIONS, _STEP = 300, 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """The other sessions of a user or agent that were requested between two times, newest first; unix seconds."""

    sessions: tuple[Session, ...]
    begins_at: float
    ends_at: float

    @property
    def seconds(self) -> float:
        """Return how long the time between is."""
        return self.ends_at - self.begins_at

    @property
    def roots(self) -> tuple[Session, ...]:
        """Return those without a session above them."""
        return tuple(one for one in self.sessions if not one.parent_id)

    @property
    def approved(self) -> tuple[Session, ...]:
        """Return those without a session above them that a person approved, whatever became of them."""
        return tuple(one for one in self.roots if one.approved_at)


def past_of_user(session: Session, lists: SessionLists, *, kept_seconds: float) -> Past:
    """Return the sessions of the session's user, in its tenant, that were requested before it, or at the same time.

    `kept_seconds` is how long the store keeps a session that is over.
    """
    return _past(session, SessionFilter(tenant=session.tenant, user=session.user), lists, kept_seconds)


def past_of_agent(session: Session, lists: SessionLists, *, kept_seconds: float) -> Past:
    """Return the sessions of the session's agent in the same way."""
    return _past(session, SessionFilter(tenant=session.tenant, agent=session.agent), lists, kept_seconds)


def _past(session: Session, which: SessionFilter, lists: SessionLists, kept_seconds: float) -> Past:
    ends_at = session.requested_at
    begins_at = ends_at - min(WINDOW_SECONDS, kept_seconds)
    found = list[Session]()
    for one in _newest_first(replace(which, requested_until=ends_at), lists):
        if one.id == session.id:
            continue
        if one.requested_at < begins_at:
            break
        if len(found) == MOST_SESSIONS:
            # What is older is not looked at, so nothing may be said about it.
            begins_at = found[-1].requested_at
            break
        found.append(one)
    return Past(sessions=tuple(found), begins_at=begins_at, ends_at=ends_at)


def _newest_first(which: SessionFilter, lists: SessionLists) -> Iterator[Session]:
    before: tuple[float, str] | None = None
    while page := lists.select(which, limit=_STEP, before=before):
        yield from page
        before = page[-1].requested_at, page[-1].id
