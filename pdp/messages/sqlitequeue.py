"""Keep messages in an SQLite file: the queue of one machine, whose sender holds a lock beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Final

import apsw

from pdp.errors import StoreUnavailableError, reason_of
from pdp.foundation.files import make_file, make_folder, sync_folder
from pdp.foundation.sqlite import ENGINE_ERRORS, committing, require_sound_engine, set_pragmas, unavailable, use_log
from pdp.messages.queue import BUSY_SECONDS, NAME, MessageQueue


class SQLiteMessageQueue(MessageQueue):
    """A `MessageQueue` in a file; `path` is `:memory:` for one that ends with its process."""

    _connection: apsw.Connection

    def __init__(self, path: Path) -> None:
        require_sound_engine(apsw.sqlite_lib_version())
        self._path, self._lock = path.absolute(), Lock()
        try:
            if str(path) != ":memory:":
                make_folder(path.parent, sync_folder)
                make_file(path, bytes)
            connection = apsw.Connection(str(path))
        except OSError as error:
            raise StoreUnavailableError(f"cannot create the {NAME} `{path}`: {reason_of(error)}") from None
        except ENGINE_ERRORS as error:
            raise self._unavailable(error) from None
        super().__init__(connection)
        try:
            connection.set_busy_timeout(round(BUSY_SECONDS * 1000))
            use_log(connection, BUSY_SECONDS)
            set_pragmas(connection, "synchronous=FULL")
            with self._writing():
                connection.execute(_SCHEMA)
        except BaseException as error:
            connection.close(force=True)
            if isinstance(error, ENGINE_ERRORS):
                raise self._unavailable(error) from None
            raise

    def lead(self) -> str:
        """Return the name of the one turn that there is: the caller holds the lock of the machine."""
        return "file"

    def forget_person(self, user: str, *, tenant: str, apply: bool) -> int:
        """Remove the messages of a tenant that name a person, also dead ones; return how many there are.

        Without `apply` none is removed. With it the file is rewritten, so that nothing of them is left.
        """
        who = (tenant, user)
        with self._writing():
            count: Any = self._connection.execute(f"SELECT count(*) FROM messages WHERE {_ABOUT}", who).get  # noqa: S608 - words of our own
            if apply:
                self._connection.execute(f"DELETE FROM messages WHERE {_ABOUT}", who)  # noqa: S608 - words of our own
        if apply:
            with self._reading():
                self._connection.execute("VACUUM")
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return int(count)

    def close(self) -> None:
        """Close the file. Calling it twice is harmless."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except ENGINE_ERRORS as error:
                raise self._unavailable(error) from None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._reading():
            self._connection.execute("BEGIN IMMEDIATE")
            with committing(self._connection):
                yield

    def _unavailable(self, error: Exception) -> StoreUnavailableError:
        remedy = "stop the server, and move the file and its `-wal` away: what waits in it is lost"
        return unavailable(error, NAME, self._path, remedy=remedy)

    def _require_turn(self) -> None:
        pass


_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS messages (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  receiver TEXT NOT NULL,
  event TEXT NOT NULL,
  dead INTEGER NOT NULL DEFAULT 0,
  created_at REAL NOT NULL,
  next_at REAL NOT NULL DEFAULT 0,
  attempts INTEGER NOT NULL DEFAULT 0,
  problem TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX IF NOT EXISTS messages_of_receiver ON messages (receiver, dead, position);
CREATE TABLE IF NOT EXISTS taken (event_id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS receivers (
  name TEXT PRIMARY KEY,
  sent INTEGER NOT NULL DEFAULT 0,
  sent_at REAL NOT NULL DEFAULT 0,
  failed INTEGER NOT NULL DEFAULT 0,
  problem TEXT NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;
"""
_ABOUT: Final = "event ->> '$.tenant' = ? AND ? IN (event ->> '$.user', event ->> '$.by')"
