"""A connection to PostgreSQL that waits for nothing longer than it says, and calls nothing done that may not be.

What it guards against was seen with real servers:

- No time-out of the server ends a commit that waits for a standby, and none of the network ends a connection that a
  stalled proxy keeps open. So each wait has a timer here, and when it ends the socket is closed.
- A cancelled commit returns as if it had been replicated, with a warning. So nothing is ever cancelled, and a commit
  that comes with a warning may not have been made.
- A process that is stopped inside a transaction keeps its locks. So the server ends a transaction that is idle.
- A pooler can drop what a connection asks for, or give it to another one. So it is checked, and refused.
- A primary that ends, or becomes a standby, is seen by one connection first. So the others are opened again as well.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import lru_cache
from itertools import islice
from threading import Lock
from typing import Any, Final, TypeVar

import psycopg
from psycopg import waiting
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import (
    AdminShutdown,
    CrashShutdown,
    DeadlockDetected,
    InsufficientPrivilege,
    LockNotAvailable,
    ReadOnlySqlTransaction,
    SerializationFailure,
)
from psycopg.pq import Conninfo, ConnStatus, TransactionStatus

from pdp.errors import ConfigurationError, OverloadedError, StoreUnavailableError
from pdp.foundation.hosts import Hosts
from pdp.foundation.postgrestexts import why_not_connected
from pdp.sessions.sql import Bindings

T = TypeVar("T")

OLDEST_SERVER: Final = 16
SECONDS: Final = 2.0
IDLE_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.1
# Values of one statement that are sent together, and waited for together.
_BATCH: Final = 1000
_UNSAFE: Final = "the write may or may not have been made"
_BUSY_ERRORS: Final = (LockNotAvailable, DeadlockDetected, SerializationFailure)
# The server is not the primary, or no longer.
_GONE_ERRORS: Final = (ReadOnlySqlTransaction, AdminShutdown, CrashShutdown)
# In these states a connection can go on.
_WHOLE: Final = frozenset({TransactionStatus.IDLE, TransactionStatus.INTRANS, TransactionStatus.INERROR})


class PostgresRows:
    """What a statement has returned, as `Rows`."""

    __slots__ = ("_rows",)

    def __init__(self, rows: list[tuple[Any, ...]]) -> None:
        self._rows = rows

    @property
    def get(self) -> Any:  # noqa: ANN401 - whatever the statement selects
        """Return the first row, or its value when it has only one; None without a row."""
        row = self._rows[0] if self._rows else None
        return row[0] if row is not None and len(row) == 1 else row

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the first row, or None."""
        return self._rows[0] if self._rows else None

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return all rows."""
        return self._rows

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self._rows)


class Primary:
    """What the connections of a process to one database share: where it is, and how often they lost its primary."""

    def __init__(self) -> None:
        self.hosts = Hosts()
        self.lost = 0


class PostgresConnection:
    """One connection as `Statements`, opened at its first use and again after a failure. Its user holds a lock.

    `conninfo` is a connection string of PostgreSQL, `namespace` the schema of its tables, and `name` what errors call
    the store. A wait for another writer takes at most `busy_seconds`, and any other wait for the server `seconds`. A
    transaction that is idle for `idle_seconds` ends: what holds it has stopped. Connections with the same `primary` are
    all opened again when one of them has lost it.

    `admit`, when it is set, is called with each connection that was opened, and raises when it is not to be used.
    """

    def __init__(
        self,
        conninfo: str,
        *,
        namespace: str,
        name: str,
        busy_seconds: float,
        seconds: float = SECONDS,
        idle_seconds: float = IDLE_SECONDS,
        primary: Primary | None = None,
    ) -> None:
        self._settings = {
            "synchronous_commit": "on",
            "idle_in_transaction_session_timeout": str(round(idle_seconds * 1000)),
            "lock_timeout": str(round(busy_seconds * 1000)),
            "search_path": namespace,
            # What says that a commit was not replicated is a warning.
            "client_min_messages": "warning",
            # What a role or a database can have set otherwise: a lock is waited for, and what is read then is the
            # latest; no number is rounded; and nothing ends but by the timers here.
            "default_transaction_isolation": "read committed",
            "extra_float_digits": "1",
            "statement_timeout": "0",
            "idle_session_timeout": "0",
        }
        # What has stopped while much is sent to it is not idle. Not checked: on a socket of the machine it is nothing.
        stopped = {"tcp_user_timeout": self._settings["idle_in_transaction_session_timeout"]}
        self._conninfo = _completed(conninfo, {**self._settings, **stopped}, seconds)
        # Where it is, for people: without user and password.
        self.place = _place_of(self._conninfo)
        self._name = name
        self._seconds = busy_seconds + seconds
        self._connection: _TimedConnection | None = None
        self._primary = primary or Primary()
        # How often the primary was lost when it was opened.
        self._lost = 0
        self.admit: Callable[[PostgresConnection], None] | None = None
        # That of its server, when `admit` has learned it.
        self.timeline = ""
        self._changes = 0
        self._closed = False
        # How often it was opened: what is remembered from before may be of another server.
        self.opened = 0

    def execute(self, statements: str, bindings: Bindings | None = None) -> PostgresRows:
        """Run a statement. Without `bindings` there may be several, of which the last one counts."""
        connection = self._live()
        try:
            cursor = connection.cursor()
            if bindings is None:
                cursor.execute(statements)
                while cursor.nextset():
                    pass
            else:
                cursor.execute(_translated(statements), bindings)
            self._changes = max(cursor.rowcount, 0)
            return PostgresRows(cursor.fetchall() if cursor.description else [])
        except BaseException as error:
            self._drop_if_broken(error)
            raise

    def executemany(self, statements: str, sequenceofbindings: Iterable[Bindings]) -> None:
        """Run a statement for each of many values, some at a time: no number of them is too many for one wait."""
        connection, values, self._changes = self._live(), iter(sequenceofbindings), 0
        try:
            while some := list(islice(values, _BATCH)):
                cursor = connection.cursor()
                cursor.executemany(_translated(statements), some)
                self._changes += max(cursor.rowcount, 0)
        except BaseException as error:
            self._drop_if_broken(error)
            raise

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Wait for the server at most so many seconds in the `with` block; to open a connection takes its own time."""
        before = self._seconds
        self._wait_at_most(seconds)
        try:
            yield
        finally:
            self._wait_at_most(before)

    def changes(self) -> int:
        """Return how many rows the last statement has changed."""
        return self._changes

    def listen(self, channel: str, heard: Callable[[], None]) -> None:
        """Have `heard` called by the next statement after another connection has notified a channel.

        The socket is readable then.
        """
        self._live().add_notify_handler(lambda _: heard())
        self.execute(f"LISTEN {channel}")

    def fileno(self) -> int | None:
        """Return the descriptor of the socket; None while there is no connection."""
        try:
            return None if self._connection is None else self._connection.fileno()
        except psycopg.Error:
            return None

    @contextmanager
    def transaction(self, begin: str) -> Iterator[None]:
        """Make a transaction, which `begin` begins; roll it back when the block raises.

        Raise `StoreUnavailableError` when it is not known whether it was committed.
        """
        with self._begun(begin):
            yield
        connection = self._live()
        connection.warned = False
        try:
            status = connection.execute("COMMIT").statusmessage
        except psycopg.Error:
            self.drop()
            raise StoreUnavailableError(f"the {self._name} does not answer: {_UNSAFE}") from None
        if status != "COMMIT" or connection.warned:
            self.drop()
            raise StoreUnavailableError(f"the {self._name} has not made a commit safe: {_UNSAFE}")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Have all that is read in the `with` block be of one moment."""
        with self._begun("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"):
            yield
        self.execute("COMMIT")

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Turn errors of the database into those of a store, which quote nothing that is stored."""
        try:
            yield
        except _BUSY_ERRORS:
            raise OverloadedError(f"the {self._name} is busy; nothing was written, try again") from None
        except (psycopg.Error, UnicodeError) as error:
            code = getattr(error, "sqlstate", None)
            reason = f"`{code}`" if code else why_not_connected(str(error)) or "no connection"
            if isinstance(error, InsufficientPrivilege):
                reason = f"its user lacks a right there, {reason}"
            raise StoreUnavailableError(f"the {self._name} does not answer: {reason}") from None

    def drop(self) -> None:
        """Close the socket at once; the next use opens another connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as ours:
                ours.shutdown(socket.SHUT_RDWR)
            connection.close()

    def lose_primary(self) -> None:
        """Have all connections with the same primary opened again."""
        self._primary.lost += 1

    def close(self) -> None:
        """Close it for good."""
        self._closed = True
        self.drop()

    def _wait_at_most(self, seconds: float) -> None:
        self._seconds = seconds
        if self._connection is not None:
            self._connection.seconds = seconds

    @contextmanager
    def _begun(self, begin: str) -> Iterator[None]:
        try:
            self._begin(begin)
            yield
        except BaseException:
            self._roll_back()
            raise

    def _begin(self, begin: str) -> None:
        before = self._connection
        try:
            self.execute(begin)
        except psycopg.OperationalError:
            if before is None or before is self._connection or before.silent:
                raise
            # It ended before anything was written: whoever ends authority need not ask again for that.
            self.execute(begin)

    def _roll_back(self) -> None:
        if self._connection is None:
            return
        try:
            if self._connection.info.transaction_status is not TransactionStatus.IDLE:
                self.execute("ROLLBACK")
        except psycopg.Error:
            self.drop()

    def _drop_if_broken(self, error: BaseException) -> None:
        connection, gone = self._connection, isinstance(error, _GONE_ERRORS)
        if gone:
            self.lose_primary()
        if connection is not None and (gone or connection.info.transaction_status not in _WHOLE):
            self.drop()

    def _live(self) -> _TimedConnection:
        if self._closed:
            raise StoreUnavailableError(f"the {self._name} does not answer: `closed`")
        if self._lost != self._primary.lost and self._idle():
            self.drop()
        if self._connection is None:
            self._lost = self._primary.lost
            connection = self._connected()
            connection.seconds = self._seconds
            self._connection = connection
            connection.add_notice_handler(connection.note)
            self.opened += 1
            try:
                self._require_ours(connection)
                if self.admit is not None:
                    self.admit(self)
            except BaseException:
                self.drop()
                raise
        return self._connection

    def _connected(self) -> _TimedConnection:
        given = _with_environment(conninfo_to_dict(self._conninfo))
        try:
            placed = self._primary.hosts.placed(given, float(given["connect_timeout"] or SECONDS))
        except TimeoutError:
            raise psycopg.OperationalError("the look-up of its host takes too long") from None
        except (OSError, UnicodeError):
            raise psycopg.OperationalError("failed to resolve host") from None
        return _TimedConnection.connect(autocommit=True, **placed)

    def _idle(self) -> bool:
        """Say whether it is in no transaction, which would end with it."""
        connection = self._connection
        return connection is not None and connection.info.transaction_status is TransactionStatus.IDLE

    def _require_ours(self, connection: _TimedConnection) -> None:
        version = connection.info.server_version // 10_000
        if version < OLDEST_SERVER:
            raise StoreUnavailableError(f"PostgreSQL {OLDEST_SERVER} or later is needed, and this is `{version}`")
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            # Any other lacks letters, and the first text with one of them keeps bundles from being activated.
            raise StoreUnavailableError(f"the database must have the encoding `UTF8`, and this one has `{encoding}`")
        query = "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)"
        found = dict(connection.execute(query, (list(self._settings),)).fetchall())
        for name, wanted in self._settings.items():
            if found.get(name) != wanted:
                raise StoreUnavailableError(
                    f"PostgreSQL has not taken the setting `{name}` of the {self._name}: there must be no pooler in "
                    "between"
                )


class BoundedLock(AbstractContextManager[None]):
    """A lock for which nobody waits longer than so many seconds; then `OverloadedError` for the store of a name."""

    def __init__(self, seconds: float, name: str) -> None:
        self._lock, self._seconds, self._name = Lock(), seconds, name

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=self._seconds):
            raise OverloadedError(f"the {self._name} is busy; nothing was written, try again")

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class _TimedConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose waits end by themselves, and are never cancelled."""

    seconds = SECONDS
    warned = False
    # Whether the last wait was too long, on a connection that had not ended.
    silent = False

    def wait(self, gen: PQGen[T], interval: float = _POLL_SECONDS, timeout: float | None = None) -> T:
        """Wait for the server."""
        # Not as in the base class, which cancels the statement when the process is interrupted.
        try:
            return waiting.wait(gen, self.pgconn.socket, interval=interval, timeout=timeout or self.seconds)
        except psycopg.OperationalError:
            # A number, with the library in C.
            self.silent = self.pgconn.status == ConnStatus.OK
            raise

    def note(self, _: psycopg.errors.Diagnostic) -> None:
        """Note that the server has warned."""
        self.warned = True


def _completed(conninfo: str, settings: Mapping[str, str], seconds: float) -> str:
    """Return a connection string with what this program asks for. Raise `ConfigurationError` when it is invalid."""
    escaped = {name: value.replace(" ", "\\ ") for name, value in settings.items()}
    options = " ".join(f"-c {name}={value}" for name, value in escaped.items())
    try:
        given = conninfo_to_dict(conninfo)
        if "://" in conninfo and any("@" in str(given.get(name) or "") for name in ("host", "dbname")):
            # Half of a password would be taken for the name of a host or database, and shown as that.
            raise ConfigurationError(
                "not a connection string of PostgreSQL: in a URL, write `@` and `/` in a password as `%40` and `%2F`"
            )
        if given.get("service"):
            # The library would look its host up by itself, for as long as that takes.
            raise ConfigurationError("name the service of PostgreSQL in `PGSERVICE`, not in its connection string")
        return make_conninfo(
            conninfo,
            # The last one counts.
            options=f"{given.get('options') or ''} {options}".strip(),
            application_name="pdp",
            client_encoding="UTF8",
            target_session_attrs="read-write",
            connect_timeout=max(round(seconds), 2),
        )
    except psycopg.Error:
        # `from None`: the inner message quotes the string, which can hold a password.
        raise ConfigurationError("not a connection string of PostgreSQL") from None


def _place_of(conninfo: str) -> str:
    given = conninfo_to_dict(conninfo)
    database, host = (given.get(name) for name in ("dbname", "host"))
    return " ".join(["PostgreSQL", *([f"database {database}"] if database else []), *([f"at {host}"] if host else [])])


def _with_environment(given: dict[str, Any]) -> dict[str, Any]:
    """Return parameters with where the environment says that a server is, such as `PGHOST`."""
    if "host" in given:
        return given
    named = {one.keyword.decode(): one.val for one in Conninfo.get_defaults()}
    return {**{name: value.decode() for name in ("host", "hostaddr", "port") if (value := named.get(name))}, **given}


@lru_cache(maxsize=1024)
def _translated(sql: str) -> str:
    """Return a statement with the marks of the driver."""
    return re.sub(r":(\w+)", r"%(\1)s", sql.replace("%", "%%").replace("?", "%s"))
