"""Keep the events of a store in its database; a part of it, on the same connection and in its transactions."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from pdp.sessions.outbox import MOST_EVENTS, OutboxEvent, Untold, event_from, event_text, of_one_write
from pdp.sessions.sql import Statements


class SQLOutbox:
    """The events of one store; with `tells` False it takes none. The caller holds a transaction, or for reads a turn.

    `counter` is the table whose one row has the column `missed_events`: one that each transaction writes anyway, so
    that counting takes no space on a full disk. `turns` is the table of the turns of senders on several machines.
    """

    def __init__(
        self, connection: Statements, *, tells: bool, counter: str, turns: str = "", most: int = MOST_EVENTS
    ) -> None:
        self.tells = tells
        self._connection = connection
        self._most = most
        self._miss = f"UPDATE {counter} SET missed_events = missed_events + ?"  # noqa: S608 - our own name
        self._told = f"UPDATE {counter} SET missed_events = {_LESS}"  # noqa: S608 - the same
        self._missed = f"SELECT missed_events FROM {counter}"  # noqa: S608 - the same
        self._lasts = f"SELECT turn FROM {turns} WHERE {_LASTS}" if turns else ""  # noqa: S608 - the same
        # On this thread, whether events are only counted.
        self._sparing = threading.local()

    def add(self, events: Iterable[OutboxEvent | None]) -> None:
        """Keep the events of one transaction; of more than the most, the oldest go."""
        found = of_one_write(events) if self.tells else []
        if not found:
            return
        if getattr(self._sparing, "now", False):
            self._connection.execute(self._miss, (len(found),))
            return
        self._connection.executemany(_ADD, [(one.id, event_text(one)) for one in found])
        self._connection.execute(_DROP, (self._most,))
        if dropped := self._connection.changes():
            self._connection.execute(self._miss, (dropped,))

    @contextmanager
    def sparing(self) -> Iterator[None]:
        """Only count the events that this thread adds in the `with` block: there is no room for them."""
        self._sparing.now = True
        try:
            yield
        finally:
            self._sparing.now = False

    def untold(self, limit: int) -> Untold:
        """Return the oldest events, and how many were lost."""
        rows = self._connection.execute(_OLDEST, (limit,)).fetchall()
        # No row while a database is being restored.
        missed = int(self._connection.execute(self._missed).get or 0)
        return Untold(tuple(event_from(str(text)) for (text,) in rows), missed)

    def forget(self, told: Untold, turn: str = "") -> None:
        """Remove events that were passed on, and as many missed ones, unless the turn of their sender is over."""
        self._connection.executemany("DELETE FROM outbox WHERE id = ?", [(one.id,) for one in told.events])
        # INVARIANT: of a gap that two machines have told, one is counted. Events have ids, and are removed once.
        if told.missed and (not turn or not self._lasts or self._connection.execute(self._lasts, (turn,)).get):
            self._connection.execute(self._told, (told.missed, told.missed))


# Shared: the next turn begins when this transaction is over.
_LASTS: Final = "turn = ? AND ends_at > clock_timestamp() FOR SHARE"
_LESS: Final = "CASE WHEN missed_events > ? THEN missed_events - ? ELSE 0 END"
# Under the lock of the transaction, positions have no gaps.
_ADD: Final = """
INSERT INTO outbox (position, id, content) SELECT coalesce(max(position), 0) + 1, ?, ? FROM outbox
"""
_DROP: Final = "DELETE FROM outbox WHERE position <= (SELECT max(position) FROM outbox) - ?"
_OLDEST: Final = "SELECT content FROM outbox ORDER BY position LIMIT ?"
