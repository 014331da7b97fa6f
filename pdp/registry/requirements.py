"""What state a session must be in for a change."""

from __future__ import annotations

from collections.abc import Iterable

from pdp.clock import Instant
from pdp.errors import (
    WrongStateError,
)
from pdp.model import Session, SessionState
from pdp.policy.bundle import Bundle
from pdp.sessions.lifecycle import over_for_good, state_of


def require_endable(session: Session, now: Instant) -> None:
    """Raise `WrongStateError` for a session that is over for good: nothing is left to end."""
    if over_for_good(session, now):
        raise WrongStateError(f"the session is already {state_of(session, now).value}")


def require_waiting(session: Session, now: Instant) -> None:
    """Raise `WrongStateError`, which says what became of the session, unless it waits for approval."""
    state = state_of(session, now)
    if state is not SessionState.REQUESTED:
        by = session.ended_by or session.approved_by if state is session.state else ""
        raise WrongStateError(f"the session is {state.value}" + f" (by `{by}`)" * bool(by) + ", not requested")


def require_active(chain: Iterable[Session], bundle: Bundle, now: Instant) -> None:
    """Raise `WrongStateError` unless all of a chain are active, with labels that were approved."""
    for session in chain:
        state = state_of(session, now)
        if state is not SessionState.ACTIVE:
            raise WrongStateError(f"the parent session is {state.value}, not active")
        if unapproved := sorted(bundle.unapproved_labels(session)):
            raise WrongStateError(
                f"the parent session has the label `{unapproved[0]}`, which widens now but did not at its approval"
            )
