"""Keep what calls left behind in an SQLite file that any number of processes on one machine share.

It is another file than the sessions': what each call writes must not make every process read its sessions anew, and
need not wait for the disk.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Final

import apsw

from pdp.errors import OverloadedError, StoreUnavailableError, reason_of
from pdp.foundation.diskroom import free_bytes
from pdp.foundation.files import make_file, make_folder, sync_folder
from pdp.foundation.sqlite import ENGINE_ERRORS, committing, require_sound_engine, unavailable, use_log
from pdp.sessions.database import identity_of
from pdp.sessions.history import KEY_BYTES
from pdp.sessions.sqlhistory import SQLSessionHistory
from pdp.sessions.sqlitetables import prepare_history

_VERSION: Final = 1
_NAME: Final = "session history"
# For a history that is damaged.
HISTORY_REMEDY: Final = (
    "stop the server, move the file and its `-wal` away, and revoke the sessions that have budgets: these begin anew"
)
_BUSY: Final = "the session history is busy; nothing was written, try again"
# The log is cut to this after it has grown.
_LOG_BYTES: Final = 8 * 1024 * 1024
# Calls wait meanwhile.
_WIPE_MILLISECONDS: Final = 100


class SQLiteSessionHistory(SQLSessionHistory):
    """A `SessionHistory` in one file. Safe for threads; open it after forking, not before.

    `busy_seconds` is how long to wait for other writers, of this process and then of others, before `OverloadedError`.
    Nothing is written while the disk has less than `reserve_bytes` left, or when another file has taken the path. With
    `tells` it has events of access requests. A new file begins at `wall_at`, unix seconds.
    """

    _connection: apsw.Connection

    def __init__(
        self,
        path: Path,
        *,
        busy_seconds: float = 5.0,
        reserve_bytes: int = 0,
        tells: bool = False,
        wall_at: Callable[[], float] = time.time,
    ) -> None:
        require_sound_engine(apsw.sqlite_lib_version())
        self._path, self._reserve = path.absolute(), reserve_bytes
        self._busy_seconds = busy_seconds
        # A decision that only reads waits for no writer, of this process or another.
        self._lock, self._reading_lock = Lock(), Lock()
        try:
            make_folder(self._path.parent, sync_folder)
            make_file(self._path, bytes)
            self._identity = identity_of(self._path)
        except OSError as error:
            raise StoreUnavailableError(f"cannot create the session history `{path}`: {reason_of(error)}") from None
        try:
            connection = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READWRITE)
        except ENGINE_ERRORS as error:
            raise self._unavailable(error) from None
        try:
            connection.set_busy_timeout(round(busy_seconds * 1000))
            self._reader = self._open_reader()
            super().__init__(connection, self._reader, tells=tells, by_expiry="INDEXED BY access_unexpired")
            self._prepare(wall_at)
        except BaseException:
            connection.close(force=True)
            raise

    def close(self) -> None:
        """Close the file; afterwards the history does not answer."""
        with self._lock, self._reading_lock:
            self._connection.close()
            self._reader.close()

    def _prepare(self, wall_at: Callable[[], float]) -> None:
        try:
            use_log(self._connection, self._busy_seconds)
            # A commit is in the file of the system before it returns, and on the disk after a while.
            self._connection.execute("PRAGMA synchronous=NORMAL")
            # What is removed is written over: the arguments of calls, and the keys that they were sealed with.
            self._connection.execute("PRAGMA secure_delete=ON")
            self._connection.execute(f"PRAGMA journal_size_limit={_LOG_BYTES}")
            # Processes that start together wait for each other here.
            with self._transaction():
                prepare_history(self._connection)
                self._connection.execute(_FIRST, (_VERSION, secrets.token_bytes(KEY_BYTES)))
                self._counts.begin(wall_at())
                version: int = self._connection.execute("SELECT version FROM history").get
        except ENGINE_ERRORS as error:
            raise self._unavailable(error) from None
        if version != _VERSION:
            raise StoreUnavailableError(
                f"the session history has version `{version}`, and this program knows `{_VERSION}`: upgrade the program"
            )

    def _open_reader(self) -> apsw.Connection:
        try:
            reader = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READWRITE)
            reader.set_busy_timeout(round(self._busy_seconds * 1000))
            reader.execute("PRAGMA query_only=ON")
        except ENGINE_ERRORS as error:
            raise self._unavailable(error) from None
        return reader

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._held(self._reading_lock):
            yield

    @contextmanager
    def _answering(self) -> Iterator[None]:
        with self._held(self._lock):
            yield

    @contextmanager
    def _held(self, lock: Lock) -> Iterator[None]:
        if not lock.acquire(timeout=self._busy_seconds):
            raise OverloadedError(_BUSY)
        try:
            self._require_same_file()
            yield
        except apsw.BusyError:
            raise OverloadedError(_BUSY) from None
        except ENGINE_ERRORS as error:
            raise self._unavailable(error) from None
        finally:
            lock.release()

    def _unavailable(self, error: Exception) -> StoreUnavailableError:
        return unavailable(error, _NAME, self._path, remedy=HISTORY_REMEDY)

    def _require_same_file(self) -> None:
        # Other processes that start now use the file at the path, and with it another secret.
        try:
            same = identity_of(self._path) == self._identity
        except OSError:
            same = False
        if not same:
            raise StoreUnavailableError(f"the session history was moved, removed or replaced: `{self._path}`")

    @contextmanager
    def _with_room(self) -> Iterator[None]:
        with self._answering():
            with suppress(OSError):
                if self._reserve and free_bytes(self._path.parent) < self._reserve:
                    raise StoreUnavailableError("the disk of the session history is nearly full")
            yield

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._with_room(), self._transaction():
            yield

    def _durably(self) -> AbstractContextManager[None]:
        return self._on_disk(self._answering)

    def _spending(self) -> AbstractContextManager[None]:
        return self._on_disk(self._with_room)

    @contextmanager
    def _on_disk(self, holding: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
        """Make a transaction that is on the disk before it returns."""
        with holding():
            self._connection.execute("PRAGMA synchronous=FULL")
            try:
                with self._transaction():
                    yield
            finally:
                self._connection.execute("PRAGMA synchronous=NORMAL")

    def _wipe(self) -> None:
        """Write the log into the file and cut it, so that it does not hold what was removed; not while others read."""
        # The removal itself is done. If this fails, the next writer that begins the log anew takes its last trace away.
        with suppress(StoreUnavailableError, OverloadedError), self._answering():
            self._connection.set_busy_timeout(_WIPE_MILLISECONDS)
            try:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                self._connection.set_busy_timeout(round(self._busy_seconds * 1000))

    def _note_closed(self, ids: Collection[str]) -> None:
        pass

    @contextmanager
    def _removing(self) -> Iterator[None]:
        with self._answering(), self._transaction():
            yield

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        # Not as `with self._connection`: that waits for other writers while no other thread of this process can run, so
        # a writer among them could not go on.
        self._connection.execute("BEGIN IMMEDIATE")
        with committing(self._connection):
            yield


_FIRST: Final = "INSERT INTO history VALUES (1, ?, ?) ON CONFLICT DO NOTHING"
