"""Read sessions from PostgreSQL; each read asks it whether anything has changed since the last one.

The question is about one row, on a connection that does nothing else. While its revision stays the same, so does all
that is remembered, because every write raises it in its own transaction, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable

from pdp.errors import StoreUnavailableError
from pdp.sessions.postgresconnection import BoundedLock, PostgresConnection
from pdp.sessions.scopes import ScopePool
from pdp.sessions.sqlrows import Chain
from pdp.sessions.watching import Key, Watching


class Acknowledged:
    """The latest revision that this process, or its record, knows to be acknowledged.

    A database that is behind it has lost acknowledged writes, and is used no longer.
    """

    def __init__(self, revision: int) -> None:
        self.revision = revision

    def require(self, revision: int, known: int) -> None:
        """Note the revision of the database; raise `StoreUnavailableError` when that is behind what was `known`."""
        if revision < known:
            raise StoreUnavailableError(
                f"the session store lacks the last {known - revision} changes that it acknowledged: an older state of "
                "the database has taken its place; to go on with it, see `pdp store restore`"
            )
        self.note(revision)

    def note(self, revision: int) -> None:
        """Note a revision that was acknowledged."""
        self.revision = max(self.revision, revision)


class PostgresWatcher(Watching):
    """What one process reads and remembers of a database. Safe for threads.

    A read waits for others of this process at most `busy_seconds`.
    """

    _connection: PostgresConnection

    def __init__(
        self,
        connection: PostgresConnection,
        scopes: ScopePool,
        acknowledged: Acknowledged,
        *,
        sessions_kept: int,
        busy_seconds: float,
    ) -> None:
        super().__init__(connection, scopes, BoundedLock(busy_seconds, "session store"), sessions_kept=sessions_kept)
        self._acknowledged = acknowledged
        self._opened = 0

    def close(self) -> None:
        """Close the connection and forget all sessions."""
        with self._lock:
            self._recent.clear()
            self._connection.close()

    def _read(self, key: Key, remembered: Callable[[Key], Chain | None], sql: str) -> Chain:
        with self._connection.answering():
            # Before the read: another thread can acknowledge a later one meanwhile.
            known = self._acknowledged.revision
            revision = int(self._connection.execute("SELECT revision FROM meta").get)
            if self._connection.opened != self._opened:
                # It can be another server now.
                self._recent.clear()
                self._revision, self._opened = -1, self._connection.opened
            self._acknowledged.require(revision, known)
            if revision == self._revision:
                chain = remembered(key)
                if chain is not None:
                    return chain
            with self._connection.snapshot():
                self._catch_up()
                chain = remembered(key)
                return chain if chain is not None else self._load(sql, key)
