"""Accept a database of PostgreSQL that its operators have restored, without restoring authority that was taken away.

As `restoring.py` does with a file: what is live in it is revoked, unless the operator decides otherwise. When nothing
is live, nothing rests on a time that has not come: a high-water mark that is ahead of the clock of the database is
taken back to that.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

from pdp.clock import Instant, no_earlier, utc_text
from pdp.sessions import lifecycle
from pdp.sessions.acknowledged import AcknowledgedFile
from pdp.sessions.care import StoreReport
from pdp.sessions.postgressettling import SettlingStore
from pdp.sessions.postgressteps import POSTGRES_SCHEMA_VERSION
from pdp.sessions.restoring import BY, Restored


def accept(
    conninfo: str, *, now: Instant, keep_sessions: bool = False, known_revision: int = 0, file: Path | None = None
) -> Restored:
    """Accept the store in a database as it is; with `keep_sessions`, its live sessions stay live.

    It counts its changes from `known_revision`, the last one in the record, or from the one in the `file` of this
    machine, if that is higher. Raise `StoreUnavailableError` when it cannot be read or written, and `OSError` when the
    file cannot.
    """
    with ExitStack() as opened:
        store = opened.enter_context(closing(SettlingStore(conninfo)))
        known = opened.enter_context(closing(AcknowledgedFile(file, deployment=store.deployment()))) if file else None
        report = StoreReport(
            schema_version=POSTGRES_SCHEMA_VERSION,
            sessions=store.count_by_state(),
            revision=store.acknowledged(),
            high_water_at=store.high_water_at(),
            known_schema=POSTGRES_SCHEMA_VERSION,
        )
        # INVARIANT: what was over by the mark is revoked as well, if the mark falls below its end.
        now = no_earlier(now, report.high_water_at) if keep_sessions else now._replace(wall_at=store.database_at())
        reason = f"restored from a backup of {utc_text(report.high_water_at)}: what was revoked after it is not known"
        change = None if keep_sessions else lifecycle.revoke(now, by=BY, reason=reason)
        beyond = max(known_revision, known.read().head.revision + 1 if known else 0)
        seen = store.standing()
        kept, revoked = store.replace(
            change, beyond=beyond, wall_at=now.wall_at, seen=seen, resets_mark=not keep_sessions
        )
        if known is not None:
            known.keep(kept)
    return Restored(backup=report, revoked=revoked, replaced=None)
