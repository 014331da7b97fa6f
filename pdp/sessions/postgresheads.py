"""Note in PostgreSQL how far the record of each server reaches, where no one who changes a record's disk can change it.

The tables have a schema of their own: they stay when a store is moved, and whoever verifies needs to read no others.
"""

from __future__ import annotations

from contextlib import closing
from typing import Final

from pdp.errors import StoreUnavailableError
from pdp.sessions.notedheads import NotedHead, NotedHeads
from pdp.sessions.postgresconnection import SECONDS, BoundedLock, PostgresConnection
from pdp.sessions.postgrestables import BEGIN, DEPLOYMENT, missing
from pdp.sessions.sql import required

NAME: Final = "table of record heads"
_BUSY_SECONDS: Final = 5.0

_HEAD_TABLE: Final = """
CREATE TABLE heads (
  chain TEXT COLLATE "C" PRIMARY KEY,
  replica TEXT COLLATE "C" NOT NULL,
  seq BIGINT NOT NULL,
  hash TEXT COLLATE "C" NOT NULL,
  at DOUBLE PRECISION NOT NULL,
  key TEXT COLLATE "C" NOT NULL,
  signature TEXT COLLATE "C" NOT NULL,
  due_at DOUBLE PRECISION
);
"""
_NOW: Final = "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"
# A head never goes back, and none takes the place of another one of the same number.
_NOTE: Final = f"""
INSERT INTO heads AS noted VALUES (?, ?, ?, ?, ?, ?, ?, {_NOW} + CAST(? AS double precision))
ON CONFLICT (chain) DO UPDATE SET replica = excluded.replica, seq = excluded.seq, hash = excluded.hash,
  at = excluded.at, key = excluded.key, signature = excluded.signature, due_at = excluded.due_at
WHERE noted.seq < excluded.seq OR (noted.seq, noted.hash) = (excluded.seq, excluded.hash)
"""  # noqa: S608 - our own text
_HEADS: Final = f"""
SELECT chain, replica, seq, hash, at, key, signature, coalesce(due_at < {_NOW}, FALSE) FROM heads
ORDER BY replica, chain
"""  # noqa: S608 - the same


class PostgresHeads:
    """The noted heads in a database. Safe for threads. Methods raise `StoreUnavailableError` or `OverloadedError`.

    `conninfo` and `namespace` are as in `PostgresSessionStore`: the schema has `_record` behind it.
    """

    def __init__(
        self,
        conninfo: str,
        *,
        namespace: str = "pdp",
        busy_seconds: float = _BUSY_SECONDS,
        seconds: float = SECONDS,
    ) -> None:
        self._tables = f"{namespace}_record"
        self._lock = BoundedLock(busy_seconds, NAME)
        self._connection = PostgresConnection(
            conninfo, namespace=self._tables, name=NAME, busy_seconds=busy_seconds, seconds=seconds
        )

    def prepare(self) -> None:
        """Create the tables where they are missing."""
        with self._lock, self._connection.answering(), self._connection.transaction(BEGIN):
            if missing(self._connection, self._tables, "heads"):
                self._connection.execute(DEPLOYMENT)
                self._connection.execute(_HEAD_TABLE)

    def note(self, head: NotedHead, *, again_seconds: float | None) -> bool:
        """Note a head; say whether it does not contradict what is noted of its chain.

        The next one is due in `again_seconds`; None says that the chain has ended.
        """
        row = (head.chain, head.replica, head.seq, head.hash, head.at, head.key, head.signature, again_seconds)
        with self._lock, self._connection.answering(), self._connection.transaction("BEGIN"):
            self._connection.execute(_NOTE, row)
            return self._connection.changes() == 1

    def read(self) -> NotedHeads:
        """Return all that is noted."""
        with self._lock, self._connection.answering():
            if self._connection.execute("SELECT CAST(to_regclass('heads') AS text)").get is None:
                raise StoreUnavailableError("no server has noted in this database how far its record reaches")
            rows = self._connection.execute(_HEADS).fetchall()
            deployment = str(required(self._connection.execute("SELECT id FROM deployment").get, "deployment"))
        names = ("chain", "replica", "seq", "hash", "at", "key", "signature", "silent")
        return NotedHeads(
            deployment=deployment,
            heads=tuple(NotedHead(**dict(zip(names, row, strict=True))) for row in rows),
        )

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()


def noted_in(conninfo: str) -> NotedHeads:
    """Return what servers have noted in a database. Raise `StoreUnavailableError`, also when that is nothing."""
    with closing(PostgresHeads(conninfo)) as heads:
        return heads.read()
