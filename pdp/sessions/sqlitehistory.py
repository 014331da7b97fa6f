"""Keep what calls left behind in an SQLite file that any number of processes on one machine share.

It is another file than the sessions': what each call writes must not make every process read its sessions anew, and
need not wait for the disk.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any, Final

import apsw

from pdp.errors import OverloadedError, StoreUnavailableError, reason_of
from pdp.foundation.diskroom import free_bytes
from pdp.foundation.files import make_file, make_folder, sync_folder
from pdp.sessions.database import ENGINE_ERRORS, require_sound_engine, unavailable
from pdp.sessions.history import KEY_BYTES, require_same
from pdp.sessions.values import Report

_VERSION: Final = 1


class SQLiteSessionHistory:
    """A `SessionHistory` in one file. Safe for threads; open it after forking, not before.

    `busy_seconds` is how long to wait for other writers before `OverloadedError`. Nothing is written while the disk has
    less than `reserve_bytes` left.
    """

    def __init__(self, path: Path, *, busy_seconds: float = 5.0, reserve_bytes: int = 0) -> None:
        require_sound_engine(apsw.sqlite_lib_version())
        self._path, self._reserve = path.absolute(), reserve_bytes
        self._lock = Lock()
        try:
            make_folder(self._path.parent, sync_folder)
            make_file(self._path, bytes)
        except OSError as error:
            raise StoreUnavailableError(f"cannot create the session history `{path}`: {reason_of(error)}") from None
        self._connection = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            self._connection.set_busy_timeout(round(busy_seconds * 1000))
            self._prepare()
        except BaseException:
            self._connection.close(force=True)
            raise

    def key(self) -> bytes:
        """Return the random secret of the file."""
        with self._answering():
            key: Any = self._connection.execute("SELECT key FROM history").get
        return bytes(key)

    def keep_report(self, report: Report) -> None:
        """Keep a report, one for each decision."""
        with self._writing():
            self._connection.execute(_KEEP, (report.decision_id, report.digest, report.reported_at))
            require_same(self._connection.execute(_KEPT, (report.decision_id,)).get, report)

    def forget_reports(self, *, reported_before: float) -> int:
        """Remove the reports from before a time; return how many."""
        with self._answering(), self._connection:
            self._connection.execute("DELETE FROM reports WHERE reported_at < ?", (reported_before,))
            removed: int = self._connection.changes()
        return removed

    def close(self) -> None:
        """Close the file; afterwards the history does not answer."""
        with self._lock:
            self._connection.close()

    def _prepare(self) -> None:
        try:
            self._connection.execute("PRAGMA journal_mode=WAL")
            # A commit is in the file of the system before it returns, and on the disk after a while.
            self._connection.execute("PRAGMA synchronous=NORMAL")
            # Processes that start together wait for each other here.
            self._connection.transaction_mode = "IMMEDIATE"
            with self._connection:
                self._connection.execute(_SCHEMA)
                self._connection.execute(_FIRST, (_VERSION, secrets.token_bytes(KEY_BYTES)))
                version: int = self._connection.execute("SELECT version FROM history").get
        except apsw.NotADBError:
            raise StoreUnavailableError(f"not a session history: `{self._path}`") from None
        except ENGINE_ERRORS as error:
            raise unavailable(error) from None
        if version != _VERSION:
            raise StoreUnavailableError(
                f"the session history has version `{version}`, and this program knows `{_VERSION}`: upgrade the program"
            )

    @contextmanager
    def _answering(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except apsw.BusyError:
                raise OverloadedError("the session history is busy; nothing was written, try again") from None
            except ENGINE_ERRORS as error:
                raise unavailable(error) from None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._answering():
            with suppress(OSError):
                if self._reserve and free_bytes(self._path.parent) < self._reserve:
                    raise StoreUnavailableError("the disk of the session history is nearly full")
            with self._connection:
                yield


_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS history (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  version INTEGER NOT NULL,
  key BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS reports (
  decision_id TEXT PRIMARY KEY,
  digest BLOB NOT NULL,
  reported_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS reports_by_age ON reports (reported_at);
"""
_FIRST: Final = "INSERT INTO history VALUES (1, ?, ?) ON CONFLICT DO NOTHING"
_KEEP: Final = "INSERT INTO reports VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_KEPT: Final = "SELECT digest FROM reports WHERE decision_id = ?"
