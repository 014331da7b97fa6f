"""Let what ends authority pass an activation in PostgreSQL, which can write many sessions in one transaction.

With fifty thousand sessions that takes ten seconds, in which no other can write, and others give up after five. So an
activation looks between pieces whether an ending waits, in this process or at the database, rolls back when one does,
and begins again after it. Where endings keep coming, each of its tries lets them wait longer before it gives way, and
the last one goes on to its end. An ending that would be refused meanwhile waits again.

They meet at a lock of the database beside the one that orders all writes: an ending shares it, an activation has it
alone. It is given in the order in which it was asked for, so that neither passes over the other. Earlier programs do
not take it: their endings wait as they did.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from pdp.errors import OverloadedError
from pdp.sessions.sql import Statements
from pdp.sessions.turns import Turns

T = TypeVar("T")

# How long each try of an activation lets endings wait before it gives way; one more gives way to none.
# Each try that gives way has written for nothing.
GIVES_WAY_AFTER: Final = (0.5, 1.0, 2.0)
# How often an ending that would be refused waits again, while an activation is under way.
_WAITS: Final = 20

# One lock for each store of a database.
_KEY: Final = 7091387
_STORE: Final = "CAST(CAST('meta' AS regclass) AS integer)"
_SHARE: Final = f"SELECT pg_advisory_xact_lock_shared({_KEY}, {_STORE})"
_ALONE: Final = f"SELECT pg_advisory_xact_lock({_KEY}, {_STORE})"
_LOCKS: Final = f"""
SELECT EXISTS (
  SELECT 1 FROM pg_locks JOIN pg_database ON pg_database.oid = database
  WHERE locktype = 'advisory' AND datname = current_database()
    AND classid = {_KEY} AND objid = CAST('meta' AS regclass) AND objsubid = 2 AND {{}}
)
"""  # noqa: S608 - words of our own
_ENDING_WAITS: Final = _LOCKS.format("mode = 'ShareLock' AND NOT granted")
# One that waits for this lock is under way, too: who comes later waits for it.
_UNDER_WAY: Final = _LOCKS.format("mode = 'ExclusiveLock'")


class PostgresPrecedence:
    """The precedence of endings in one process, whose threads write in `turns` on `connection`. Safe for threads.

    `seen` returns what a query says, on a connection that waits for no writer. `monotonic` returns seconds.
    """

    def __init__(
        self,
        connection: Statements,
        turns: Turns,
        *,
        seen: Callable[[str], bool],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection, self._turns, self._seen, self._monotonic = connection, turns, seen, monotonic
        self._here = _Here()

    @property
    def first(self) -> str:
        """Return what a transaction of this thread takes before the lock that orders all writes; empty for nothing."""
        return self._here.first

    @property
    def ends(self) -> bool:
        """Say whether this thread writes what ends authority."""
        return self._here.first == _SHARE

    def ending(self, write: Callable[[], T]) -> T:
        """Write what ends authority; `write` is called again where it was refused because of an activation."""
        before, self._here.first = self._here.first, _SHARE
        try:
            for _ in range(_WAITS):
                try:
                    return write()
                except OverloadedError:
                    if not self._seen(_UNDER_WAY):
                        raise
            return write()
        finally:
            self._here.first = before

    def activating(self, write: Callable[[], T]) -> T:
        """Write an activation; `write` is called again where it has given way."""
        self._here.first = _ALONE
        try:
            for seconds in GIVES_WAY_AFTER:
                self._here.gives_way_after, self._here.waited_from = seconds, None
                try:
                    return write()
                except _GivesWayError:
                    continue
                finally:
                    self._here.gives_way_after = None
            return write()
        finally:
            self._here.first = ""

    def let_pass(self) -> None:
        """Between pieces of a transaction: have an activation give way, if an ending has waited for it long enough."""
        here = self._here
        if here.gives_way_after is None:
            return
        if not self._turns.pressed and not self._connection.execute(_ENDING_WAITS).get:
            return
        now = self._monotonic()
        here.waited_from = now if here.waited_from is None else here.waited_from
        if now - here.waited_from >= here.gives_way_after:
            raise _GivesWayError


class _GivesWayError(Exception):
    """An ending waits for the activation of this thread, which rolls back and begins again."""


class _Here(threading.local):
    """What the present thread writes, and since when an ending was seen to wait for the present try of it."""

    first: str = ""
    gives_way_after: float | None = None
    waited_from: float | None = None
