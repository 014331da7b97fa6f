"""The stores of a server, opened as its settings say."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from pdp.clock import Instant, no_earlier
from pdp.errors import StoreUnavailableError
from pdp.sessions.fences import Fences
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.sessions.sqlitehistory import SQLiteSessionHistory

if TYPE_CHECKING:
    from pdp.config.settings import Settings
    from pdp.record import DecisionLog
    from pdp.sessions.postgres import PostgresSessionStore
    from pdp.telemetry.observer import Telemetry

from pdp.sessions.history import MemorySessionHistory, ReopeningHistory
from pdp.sessions.historycontract import SessionHistory
from pdp.sessions.memory import MemorySessionStore
from pdp.sessions.sharedclock import SharedClock
from pdp.sessions.store import SessionStore
from pdp.starting import postgres_of

_LOG = logging.getLogger("pdp")

# How long a change of a session waits for other writers.
_BUSY_SECONDS = 5.0
# And what a call changes: each waits for it.
_HISTORY_BUSY_SECONDS = 1.0


def open_history(settings: Settings, sessions: SessionStore, now: Callable[[], Instant]) -> SessionHistory:
    """Open what calls change. One that cannot be opened is opened again later, and until then refuses."""
    # Also in a control process: there too people refuse calls, and take approvals back.
    if settings.sessions.store == "memory":
        return MemorySessionHistory(tells=settings.tells)

    def reopen() -> SessionHistory:
        if settings.sessions.store == "postgres":
            from pdp.sessions.postgres import PostgresSessionStore  # noqa: PLC0415 - an extra brings its driver
            from pdp.sessions.postgreshistory import PostgresSessionHistory  # noqa: PLC0415 - see above

            return PostgresSessionHistory(
                postgres_of(settings),
                busy_seconds=_HISTORY_BUSY_SECONDS,
                tells=settings.tells,
                wall_at=lambda: now().wall_at,
                beside=sessions if isinstance(sessions, PostgresSessionStore) else None,
            )

        return SQLiteSessionHistory(
            settings.history_file,
            busy_seconds=_HISTORY_BUSY_SECONDS,
            reserve_bytes=settings.sessions.reserve_bytes,
            tells=settings.tells,
            wall_at=lambda: now().wall_at,
        )

    def failed(error: StoreUnavailableError) -> None:
        _LOG.error("calls cannot be reported, and those with a budget are denied: %s", error)

    return ReopeningHistory(reopen, on_failure=failed)


def open_store(settings: Settings, log: DecisionLog, clock: SharedClock, fences: Fences) -> SessionStore:
    """Open the sessions. Raise `ConfigurationError` or `StoreUnavailableError`."""
    if settings.sessions.store == "memory":
        return MemorySessionStore(bundles_kept=settings.policies.kept, tells=settings.tells)
    store: PostgresSessionStore | SQLiteSessionStore
    if settings.sessions.store == "postgres":
        from pdp.postgressettings import open_postgres  # noqa: PLC0415 - an extra brings its driver

        store = open_postgres(settings, log, clock, fences, busy_seconds=_BUSY_SECONDS)
    else:
        store = _open_sqlite(settings, log)
        if no_earlier(clock.now(), store.high_water_at()).astray:
            _LOG.error(
                "the clock is far behind the last write of the session store: until it is right, sessions from before "
                "the machine was restarted are denied as expired; see `pdp doctor`"
            )
    log.watch_store(store.acknowledged)
    return store


def watched_lease(settings: Settings, sessions: SessionStore, telemetry: Telemetry) -> Callable[[], bool]:
    """Return what says whether this machine has its lease, which telemetry reports; True where it needs none."""
    if not settings.sessions.lease_seconds:
        return lambda: True
    from pdp.sessions.postgres import PostgresSessionStore  # noqa: PLC0415 - an extra brings its driver

    lease = sessions.lease_standing if isinstance(sessions, PostgresSessionStore) else None
    if lease is None:
        return lambda: True
    telemetry.watch_lease(lease.age)
    return lease.held


def _open_sqlite(settings: Settings, log: DecisionLog) -> SQLiteSessionStore:
    return SQLiteSessionStore(
        settings.sessions_file,
        bundles_kept=settings.policies.kept,
        reserve_bytes=settings.sessions.reserve_bytes,
        tells=settings.tells,
        busy_seconds=_BUSY_SECONDS,
        known_revision=log.store_revision,
    )
