"""Accept a database of PostgreSQL that its operators have restored, without restoring authority that was taken away.

As `restoring.py` does with a file: what is live in it is revoked, unless the operator decides otherwise.
"""

from __future__ import annotations

from contextlib import closing

from pdp.clock import Instant, no_earlier, utc_text
from pdp.sessions import lifecycle
from pdp.sessions.care import StoreReport
from pdp.sessions.database import SCHEMA_VERSION
from pdp.sessions.postgres import PostgresSessionStore
from pdp.sessions.restoring import BY, Restored
from pdp.sessions.values import SessionFilter


def accept(conninfo: str, *, now: Instant, keep_sessions: bool = False, known_revision: int = 0) -> Restored:
    """Accept the store in a database as it is; with `keep_sessions`, its live sessions stay live.

    It counts its changes from `known_revision`, the last one in the record, if that is higher. Raise
    `StoreUnavailableError` when it cannot be read or written.
    """
    with closing(PostgresSessionStore(conninfo)) as store:
        report = StoreReport(
            schema_version=SCHEMA_VERSION,
            sessions=store.count_by_state(),
            revision=store.acknowledged(),
            high_water_at=store.high_water_at(),
        )
        now = no_earlier(now, report.high_water_at)
        reason = f"restored from a backup of {utc_text(report.high_water_at)}: what was revoked after it is not known"
        change = lifecycle.revoke(now, by=BY, reason=reason)
        revoked = () if keep_sessions else store.change_where(SessionFilter(), change, wall_at=now.wall_at)
        store.count_from(known_revision, wall_at=now.wall_at)
    return Restored(backup=report, revoked=revoked, replaced=None)
