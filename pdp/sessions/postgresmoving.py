"""A session store in a database of PostgreSQL as the source or the target of a move."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from pdp.errors import StoreUnavailableError
from pdp.sessions.acknowledged import Acknowledged
from pdp.sessions.moving import META, MOVING, Content, Half, Mark, Row, StoreState, Table
from pdp.sessions.movingrows import BATCH, fill, forget_mark, put_aside, put_back
from pdp.sessions.postgresconnection import PostgresConnection
from pdp.sessions.postgresfence import PostgresFence
from pdp.sessions.postgreslabels import bring_labels
from pdp.sessions.postgrestables import BEGIN, REPLICA_TABLES, mark_of, write_history, write_sessions
from pdp.sessions.scopes import ScopePool

_BUSY_SECONDS: Final = 10.0
# One statement can copy many rows; and the transaction is idle while the other side writes.
_SECONDS: Final = 60.0
_IDLE_SECONDS: Final = 600.0
_POLL_SECONDS: Final = 0.1


class PostgresSide:
    """The store in a database, as `StoreSide`. It must have all changes up to `known_revision`.

    The connections of a server that has ended can be there for `gone_seconds`.
    """

    def __init__(
        self,
        conninfo: str,
        *,
        namespace: str = "pdp",
        known_revision: int = 0,
        gone_seconds: float = 5.0,
    ) -> None:
        self._namespaces = {half: f"{namespace}_{half.value}" for half in Half}
        self._gone_seconds = gone_seconds
        self._known_revision = known_revision
        self._connection = PostgresConnection(
            conninfo,
            namespace=self._namespaces[Half.SESSIONS],
            name="session store",
            busy_seconds=_BUSY_SECONDS,
            seconds=_SECONDS,
            idle_seconds=_IDLE_SECONDS,
        )

    @property
    def name(self) -> str:
        """Return the name of the database, and its host."""
        return self._connection.place

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Raise when a server uses the store. One that starts later cannot go on with a store that was set aside."""
        give_up_at = time.monotonic() + self._gone_seconds
        with self._connection.answering():
            while self._connection.execute(_OTHERS).get:
                if time.monotonic() >= give_up_at:
                    raise StoreUnavailableError(f"a server uses the session store: `{self.name}`; stop it first")
                time.sleep(_POLL_SECONDS)
        yield

    def state(self) -> StoreState:
        """Return whether servers can start on it."""
        namespace = self._namespaces[Half.SESSIONS]
        with self._connection.answering():
            found = self._connection.execute("SELECT CAST(to_regclass(?) AS text)", (f"{namespace}.{META}",)).get
            return StoreState(found is not None, mark_of(self._connection, namespace))

    @contextmanager
    def reading(self) -> Iterator[Content]:
        """Give what it holds, while servers may go on."""
        with self._connection.answering(), self._connection.snapshot():
            yield _Tables(self._into)

    @contextmanager
    def leaving(self, mark: Mark) -> Iterator[Content]:
        """Give what it holds, and set it aside at the end of the `with` block."""
        with self._connection.answering(), self._connection.transaction(BEGIN):
            self._write_tables()
            # Nothing is written from here on, by a server that has started meanwhile either.
            names = f"{self._namespaces[Half.SESSIONS]}.{META}, {self._namespaces[Half.HISTORY]}.history"
            self._connection.execute(f"LOCK TABLE {names} IN EXCLUSIVE MODE")
            revision = int(self._into(Half.SESSIONS).execute("SELECT revision FROM meta").get)
            Acknowledged(0).require(revision, self._known_revision)
            bring_labels(self._connection, ScopePool())
            yield _Tables(self._into)
            put_aside(self._into(Half.SESSIONS), mark)

    def outwait(self) -> None:
        """Wait for the leases of servers that were cut off, or have started meanwhile."""
        namespace = self._namespaces[Half.SESSIONS]
        with self._connection.answering():
            revision = int(self._connection.execute("SELECT revision FROM meta_aside").get)
        fence = PostgresFence(self._connection, channel=namespace)
        # A revision that none confirms any more.
        fence.wait(revision + 1)

    def receive(self, content: Content, mark: Mark, copied: Callable[[str], None]) -> None:
        """Write new tables with the content, in place of those that are there."""
        with self._connection.answering(), self._connection.transaction(BEGIN):
            if mark_of(self._connection, self._namespaces[Half.SESSIONS]):
                # What was in them was moved away, or came only in part.
                self._connection.execute(f"DROP TABLE {', '.join(self._all_tables())} CASCADE")
            self._write_tables()
            fill(self._into, _Tables(self._into).tables(), content, copied)
            for table, column in self._into(Half.HISTORY).execute(_NUMBERED).fetchall():
                self._connection.execute(_COUNT_ON.format(table=table, column=column))
            put_aside(self._into(Half.SESSIONS), mark)

    def activate(self) -> None:
        """Let servers start on what was received."""
        with self._connection.answering(), self._connection.transaction(BEGIN):
            put_back(self._connection)

    def forget_move(self) -> None:
        """Remove the note of the move that has brought the sessions here."""
        with self._connection.answering(), self._connection.transaction(BEGIN):
            forget_mark(self._connection)

    def _into(self, half: Half) -> PostgresConnection:
        """Return the connection, with the tables of one half until the end of the transaction."""
        self._connection.execute(f"SET LOCAL search_path TO {self._namespaces[half]}")
        return self._connection

    def _write_tables(self) -> None:
        for half, write in ((Half.SESSIONS, write_sessions), (Half.HISTORY, write_history)):
            write(self._into(half), self._namespaces[half])

    def _all_tables(self) -> list[str]:
        namespaces = tuple(self._namespaces.values())
        rows = self._connection.execute(_ALL_TABLES, namespaces)
        return [f"{namespace}.{name}" for namespace, name in rows]


class _Tables:
    """The content of a database, in a transaction; `into` gives the connection with the tables of one half."""

    def __init__(self, into: Callable[[Half], PostgresConnection]) -> None:
        self._into = into

    def tables(self) -> tuple[Table, ...]:
        """Return all tables."""
        columns: dict[tuple[Half, str], list[str]] = {}
        for half in Half:
            for table, column in self._into(half).execute(_COLUMNS):
                if table not in _STAYING:
                    columns.setdefault((half, table), []).append(column)
        return tuple(Table(half, name, tuple(names)) for (half, name), names in columns.items())

    def count(self, table: Table) -> int:
        """Return the number of rows of a table."""
        return int(self._into(table.half).execute(f"SELECT count(*) FROM {table.name}").get)  # noqa: S608 - a name of our own tables

    def rows(self, table: Table) -> Iterator[list[Row]]:
        """Yield the rows of a table, some at a time."""
        names = ", ".join(f'"{one}"' for one in table.columns)
        connection = self._into(table.half)
        connection.execute(f"DECLARE moved NO SCROLL CURSOR FOR SELECT {names} FROM {table.name}")  # noqa: S608 - the same
        while some := connection.execute(f"FETCH {BATCH} FROM moved").fetchall():
            yield list(some)
        connection.execute("CLOSE moved")


# Connections of servers, and of commands that write.
_OTHERS: Final = """
SELECT count(*) FROM pg_stat_activity
WHERE application_name = 'pdp' AND datname = current_database() AND pid != pg_backend_pid()
"""
_ALL_TABLES: Final = "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN (?, ?)"
_STAYING: Final = frozenset({MOVING, *REPLICA_TABLES})
_COLUMNS: Final = """
SELECT CAST(table_name AS text), CAST(column_name AS text) FROM information_schema.columns
WHERE table_schema = current_schema() ORDER BY table_name, ordinal_position
"""
# Columns that the database numbers itself.
_NUMBERED: Final = """
SELECT CAST(table_name AS text), CAST(column_name AS text) FROM information_schema.columns
WHERE table_schema = current_schema() AND is_identity = 'YES'
"""
_COUNT_ON: Final = """
SELECT setval(pg_get_serial_sequence('{table}', '{column}'), coalesce(max({column}), 0) + 1, false) FROM {table}
"""
