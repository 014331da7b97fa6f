"""Choose from the settings how servers use PostgreSQL, and record what a failover has cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from pdp.decision.accessevents import access_event
from pdp.model import Caller, Session, SessionState
from pdp.observer import Event, EventKind
from pdp.registry.calltokens import key_withdrawn_event
from pdp.registry.events import closed_event
from pdp.registry.freezing import freeze_event
from pdp.sessions.access import AccessState
from pdp.sessions.closings import AGAIN
from pdp.sessions.fences import Fences
from pdp.sessions.lease import LeaseTerms
from pdp.sessions.postgres import PostgresSessionStore
from pdp.sessions.postgresbeginning import Beginning
from pdp.sessions.postgresfailover import Replication
from pdp.sessions.postgreshistory import PostgresSessionHistory
from pdp.sessions.postgresreplicas import PostgresReplicas
from pdp.sessions.postgressettling import BY, ClosedAgain, Settling, SettlingStore, WentBack
from pdp.sessions.sharedclock import SharedClock
from pdp.sessions.store import SessionStore
from pdp.sessions.unrecorded import KnownRows
from pdp.starting import postgres_of

if TYPE_CHECKING:
    from pdp.config.settings import Settings
    from pdp.record import DecisionLog


def open_postgres(
    settings: Settings, log: DecisionLog, clock: SharedClock, fences: Fences, *, busy_seconds: float
) -> PostgresSessionStore:
    """Open the session store in PostgreSQL. Raise `StoreUnavailableError`, or `ConfigurationError`."""
    conninfo, sessions = postgres_of(settings), settings.sessions
    common: dict[str, Any] = {
        "tells": settings.tells,
        "busy_seconds": busy_seconds,
        "fences": fences,
        "known_rows": KnownRows(log.chain),
    }

    def went_back(found: WentBack) -> None:
        log.event(_went_back(found, clock.now().wall_at))

    def revoked(ended: tuple[Session, ...]) -> None:
        for event in _revoked(ended):
            log.event(event)

    def again(closed: ClosedAgain) -> None:
        for event in _closed_again(closed, clock.now().wall_at):
            log.event(event)

    settling = Settling(
        opened=lambda: SettlingStore(conninfo, **common),
        history=lambda: PostgresSessionHistory(conninfo, tells=settings.tells, busy_seconds=busy_seconds),
        clock=clock,
        went_back=went_back,
        account=_revoked,
        revoked=revoked,
        again=again,
    )
    lease = LeaseTerms(file=settings.lease_file, seconds=sessions.lease_seconds, clock=clock.machine)
    return PostgresSessionStore(
        conninfo,
        bundles_kept=settings.policies.kept,
        known_revision=log.store_revision,
        lease=lease if sessions.lease_seconds else None,
        clock=clock,
        failover=settling.terms(Replication(sessions.replication), settings.acknowledged_file, settings.closings_file),
        **common,
    )


def replicas_of(settings: Settings, sessions: SessionStore, worker: int) -> PostgresReplicas:
    """Return what one process asks of the other servers on the same database, and tells them."""
    assert isinstance(sessions, PostgresSessionStore)  # noqa: S101 - the settings say so
    return PostgresReplicas(
        postgres_of(settings),
        # The first worker speaks for those of its machine.
        listens=worker <= 1,
        follows=settings.policies.watch,
        beginning=Beginning(sessions.begin_steps),
    )


# Recorded as the one that has written again what a failover may have lost.
_AGAIN: Final = Caller(id="store-reassert", kind="", roles=frozenset())
_KINDS: Final = MappingProxyType(
    {
        SessionState.ACTIVE: EventKind.SESSION_NARROWED,
        SessionState.DENIED: EventKind.SESSION_DENIED,
        SessionState.ENDED: EventKind.SESSION_ENDED,
        SessionState.REVOKED: EventKind.SESSION_REVOKED,
    }
)


_NOES: Final = MappingProxyType(
    {AccessState.DENIED: EventKind.ACCESS_DENIED, AccessState.REVOKED: EventKind.ACCESS_REVOKED}
)


def _closed_again(closed: ClosedAgain, at: float) -> Iterator[Event]:
    for session in closed.sessions:
        yield closed_event(_KINDS[session.state], session, _AGAIN, at)
    for freeze in closed.freezes:
        yield freeze_event(EventKind.FREEZE_SET, freeze, at=at, caller_id=_AGAIN.id)
    for request in closed.requests:
        yield access_event(_NOES[request.state], request, at=at, caller_id=_AGAIN.id)
    for key_id in closed.keys:
        yield key_withdrawn_event(key_id, _AGAIN, at, reason=AGAIN, known=True)


def _revoked(ended: Sequence[Session]) -> Iterator[Event]:
    for one in ended:
        facts = {"reason": one.reason}
        yield Event.of_session(EventKind.SESSION_REVOKED, one, at=one.ended_at, caller_id=BY, facts=facts)


def _went_back(found: WentBack, at: float) -> Event:
    facts = {
        "timeline": found.timeline,
        "revision": str(found.revision),
        "known_revision": str(found.known or ""),
        "changes_lost": "unknown" if found.lost is None else str(found.lost),
    }
    return Event(kind=EventKind.STORE_WENT_BACK, at=at, caller_id=BY, facts={k: v for k, v in facts.items() if v})
