"""How often sessions have called what, as rows beside the budgets: of a session, under a name."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from pdp.errors import ConflictError
from pdp.sessions.history import MOVED
from pdp.sessions.sql import Statements, required
from pdp.sessions.values import Addend, Count, Counts


class SQLCounts:
    """The counts in the database of a history, whose transactions and lock it uses."""

    def __init__(self, connection: Statements) -> None:
        self._connection = connection

    def begin(self, wall_at: float) -> None:
        """Note that what is not kept yet begins at `wall_at`, unix seconds."""
        self._connection.execute(_BEGIN, (wall_at,))

    def of(self, session_ids: Collection[str], names: Collection[str], *, retried: bool) -> Counts:
        """Return the counts of some sessions under some names, as of one moment."""
        begun_at = required(self._connection.execute("SELECT at FROM counting").get, "counting")
        if not session_ids or not names:
            return Counts({}, float(begun_at), retried)
        marks = ", ".join("?" * len(session_ids)), ", ".join("?" * len(names))
        rows: list[tuple[Any, ...]] = self._connection.execute(_OF.format(*marks), (*session_ids, *names)).fetchall()
        of = {(session_id, name): Count(made, failed) for session_id, name, made, failed in rows}
        return Counts(of, float(begun_at), retried)

    def require_seen(self, seen: Mapping[tuple[str, str], Count]) -> None:
        """Raise `ConflictError` unless all counts are as they were seen."""
        for of, count in seen.items():
            if (self._connection.execute(_ONE, of).fetchone() or Count()) != count:
                raise ConflictError(MOVED)

    def add(self, addends: Iterable[Addend]) -> None:
        """Count one more call of each."""
        self._connection.executemany(_ADD, addends)

    def take_back(self, addends: Iterable[Addend]) -> None:
        """Count one call less of each."""
        self._connection.executemany(_TAKE_BACK, [(one.session_id, one.name) for one in addends])

    def fail(self, failed: Iterable[tuple[str, str]]) -> None:
        """Count one more failure of each, of calls that are counted."""
        self._connection.executemany(_FAIL, failed)


_BEGIN: Final = "INSERT INTO counting VALUES (1, ?) ON CONFLICT DO NOTHING"
# The braces are filled with question marks.
_OF: Final = "SELECT session_id, name, made, failed FROM counts WHERE session_id IN ({}) AND name IN ({})"
_ONE: Final = "SELECT made, failed FROM counts WHERE session_id = ? AND name = ?"
_ADD: Final = (
    "INSERT INTO counts (session_id, name, ends_at, made, failed) VALUES (?, ?, ?, 1, 0)"
    " ON CONFLICT (session_id, name) DO UPDATE SET made = counts.made + 1"
)
_TAKE_BACK: Final = "UPDATE counts SET made = made - 1 WHERE session_id = ? AND name = ? AND made > failed"
_FAIL: Final = "UPDATE counts SET failed = failed + 1 WHERE session_id = ? AND name = ? AND failed < made"
