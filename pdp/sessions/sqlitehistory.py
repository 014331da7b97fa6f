"""Keep what calls left behind in an SQLite file that any number of processes on one machine share.

It is another file than the sessions': what each call writes must not make every process read its sessions anew, and
need not wait for the disk.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Final

import apsw

from pdp.clock import Instant
from pdp.errors import OverloadedError, StoreUnavailableError, reason_of
from pdp.foundation.diskroom import free_bytes
from pdp.foundation.files import make_file, make_folder, sync_folder
from pdp.foundation.sqlite import ENGINE_ERRORS, committing, require_sound_engine, unavailable
from pdp.sessions.calltokenkeys import PUBLISHED_KEYS_SCHEMA, SQLiteCallTokenKeys
from pdp.sessions.database import identity_of, upgrade_tables
from pdp.sessions.history import KEY_BYTES, require_same
from pdp.sessions.sqliteaccess import SQLiteAccessRequests, prepare_access
from pdp.sessions.sqlitecounts import SQLiteCounts
from pdp.sessions.sqlitevalues import VALUES_SCHEMA, SQLiteValues
from pdp.sessions.store import BEGINNING, RETRY_SECONDS, AccessRequests, CallTokenKeys, ResultValues
from pdp.sessions.values import Charge, Charged, Counts, Debit, Report, Used

_VERSION: Final = 1
_NAME: Final = "session history"
_BUSY: Final = "the session history is busy; nothing was written, try again"
# The log is cut to this after it has grown, and old rows go in steps.
_LOG_BYTES: Final = 8 * 1024 * 1024
_ROWS_OF_A_STEP: Final = 2000
# Calls wait meanwhile.
_WIPE_MILLISECONDS: Final = 100


class _ExhaustedError(Exception):
    """Too little is left for a debit: nothing of its charge is written."""

    def __init__(self, debit: Debit) -> None:
        super().__init__(debit.budget)
        self.debit = debit


class SQLiteSessionHistory:
    """A `SessionHistory` in one file. Safe for threads; open it after forking, not before.

    `busy_seconds` is how long to wait for other writers, of this process and then of others, before `OverloadedError`.
    Nothing is written while the disk has less than `reserve_bytes` left, or when another file has taken the path. With
    `tells` it has events of access requests. A new file begins at `wall_at`, unix seconds.
    """

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
            self._connection = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READWRITE)
        except ENGINE_ERRORS as error:
            raise unavailable(error, _NAME) from None
        try:
            self._connection.set_busy_timeout(round(busy_seconds * 1000))
            self._counts = SQLiteCounts(self._connection)
            self._prepare(wall_at)
            self._reader = self._open_reader()
        except BaseException:
            self._connection.close(force=True)
            raise
        self._values = SQLiteValues(
            self._connection, self._reader, reading=self._reading, writing=self._writing, removing=self._removing
        )
        self._access = SQLiteAccessRequests(
            self._connection,
            reading=self._answering,
            writing=partial(self._durably, self._answering),
            spending=partial(self._durably, self._with_room),
            wipe=self._wipe,
            tells=tells,
        )
        self._call_token_keys = SQLiteCallTokenKeys(
            self._connection,
            reading=self._answering,
            publishing=self._writing,
            withdrawing=partial(self._durably, self._answering),
        )

    def key(self) -> bytes:
        """Return the random secret of the file."""
        with self._answering():
            key: Any = self._connection.execute("SELECT key FROM history").get
        return bytes(key)

    def values(self) -> ResultValues:
        """Return what results held, in the same file."""
        return self._values

    def access(self) -> AccessRequests:
        """Return the access requests in the same file."""
        return self._access

    def call_token_keys(self) -> CallTokenKeys:
        """Return the keys of call tokens in the same file."""
        return self._call_token_keys

    def keep_report(self, report: Report) -> None:
        """Keep a report, one for each decision."""
        with self._writing():
            self._connection.execute(_KEEP, (report.decision_id, report.digest, report.reported_at))
            if self._connection.changes():
                self._counts.fail(report.failed)
            require_same(self._connection.execute(_KEPT, (report.decision_id,)).get, report)

    def forget_reports(self, *, reported_before: float) -> int:
        """Remove the reports from before a time; return how many."""
        return self._delete("reports", "decision_id", "reported_at", reported_before)

    def charge(self, charge: Charge) -> Charged:
        """Take all debits of a charge and add to its counts, or nothing."""
        try:
            with self._writing():
                receipt = _recent(charge.retry_digest, charge.now)
                charged_at = self._connection.execute(_JOIN, receipt).get if charge.retry_digest else None
                if charged_at is not None:
                    return Charged(charged_at=float(charged_at))
                used = tuple([self._take(debit) for debit in charge.debits])
                self._counts.require_seen(charge.seen)
                self._counts.add(charge.addends)
                if charge.retry_digest:
                    now = charge.now
                    self._connection.execute(_SIGN, (charge.retry_digest, now.wall_at, now.boot_at, now.boot_id))
        except _ExhaustedError as error:
            return Charged(exhausted=error.debit)
        return Charged(used=used, charged_at=charge.at)

    def take_back(self, charge: Charge, charged_at: float) -> None:
        """Take back a charge, unless another try of the same call counts on it."""
        with self._removing():
            if charge.retry_digest:
                tries = self._connection.execute(_LEAVE, (charge.retry_digest, charged_at)).get
                # Another charge can have replaced one that is old.
                if tries is None or tries > 0:
                    return
                self._connection.execute(_TEAR, (charge.retry_digest,))
            self._connection.executemany(
                _GIVE_BACK, [(one.amount, one.session_id, one.budget, one.window) for one in charge.debits]
            )
            self._counts.take_back(charge.addends)

    def used(self, session_id: str) -> Mapping[str, Used]:
        """Return what is used up of the budgets of a session."""
        with self._answering():
            rows: list[tuple[Any, ...]] = self._connection.execute(_USED, (session_id,)).fetchall()
        return {budget: Used(used, window) for budget, used, window in rows}

    def counts(
        self,
        session_ids: Collection[str],
        names: Collection[str],
        *,
        retry_digest: bytes = b"",
        now: Instant = BEGINNING,
    ) -> Counts:
        """Return the counts of some sessions under some names."""
        with self._answering():
            # Before the counts: when the charge is taken back in between, these are not as they will be `seen`.
            receipt = _recent(retry_digest, now)
            retried = bool(retry_digest) and self._connection.execute(_RETRIED, receipt).get is not None
            return self._counts.of(session_ids, names, retried=retried)

    def forget_charges(self, *, ended_before: float, charged_before: float) -> int:
        """Remove what is kept of sessions that were over before a time, and what tells retries of old charges."""
        self._delete("receipts", "retry_digest", "charged_at", charged_before)
        gone = self._delete("counts", "(session_id, name)", "ends_at", ended_before)
        return gone + self._delete("budgets", "(session_id, budget)", "ends_at", ended_before)

    def close(self) -> None:
        """Close the file; afterwards the history does not answer."""
        with self._lock, self._reading_lock:
            self._connection.close()
            self._reader.close()

    def _delete(self, table: str, key: str, time: str, before: float) -> int:
        """Delete old rows in steps, between which others write; return how many."""
        columns = key.strip("()")
        total, removed = 0, _ROWS_OF_A_STEP
        while removed == _ROWS_OF_A_STEP:
            with self._removing():
                self._connection.execute(
                    f"DELETE FROM {table} WHERE {key} IN (SELECT {columns} FROM {table} WHERE {time} < ? LIMIT ?)",  # noqa: S608 - our own names
                    (before, _ROWS_OF_A_STEP),
                )
                removed = self._connection.changes()
            total += removed
        return total

    def _take(self, debit: Debit) -> int:
        values = (debit.session_id, debit.budget, debit.amount, debit.window, debit.ends_at)
        used: int | None = self._connection.execute(_TAKE, (*values, debit.amount, debit.most, debit.most)).get
        if used is None:
            raise _ExhaustedError(debit)
        return used

    def _prepare(self, wall_at: Callable[[], float]) -> None:
        try:
            self._connection.execute("PRAGMA journal_mode=WAL")
            # A commit is in the file of the system before it returns, and on the disk after a while.
            self._connection.execute("PRAGMA synchronous=NORMAL")
            # What is removed is written over: the arguments of calls, and the keys that they were sealed with.
            self._connection.execute("PRAGMA secure_delete=ON")
            self._connection.execute(f"PRAGMA journal_size_limit={_LOG_BYTES}")
            # Processes that start together wait for each other here.
            with self._transaction():
                upgrade_tables(self._connection, _UPGRADES)
                self._connection.execute(_SCHEMA + VALUES_SCHEMA + PUBLISHED_KEYS_SCHEMA)
                prepare_access(self._connection)
                self._connection.execute(_FIRST, (_VERSION, secrets.token_bytes(KEY_BYTES)))
                self._counts.prepare(wall_at())
                version: int = self._connection.execute("SELECT version FROM history").get
        except apsw.NotADBError:
            raise StoreUnavailableError(f"not a session history: `{self._path}`") from None
        except ENGINE_ERRORS as error:
            raise unavailable(error, _NAME) from None
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
            raise unavailable(error, _NAME) from None
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
            raise unavailable(error, _NAME) from None
        finally:
            lock.release()

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

    @contextmanager
    def _durably(self, holding: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
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


def _recent(retry_digest: bytes, now: Instant) -> tuple[bytes, float, str, float]:
    """Return the values for what finds a charge of the same call that is less than `RETRY_SECONDS` old."""
    return retry_digest, now.wall_at - RETRY_SECONDS, now.boot_id, now.boot_at - RETRY_SECONDS


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
CREATE TABLE IF NOT EXISTS budgets (
  session_id TEXT NOT NULL,
  budget TEXT NOT NULL,
  used INTEGER NOT NULL,
  window INTEGER NOT NULL,
  ends_at REAL NOT NULL,
  PRIMARY KEY (session_id, budget)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS budgets_by_end ON budgets (ends_at);
CREATE TABLE IF NOT EXISTS receipts (
  retry_digest BLOB PRIMARY KEY,
  charged_at REAL NOT NULL,
  tries INTEGER NOT NULL,
  boot_at REAL NOT NULL,
  boot_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS receipts_by_age ON receipts (charged_at);
"""
_UPGRADES: Final = (
    # It is created anew: its rows are good for a minute.
    ("receipts", "boot_id", "DROP TABLE receipts"),
)
_FIRST: Final = "INSERT INTO history VALUES (1, ?, ?) ON CONFLICT DO NOTHING"
_KEEP: Final = "INSERT INTO reports VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_KEPT: Final = "SELECT digest FROM reports WHERE decision_id = ?"
# Written without a sum of two numbers of 64 bits.
_TAKE: Final = """
INSERT INTO budgets AS known SELECT ?, ?, ?, ?, ? WHERE ? <= ?
ON CONFLICT DO UPDATE SET
  used = iif(known.window < excluded.window, 0, known.used) + excluded.used,
  window = max(known.window, excluded.window)
WHERE known.window < excluded.window OR known.used <= ? - excluded.used
RETURNING used
"""
_GIVE_BACK: Final = "UPDATE budgets SET used = used - ? WHERE session_id = ? AND budget = ? AND window = ?"
_USED: Final = "SELECT budget, used, window FROM budgets WHERE session_id = ?"
_RECENT: Final = "retry_digest = ? AND charged_at > ? AND NOT (boot_id = ? AND boot_at <= ?)"
_JOIN: Final = f"UPDATE receipts SET tries = tries + 1 WHERE {_RECENT} RETURNING charged_at"  # noqa: S608 - words of our own
_SIGN: Final = "INSERT OR REPLACE INTO receipts VALUES (?, ?, 1, ?, ?)"
_LEAVE: Final = "UPDATE receipts SET tries = tries - 1 WHERE retry_digest = ? AND charged_at = ? RETURNING tries"
_TEAR: Final = "DELETE FROM receipts WHERE retry_digest = ?"
_RETRIED: Final = f"SELECT 1 FROM receipts WHERE {_RECENT}"  # noqa: S608 - words of our own
