"""Work out what a change makes of many sessions before the store is locked for it.

To read a session and change it takes tens of microseconds: with a hundred thousand of them other writers would wait for
seconds, and give up. So it is done beforehand, on a connection that only reads. Whoever then holds the lock looks which
sessions are still at the epoch that was seen, and works out the others again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing

from pdp.model import Session
from pdp.sessions.database import Database
from pdp.sessions.scopes import ScopePool
from pdp.sessions.store import Captured, Change
from pdp.sessions.succession import successor_of
from pdp.sessions.watcher import RowReader, Value

# By id: the epoch of the session that was seen, and what the change makes of it, None when it leaves it as it is.
Foreseen = Mapping[str, tuple[int, Session | None]]

Row = tuple[str, int, str, str, str]


class Foresight:
    """Looks at sessions on a connection of its own, which is open for one question only."""

    def __init__(self, database: Database, scopes: ScopePool) -> None:
        self._database = database
        self._scopes = scopes

    def of_matching(self, condition: str, values: tuple[Value, ...], change: Change) -> Foreseen:
        """Foresee a change of the sessions that fulfil a condition, and of their descendants."""
        return self._foresee(_FAMILIES.format(condition), values, change, lambda _: True)

    def of_live(self, change: Change, captured: Captured | None) -> Foreseen:
        """Foresee a change of the live sessions; with `captured`, of those that hold something else."""
        if captured is None:
            return self._foresee(_LIVE, (), change, lambda _: True)
        return self._foresee(_LIVE, (), change, lambda row: captured(row[2], row[3]) != row[4])

    def _foresee(
        self, sql: str, values: tuple[Value, ...], change: Change, concerns: Callable[[Row], bool]
    ) -> Foreseen:
        with closing(self._database.connect()) as connection:
            connection.execute("PRAGMA query_only=ON")
            reader = RowReader(connection, self._scopes)
            rows: Iterable[Row] = connection.execute(sql, values)
            return dict(_seen(rows, reader, change, concerns))


def _seen(
    rows: Iterable[Row], reader: RowReader, change: Change, concerns: Callable[[Row], bool]
) -> Iterator[tuple[str, tuple[int, Session | None]]]:
    for row in rows:
        session_id, epoch, *_ = row
        if not concerns(row):
            yield session_id, (epoch, None)
        elif (session := reader.by_id(session_id)) is not None:
            yield session_id, (session.epoch, successor_of(session, change))


_FAMILIES = """
WITH RECURSIVE family(id) AS (
  SELECT id FROM sessions WHERE {}
  UNION
  SELECT child.id FROM family JOIN sessions AS child ON child.parent_id = family.id
)
SELECT id, epoch, '', '', '' FROM sessions WHERE id IN family ORDER BY depth, requested_at, id
"""
_LIVE = """
SELECT id, epoch, user, agent, session_json ->> '$.entities_json' FROM sessions
WHERE state IN ('requested', 'active') ORDER BY depth, requested_at, id
"""
