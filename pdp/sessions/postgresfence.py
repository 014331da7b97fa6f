"""Hold a write back until no server can answer from before it.

A server that answers from memory has a row in `replicas` before its first lease. A write waits after its commit until
each of them has confirmed it, or until every lease is over that can have begun before. The waiting alone is safe:
confirmations make it shorter. A row is never passed over for looking old by a clock of others. It is removed by the
one who has waited for it, if it was not renewed in all that time; its server then finds no row, and joins again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from threading import Event, Lock
from typing import Any, Final

from pdp.errors import OverloadedError, StoreUnavailableError
from pdp.sessions.lease import CLOCK_RATE, MOST_LEASE_SECONDS, Fence, FencedBy
from pdp.sessions.postgresconnection import PostgresConnection
from pdp.sessions.sql import Bindings

# How long to wait before asking again who has confirmed, at first and at most.
_PAUSE_SECONDS, _MOST_PAUSE_SECONDS = 0.002, 0.02
# With less time than this nothing is asked: the answer could come too late, and the connection would be lost for that.
_LEAST_SECONDS: Final = 0.05
# For what is done after the wait.
_REMOVAL_SECONDS: Final = 0.25
_LONGEST_SECONDS: Final = MOST_LEASE_SECONDS * CLOCK_RATE

# INVARIANT: a confirmation counts with its tag, not by its number alone. After another database has taken the place of
# this one, the same number can be another change.
_ROWS: Final = """
SELECT id, renewals, lease_seconds, id IN (
  SELECT id FROM confirmations JOIN tags USING (revision, tag) WHERE revision >= ?
) FROM replicas
"""
_REMOVE: Final = """
WITH gone AS (DELETE FROM replicas WHERE id = ? AND renewals = ? RETURNING id)
DELETE FROM confirmations WHERE id IN (SELECT id FROM gone)
"""


@dataclass(frozen=True, slots=True)
class _Row:
    id: str
    renewals: int
    lease_seconds: float
    confirmed: bool


class PostgresFence:
    """The fence of one process, with a connection of its own. Safe for threads.

    Writes that wait at the same time take turns on the connection, and none waits longer for its turn or for an answer
    than for the leases. `channel` is that on which servers hear of changes. `monotonic` returns seconds, and `pause`
    waits for some; it returns True when the process is to wait no longer.
    """

    def __init__(
        self,
        connection: PostgresConnection,
        *,
        channel: str,
        monotonic: Callable[[], float] = time.monotonic,
        pause: Callable[[float], bool] | None = None,
    ) -> None:
        self._connection = connection
        self._lock = Lock()
        self._channel = channel
        self._monotonic = monotonic
        self._closing = Event()
        self._pause = pause or self._closing.wait

    def wait(self, revision: int) -> Fence | None:
        """Wait, right after the commit of a revision. Return None where no server answers from memory.

        Raise `StoreUnavailableError` when the process ends before: then the write stands, and is not known everywhere.
        """
        began = self._monotonic()
        while (rows := self._rows(revision, began + _LONGEST_SECONDS, opens=True)) is None:
            if self._monotonic() - began >= _LONGEST_SECONDS:
                return Fence(by=FencedBy.WAITED, seconds=self._monotonic() - began)
            self._rest(_MOST_PAUSE_SECONDS)
        if not rows:
            return None
        by = self._wait_for({row.id: row for row in rows if not row.confirmed}, revision)
        return Fence(by=by, seconds=self._monotonic() - began)

    def _wait_for(self, first: Mapping[str, _Row], revision: int) -> FencedBy:
        """Wait for the servers that had not confirmed. One that joins later renews after the commit, and knows it."""
        if not first:
            return FencedBy.CONFIRMED
        # INVARIANT: the time is read after the answer, because a row that is removed was silent from then on.
        ends_at = self._monotonic() + max(row.lease_seconds for row in first.values()) * CLOCK_RATE
        # It makes them renew at once. When it is lost, they do so a little later.
        self._ask(ends_at - self._monotonic(), f"NOTIFY {self._channel}")
        left, seconds = first, _PAUSE_SECONDS
        while left:
            rest = ends_at - self._monotonic()
            if rest <= 0:
                self._remove(row for row in left.values() if row == first[row.id])
                return FencedBy.WAITED
            self._rest(min(seconds, rest))
            seconds = min(2 * seconds, _MOST_PAUSE_SECONDS)
            rows = self._rows(revision, ends_at)
            if rows is not None:
                left = {row.id: row for row in rows if row.id in first and not row.confirmed}
        return FencedBy.CONFIRMED

    def _rows(self, revision: int, ends_at: float, *, opens: bool = False) -> list[_Row] | None:
        """Return the rows of all servers; None when they cannot be read in time."""
        rows = self._ask(ends_at - self._monotonic(), _ROWS, (revision,), opens=opens)
        return None if rows is None else [_Row(*row) for row in rows]

    def _remove(self, silent: Iterable[_Row]) -> None:
        for row in silent:
            if self._ask(_REMOVAL_SECONDS, _REMOVE, (row.id, row.renewals)) is None:
                # The next one that waits for it does it.
                return

    def _rest(self, seconds: float) -> None:
        if self._pause(seconds):
            raise StoreUnavailableError("the change is made and stands, but a server may not know it for a moment")

    def _ask(
        self, seconds: float, statement: str, values: Bindings | None = None, *, opens: bool = False
    ) -> list[tuple[Any, ...]] | None:
        """Return the rows of a statement; None when there is no answer in so many seconds.

        Only what `opens` a connection, where there is none, can take longer.
        """
        give_up_at = time.monotonic() + seconds
        if seconds < _LEAST_SECONDS or not self._lock.acquire(timeout=seconds):
            return None
        try:
            if not opens and self._connection.fileno() is None:
                return None
            left = max(give_up_at - time.monotonic(), _LEAST_SECONDS)
            with self._connection.within(left), self._connection.answering():
                return self._connection.execute(statement, values).fetchall()
        except (StoreUnavailableError, OverloadedError):
            return None
        finally:
            self._lock.release()

    def close(self) -> None:
        """Wait no longer, and close the connection."""
        self._closing.set()
        with self._lock:
            self._connection.close()
