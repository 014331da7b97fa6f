"""The life cycle of a session as pure functions: its state, and the changes that are allowed.

REQUESTED → ACTIVE → ENDED | EXPIRED | REVOKED; REQUESTED → DENIED | EXPIRED | ENDED | REVOKED.
Terminal states absorb. There is no suspend, extend, renew or refresh.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf

from pdp.clock import Deadline, Instant
from pdp.errors import WrongStateError
from pdp.model import Scope, Session, SessionState

LIVE = frozenset({SessionState.REQUESTED, SessionState.ACTIVE})


def state_of(session: Session, now: Instant) -> SessionState:
    """Return the present state of a session. The one function that knows about expiry.

    A session whose end is in doubt has expired, until the clock is right.
    """
    if session.state not in LIVE:
        return session.state
    deadline = session.deadline
    if deadline.passed(now) or (now.astray and deadline.needs_wall_clock(now)):
        return SessionState.EXPIRED
    return session.state


def earliest_end(chain: Sequence[Session], now: Instant) -> Deadline:
    """Return the earliest end in a chain; the chain holds at least one session."""
    # Starts with this boot, so that its clock counts even when sessions of the chain are older.
    end = Deadline(wall_at=inf, boot_at=inf, boot_id=now.boot_id)
    for session in chain:
        end = end.earliest(session.deadline)
    return end


def approve(
    session: Session,
    now: Instant,
    *,
    scope: Scope,
    grants: tuple[str, ...],
    widening: frozenset[str],
    by: str,
    no_later_than: Deadline | None,
) -> Session:
    """Return the approved session: its time starts; its tools and its widening labels are fixed.

    `widening` are the widening labels that it has, or that its tools can add. `no_later_than` limits its end, for a
    session below another. Raise `WrongStateError` unless REQUESTED.
    """
    _require(session, now, SessionState.REQUESTED)
    deadline = Deadline.after(now, session.duration)
    return replace(
        session,
        state=SessionState.ACTIVE,
        epoch=session.epoch + 1,
        scope=scope,
        grants=tuple(sorted(set(grants))),
        widening_labels=tuple(sorted(widening)),
        deadline=deadline.earliest(no_later_than) if no_later_than else deadline,
        approved_at=now.wall_at,
        approved_by=by,
    )


def deny(session: Session, now: Instant, *, by: str, reason: str) -> Session:
    """Return the denied session. Raise `WrongStateError` unless REQUESTED, or so again after a reboot."""
    if session.state is not SessionState.REQUESTED or over_for_good(session, now):
        _require(session, now, SessionState.REQUESTED)
    return _closed(session, SessionState.DENIED, now, by, reason)


def end(now: Instant, *, by: str) -> Callable[[Session], Session | None]:
    """Return the change that ends a live session and leaves any other as it is."""
    return lambda session: _close_live(session, SessionState.ENDED, now, by, "")


def revoke(now: Instant, *, by: str, reason: str) -> Callable[[Session], Session | None]:
    """Return the change that revokes a live session and leaves any other as it is."""
    return lambda session: _close_live(session, SessionState.REVOKED, now, by, reason)


def narrow(
    session: Session, now: Instant, *, scope: Scope, deadline: Deadline, labels: tuple[str, ...]
) -> Session | None:
    """Return the narrowed session, or None when nothing changes. Raise `WrongStateError` unless ACTIVE, or so again.

    INVARIANT: the scope is part of the present one, the deadline is not later, and no label is lost.
    """
    if session.state is not SessionState.ACTIVE or over_for_good(session, now):
        _require(session, now, SessionState.ACTIVE)
    if session.scope is None or not scope.tools.items() <= session.scope.tools.items():
        raise WrongStateError("a session can only be narrowed")
    narrowed = replace(
        session,
        epoch=session.epoch + 1,
        scope=scope,
        # The new deadline was set in this boot, the present one perhaps in an earlier boot.
        deadline=deadline.earliest(session.deadline),
        labels=tuple(sorted({*session.labels, *labels})),
    )
    return None if replace(narrowed, epoch=session.epoch) == session else narrowed


def labelled(labels: frozenset[str], *, by: str) -> Callable[[Session], Session | None]:
    """Return the change that adds labels; `by` is the id of the decision that adds them."""

    def change(session: Session) -> Session | None:
        fresh = labels.difference(session.labels)
        if not fresh:
            return None
        return replace(
            session,
            epoch=session.epoch + 1,
            labels=tuple(sorted({*session.labels, *fresh})),
            label_origins={**session.label_origins, **dict.fromkeys(fresh, by)},
        )

    return change


def recapture(session: Session, now: Instant, entities_json: str | None, *, by: str) -> Session | None:
    """Return the session with the directory's present data; None when unchanged, or the session is over.

    A session whose user or agent is gone (`entities_json` is None) is revoked.
    """
    if entities_json is None:
        return _close_live(session, SessionState.REVOKED, now, by, "its user or agent is no longer in the directory")
    if entities_json == session.entities_json or over_for_good(session, now):
        return None
    return replace(session, epoch=session.epoch + 1, entities_json=entities_json)


def over_at(session: Session) -> float:
    """Return the time at which a session is over for good, past or future; unix seconds."""
    return session.deadline.wall_at if session.state in LIVE else session.ended_at


def _close_live(session: Session, state: SessionState, now: Instant, by: str, reason: str) -> Session | None:
    return None if over_for_good(session, now) else _closed(session, state, now, by, reason)


def over_for_good(session: Session, now: Instant) -> bool:
    """Say whether nothing can bring a session back. Writing it raises the high-water mark to `now`.

    A session past its end only on the boot clock can come back: after a reboot only the wall clock can tell. A
    revocation and the directory's data from the meantime must hold then.
    """
    return session.state not in LIVE or now.wall_at >= session.deadline.wall_at


def _closed(session: Session, state: SessionState, now: Instant, by: str, reason: str) -> Session:
    return replace(session, state=state, epoch=session.epoch + 1, ended_at=now.wall_at, ended_by=by, reason=reason)


def _require(session: Session, now: Instant, wanted: SessionState) -> None:
    state = state_of(session, now)
    if state is not wanted:
        raise WrongStateError(f"the session is {state.value}, not {wanted.value}")
