"""Compute a change of many sessions before the store is locked for it.

Reading and changing one session takes tens of microseconds: with a hundred thousand of them, other writers would wait
for seconds and give up. So the change is computed first, on a connection that only reads. The writer that then holds
the lock checks which sessions are still at the epoch that was read, and computes the others again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from itertools import islice
from typing import Final

from pdp.model import Session
from pdp.sessions.scopes import ScopePool
from pdp.sessions.sql import Statements, Value
from pdp.sessions.sqlrows import RowReader
from pdp.sessions.sqlselection import FAMILY, OF_FAMILY
from pdp.sessions.succession import successor_of
from pdp.sessions.values import Captured, Change

# By id: the epoch that was read, and the changed session, or None when it stays as it is.
Foreseen = Mapping[str, tuple[int, Session | None]]

Row = tuple[str, int, str, str, str]

# Sessions that are read together.
_AT_ONCE: Final = 500


class Foresight:
    """Computes changes on its own connection, which `connect` opens for one query only.

    `entities` is the engine's expression for the `entities_json` of a stored session.
    """

    def __init__(
        self, connect: Callable[[], AbstractContextManager[Statements]], scopes: ScopePool, *, entities: str
    ) -> None:
        self._connect = connect
        self._scopes = scopes
        self._live = _LIVE.format(entities)

    def of_matching(self, condition: str, values: tuple[Value, ...], change: Change) -> Foreseen:
        """Compute a change of the sessions that match a condition, and of their descendants."""
        return self._foresee(_FAMILIES.format(condition), values, change, lambda _: True)

    def of_live(self, change: Change, captured: Captured | None) -> Foreseen:
        """Compute a change of the live sessions; with `captured`, only of those that hold something else."""
        if captured is None:
            return self._foresee(self._live, (), change, lambda _: True)
        return self._foresee(self._live, (), change, lambda row: captured(row[2], row[3]) != row[4])

    def _foresee(
        self, sql: str, values: tuple[Value, ...], change: Change, concerns: Callable[[Row], bool]
    ) -> Foreseen:
        with self._connect() as connection:
            reader = RowReader(connection, self._scopes)
            rows: Iterable[Row] = connection.execute(sql, values)
            return dict(_seen(rows, reader, change, concerns))


def _seen(
    rows: Iterable[Row], reader: RowReader, change: Change, concerns: Callable[[Row], bool]
) -> Iterator[tuple[str, tuple[int, Session | None]]]:
    rest = iter(rows)
    while some := list(islice(rest, _AT_ONCE)):
        concerned = dict.fromkeys(row[0] for row in some if concerns(row))
        found = {one.id: one for one in reader.by_ids(concerned)}
        yield from ((row[0], (row[1], None)) for row in some if row[0] not in concerned)
        # In the order of the rows: ancestors first.
        for one in filter(None, map(found.get, concerned)):
            yield one.id, (one.epoch, successor_of(one, change))


_FAMILIES = f"{FAMILY}SELECT id, epoch, '', '', ''{OF_FAMILY}"
# The braces are filled with the expression of the engine.
_LIVE = """
SELECT id, epoch, "user", agent, {} FROM sessions
WHERE state IN ('requested', 'active') ORDER BY depth, requested_at, id
"""
