"""Keep the public keys of call tokens: in memory, and in the database of the session history."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import replace
from threading import Lock
from typing import Any, Final

from pdp.sessions.memorywrites import MemoryWrites
from pdp.sessions.sql import Statements
from pdp.sessions.sqlwrites import SQLWrites
from pdp.sessions.values import PublishedKey
from pdp.sessions.writes import Write

Context = Callable[[], AbstractContextManager[None]]


class MemoryCallTokenKeys:
    """The `CallTokenKeys` of a history in memory, under its lock. `require_open` raises when that is closed.

    `writes` are the changes that the history remembers.
    """

    def __init__(self, lock: Lock, require_open: Callable[[], None], writes: MemoryWrites) -> None:
        self._lock = lock
        self._writes = writes
        self._require_open = require_open
        self._keys: dict[str, PublishedKey] = {}

    def publish(self, key: PublishedKey) -> None:
        """Add a key, and remove those that have ended."""
        with self._lock:
            self._require_open()
            self._keys = {id_: one for id_, one in self._keys.items() if one.ends_at > key.published_at}
            self._keys[key.id] = key

    def get(self, key_id: str) -> PublishedKey | None:
        """Return a key."""
        with self._lock:
            self._require_open()
            return self._keys.get(key_id)

    def published(self, *, wall_at: float, limit: int) -> tuple[PublishedKey, ...]:
        """Return the keys that count."""
        with self._lock:
            self._require_open()
            good = [key for key in self._keys.values() if not key.withdrawn and key.ends_at > wall_at]
        return tuple(sorted(good, key=lambda key: (key.published_at, key.id), reverse=True)[:limit])

    def withdraw(self, key_id: str, *, wall_at: float, write: Write | None = None) -> bool:
        """Withdraw a key."""
        with self._lock:
            self._require_open()
            key = self._keys.get(key_id)
            if key is not None:
                self._writes.require_new(write, wall_at=wall_at)
                self._writes.remember(write, (key_id,), wall_at=wall_at)
                self._keys[key_id] = replace(key, withdrawn=True)
            return key is not None

    def clear(self) -> None:
        """Forget all keys. The lock is held."""
        self._keys.clear()


class SQLCallTokenKeys:
    """The `CallTokenKeys` of a history in a file; a part of it, on the same connection.

    `reading` answers, `publishing` makes a transaction, and `withdrawing` one that is on the disk when it returns, in
    which `noted` is told of the keys.
    """

    def __init__(
        self,
        connection: Statements,
        *,
        reading: Context,
        publishing: Context,
        withdrawing: Context,
        noted: Callable[[Collection[str]], None],
    ) -> None:
        self._connection = connection
        self._reading = reading
        self._publishing = publishing
        self._withdrawing = withdrawing
        self._noted = noted
        self._writes = SQLWrites(connection)

    def publish(self, key: PublishedKey) -> None:
        """Add a key, and remove those that have ended."""
        with self._publishing():
            self._connection.execute("DELETE FROM call_token_keys WHERE ends_at <= ?", (key.published_at,))
            row = (key.id, key.content, key.published_at, key.ends_at)
            self._connection.execute("INSERT INTO call_token_keys VALUES (?, ?, ?, ?, 0)", row)

    def get(self, key_id: str) -> PublishedKey | None:
        """Return a key."""
        with self._reading():
            row: Any = self._connection.execute(f"{_SELECT} WHERE id = ?", (key_id,)).fetchone()
        return None if row is None else _key(*row)

    def published(self, *, wall_at: float, limit: int) -> tuple[PublishedKey, ...]:
        """Return the keys that count."""
        with self._reading():
            rows: list[Any] = self._connection.execute(_PUBLISHED, (wall_at, limit)).fetchall()
        return tuple(_key(*row) for row in rows)

    def withdraw(self, key_id: str, *, wall_at: float, write: Write | None = None) -> bool:
        """Withdraw a key."""
        with self._withdrawing():
            self._connection.execute("UPDATE call_token_keys SET withdrawn = 1 WHERE id = ?", (key_id,))
            known = self._connection.changes() > 0
            if known:
                self._writes.remember(write, (key_id,), wall_at=wall_at)
                self._noted((key_id,))
            return known


def is_withdrawn(connection: Statements, key_id: str) -> bool:
    """Say whether there is a key that was withdrawn."""
    return bool(connection.execute("SELECT withdrawn FROM call_token_keys WHERE id = ?", (key_id,)).get)


def _key(id_: str, content: bytes, published_at: float, ends_at: float, withdrawn: int) -> PublishedKey:
    return PublishedKey(id=id_, content=content, published_at=published_at, ends_at=ends_at, withdrawn=bool(withdrawn))


_SELECT: Final = "SELECT id, content, published_at, ends_at, withdrawn FROM call_token_keys"
_PUBLISHED: Final = f"{_SELECT} WHERE withdrawn = 0 AND ends_at > ? ORDER BY published_at DESC, id DESC LIMIT ?"
