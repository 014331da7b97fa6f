"""Remember in SQL which changes were made under which request ids."""

from __future__ import annotations

import json

from pdp.errors import ConflictError
from pdp.sessions.sql import Statements
from pdp.sessions.writes import MOST_WRITES, WRITE_SECONDS, Write, Written, remembers


class SQLWrites:
    """The changes that a store remembers, on its connection for writes, in the transactions of the store."""

    def __init__(self, connection: Statements) -> None:
        self._connection = connection

    def remember(self, write: Write | None, ids: tuple[str, ...], *, wall_at: float) -> None:
        """Remember a change. Raise `ConflictError` when its request id was used meanwhile."""
        if write is None or not remembers(write, ids):
            return
        self._connection.execute(_FORGET_OLD, (wall_at - WRITE_SECONDS,))
        self._connection.execute(_FORGET_MANY, (MOST_WRITES - 1,))
        self._connection.execute(_REMEMBER, (write.key, write.digest, json.dumps(ids), wall_at))
        if not self._connection.changes():
            raise ConflictError("a change under this request id was made meanwhile")

    def find(self, write: Write, *, wall_at: float) -> tuple[str, ...] | None:
        """Return the ids that a remembered change has written; None for another one."""
        row = self._connection.execute(_FIND, (write.key, wall_at - WRITE_SECONDS)).fetchone()
        return Written(bytes(row[0]), tuple(json.loads(row[1]))).answer(write) if row else None


_FORGET_OLD = "DELETE FROM writes WHERE at <= ?"
_FORGET_MANY = "DELETE FROM writes WHERE position <= (SELECT max(position) FROM writes) - ?"
# Under the lock of the transaction, positions have no gaps.
_REMEMBER = """
INSERT INTO writes (position, key, digest, ids, at)
SELECT coalesce(max(position), 0) + 1, ?, ?, ?, ? FROM writes WHERE TRUE ON CONFLICT (key) DO NOTHING
"""
_FIND = "SELECT digest, ids FROM writes WHERE key = ? AND at > ?"
