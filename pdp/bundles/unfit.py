"""The sessions that a bundle denies every call, because their terms do not fit its schema."""

from __future__ import annotations

from functools import cache
from itertools import islice
from typing import Final

from pdp.clock import Instant
from pdp.foundation.paging import Position, rows_of
from pdp.model import Session, SessionState
from pdp.policy.bundle import Bundle
from pdp.sessions.store import SessionLists
from pdp.sessions.values import SessionFilter

# An activation is answered after so many sessions are read, so there is a bound.
MOST_READ: Final = 10_000
_STEP: Final = 500


def unfit_sessions(bundle: Bundle, sessions: SessionLists, now: Instant) -> int:
    """Count the active sessions, of the newest 10,000, whose terms do not fit a bundle.

    Raise `StoreUnavailableError` and `OverloadedError` when they cannot be read.
    """
    # Many sessions have the same terms, or none.
    fits = cache(bundle.fits_terms)
    active = SessionFilter(states=frozenset({SessionState.ACTIVE}), ends_after=now.wall_at)
    rows = rows_of(lambda start: sessions.select(active, limit=_STEP, before=start), _position, step=_STEP)
    return sum(not fits(session.terms_json) for session in islice(rows, MOST_READ))


def _position(session: Session) -> Position:
    return session.requested_at, session.id
