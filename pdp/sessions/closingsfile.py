"""The notes of what the servers of one machine have closed, in a file of SQLite: those of the last hour.

A note is on the disk before its closing is acknowledged. After a failover the machine writes all of them again; then
it says so under the id of its file. A file that is lost or damaged begins anew with another id: so the machine of
before is missed, and what it had noted is not taken for written again.

Threads and processes note what they have closed in any order, since each does so after its commit. So notes are taken
in the order of the changes that made them: what was frozen twice is frozen as it was last. And of the notes that are
no longer kept, the latest change counts, which need not be that of the last note.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Final

import apsw

from pdp.errors import StoreUnavailableError, reason_of
from pdp.foundation.files import make_file, sync_folder
from pdp.foundation.sqlite import ENGINE_ERRORS, committing, require_sound_engine, set_pragmas, unavailable, use_log
from pdp.model import Head
from pdp.sessions.acknowledged import Known
from pdp.sessions.closings import Closing, Note

_LOG = logging.getLogger("pdp")

_NAME: Final = "file of closings"
_BUSY_SECONDS: Final = 2.0
# What a failover can have taken back is younger. There are so many notes at most, some 40 MB.
KEPT_SECONDS: Final = 3600.0
_MOST_NOTES: Final = 200_000

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS machine (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  id TEXT NOT NULL,
  deployment TEXT NOT NULL,
  timeline TEXT NOT NULL,
  dropped_revision INTEGER NOT NULL,
  dropped_tag TEXT NOT NULL,
  dropped_timeline TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS notes (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  revision INTEGER NOT NULL,
  tag TEXT NOT NULL,
  timeline TEXT NOT NULL,
  at REAL NOT NULL,
  closing TEXT NOT NULL,
  id TEXT NOT NULL,
  text TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS notes_by_age ON notes (at);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """All notes of a machine, each with the change that made the closing, in the order of these.

    `dropped` is the latest change whose notes are no longer kept.
    """

    machine: str
    notes: Sequence[tuple[Known, Note]]
    dropped: Known


class ClosingsFile:
    """The file of a machine about one `deployment`. Safe for threads; open it after forking, not before.

    Methods raise `StoreUnavailableError` when it cannot be read or written. `wall_at` returns unix seconds.
    """

    def __init__(self, path: Path, *, deployment: str, wall_at: Callable[[], float] = time.time) -> None:
        require_sound_engine(apsw.sqlite_lib_version())
        self._wall_at = wall_at
        self._lock = Lock()
        self._connection = _opened(path)
        with self._writing():
            self.machine = self._begun(deployment)

    def keep(self, known: Known, notes: Sequence[Note]) -> bool:
        """Note the closings of a change, durably.

        Return False, and note nothing, when the notes were taken to be written again on another timeline meanwhile.
        """
        head, now = known.head, self._wall_at()
        with self._writing():
            if self._connection.execute("SELECT timeline FROM machine").get not in ("", known.timeline):
                return False
            self._connection.executemany(
                _KEEP,
                [(head.revision, head.tag, known.timeline, now, one.closing.value, one.id, one.text) for one in notes],
            )
            self._drop(now)
            return True

    def take(self, timeline: str) -> Noted:
        """Return all notes, to be written again on a timeline. No change on another one is noted from here on."""
        with self._writing():
            self._connection.execute("UPDATE machine SET timeline = ?", (timeline,))
            rows: list[tuple[Any, ...]] = self._connection.execute(_NOTES).fetchall()
            dropped = self._connection.execute(
                "SELECT dropped_revision, dropped_tag, dropped_timeline FROM machine"
            ).get
        notes = [(_known(*row[:3]), Note(closing=Closing(row[3]), id=row[4], text=row[5])) for row in rows]
        return Noted(machine=self.machine, notes=notes, dropped=_known(*dropped))

    def close(self) -> None:
        """Close the file. Calling it twice is harmless."""
        with self._lock:
            self._connection.close()

    def _begun(self, deployment: str) -> str:
        """Return the id of the machine; what is of another database is nothing."""
        found = self._connection.execute("SELECT id, deployment FROM machine").get
        if found is not None and found[1] == deployment:
            return str(found[0])
        machine = secrets.token_hex(16)
        self._connection.execute("DELETE FROM notes; DELETE FROM machine")
        self._connection.execute("INSERT INTO machine VALUES (1, ?, ?, '', 0, '', '')", (machine, deployment))
        return machine

    def _drop(self, now: float) -> None:
        last = self._connection.execute(_OLD, (now - KEPT_SECONDS, _MOST_NOTES)).get
        if last is not None:
            self._connection.execute(_DROPPED, (last,))
            self._connection.execute("DELETE FROM notes WHERE position <= ?", (last,))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with self._lock:
                self._connection.execute("BEGIN IMMEDIATE")
                with committing(self._connection):
                    yield
        except ENGINE_ERRORS as error:
            raise unavailable(error, _NAME) from None


def _opened(path: Path) -> apsw.Connection:
    try:
        make_file(path, bytes)
        try:
            return _sound(path)
        except (apsw.NotADBError, apsw.CorruptError):
            _LOG.error("what this machine has closed is not known, because its notes are damaged: `%s`", path)
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            make_file(path, bytes)
            sync_folder(path.parent)
            return _sound(path)
    except OSError as error:
        raise StoreUnavailableError(f"cannot use `{path}`: {reason_of(error)}") from None
    except ENGINE_ERRORS as error:
        raise unavailable(error, _NAME) from None


def _sound(path: Path) -> apsw.Connection:
    """Open a file whose commits are on the disk when they return. Raise `apsw.CorruptError` when it is damaged."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.set_busy_timeout(round(_BUSY_SECONDS * 1000))
        use_log(connection, _BUSY_SECONDS)
        set_pragmas(connection, "synchronous=FULL")
        if connection.execute("PRAGMA quick_check(1)").get != "ok":
            raise apsw.CorruptError
        connection.execute(_SCHEMA)
    except BaseException:
        connection.close(force=True)
        raise
    return connection


def _known(revision: int, tag: str, timeline: str) -> Known:
    return Known(head=Head(revision=revision, tag=tag), timeline=timeline)


_KEEP: Final = "INSERT INTO notes (revision, tag, timeline, at, closing, id, text) VALUES (?, ?, ?, ?, ?, ?, ?)"
_NOTES: Final = "SELECT revision, tag, timeline, closing, id, text FROM notes ORDER BY timeline, revision, position"
_OLD: Final = """
SELECT position FROM notes
WHERE at <= ? OR position <= (SELECT max(position) FROM notes) - ? ORDER BY position DESC LIMIT 1
"""
_DROPPED: Final = """
UPDATE machine SET (dropped_timeline, dropped_revision, dropped_tag) = (
  SELECT timeline, revision, tag FROM notes WHERE position <= ?
  UNION SELECT dropped_timeline, dropped_revision, dropped_tag FROM machine
  ORDER BY timeline DESC, revision DESC, tag DESC LIMIT 1
)
"""
