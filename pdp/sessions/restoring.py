"""Restore a backup of a session store without restoring authority that was taken away since.

A backup does not hold the ends and revocations that came after it. So every session that is live in it is revoked,
unless the operator decides otherwise. For the two values that must never fall, the clock's high-water mark and the
highest number of a signed bundle, the higher one of backup and present store is kept.
"""

from __future__ import annotations

import json
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import apsw

from pdp.clock import Instant, no_earlier, utc_text
from pdp.errors import StoreUnavailableError
from pdp.foundation.files import draft_of, sync_folder
from pdp.model import Session
from pdp.sessions import lifecycle
from pdp.sessions.care import StoreReport, copy, inspect, require_sound
from pdp.sessions.changesignal import forget_acknowledged, unused
from pdp.sessions.database import signal_path
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.sessions.values import SessionFilter

# Recorded as the one that revoked what a backup would bring back.
BY = "store-restore"


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """The result of a restore.

    `backup` is what the backup held, `revoked` the sessions that were live in it and no longer are, and `replaced` the
    file that now holds the former store; None when there was none.
    """

    backup: StoreReport
    revoked: tuple[Session, ...]
    replaced: Path | None


def restore(
    backup: Path, path: Path, *, now: Instant, keep_sessions: bool = False, known_revision: int = 0
) -> Restored:
    """Make a backup the store at `path`. With `keep_sessions`, its live sessions stay live.

    The new store counts its changes from `known_revision`, the last one in the record, if that is higher.

    The former store is kept beside it. Nothing changes before the backup is verified, copied and upgraded. Raise
    `StoreUnavailableError` when the backup is damaged or newer than this program, or when a server uses the store, and
    `OSError` when files cannot be written.
    """
    report = inspect(backup)
    require_sound(report, backup)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with unused(signal_path(path)), draft_of(path) as draft:
            copy(backup, draft)
            present = _present(path)
            revoked = _prepare(draft, (report, present), now, keep_sessions=keep_sessions)
            _count_from(draft, known_revision)
            replaced = _swap(draft, path, now, sound=not present.damage)
    except BlockingIOError:
        raise StoreUnavailableError(f"a server uses the session store: `{path}`; stop it, then restore") from None
    return Restored(backup=report, revoked=revoked, replaced=replaced)


def _present(path: Path) -> StoreReport:
    try:
        return inspect(path)
    except StoreUnavailableError as error:
        return StoreReport(schema_version=0, damage=(str(error),))


def _prepare(
    draft: Path, reports: tuple[StoreReport, StoreReport], now: Instant, *, keep_sessions: bool
) -> tuple[Session, ...]:
    report, _ = reports
    now = no_earlier(now, max(one.high_water_at for one in reports))
    number = max(one.highest_number for one in reports)
    # Opening the store upgrades it.
    with closing(SQLiteSessionStore(draft)) as store:
        store.touch(wall_at=now.wall_at)
        reason = f"restored from a backup of {utc_text(report.high_water_at)}: what was revoked after it is not known"
        change = lifecycle.revoke(now, by=BY, reason=reason)
        revoked = () if keep_sessions else store.change_where(SessionFilter(), change, wall_at=now.wall_at)
        active = store.active_bundle()
    # Bundles that came after the backup may not have counted the calls of its sessions.
    counted = json.dumps([(name, now.wall_at) for name, _ in (active.counted if active else ())])
    with closing(apsw.Connection(str(draft), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
        connection.execute(
            "UPDATE meta SET highest_number = max(highest_number, ?), bundle_counted = ?", (number, counted)
        )
    return revoked


def _count_from(draft: Path, revision: int) -> None:
    with closing(apsw.Connection(str(draft), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
        # A process that knows an earlier revision has seen none of these sessions.
        connection.execute(
            "UPDATE meta SET revision = max(revision, ?), forgotten_revision = max(revision, ?)", (revision, revision)
        )


def _swap(draft: Path, path: Path, now: Instant, *, sound: bool) -> Path | None:
    replaced = None
    if path.exists():
        if sound:
            _fold(path)
        replaced = path.with_name(f"{path.name}.replaced-{utc_text(now.wall_at).replace(':', '')}")
        replaced.hardlink_to(path)
        # The log of a damaged store stays with it; the new store must not read it.
        for suffix in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                path.with_name(path.name + suffix).rename(replaced.with_name(replaced.name + suffix))
    # Do this first: every revision acknowledged from here on is the new store's.
    forget_acknowledged(signal_path(path))
    draft.replace(path)
    sync_folder(path.parent)
    return replaced


def _fold(path: Path) -> None:
    """Write the log of a store into its file, so that an interruption from here on loses nothing."""
    with suppress(apsw.Error), closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
