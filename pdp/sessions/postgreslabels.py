"""The labels that calls add to sessions in PostgreSQL: rows of their own, which take no revision and wait for no fence.

A row is written while the sessions of a call are held, and none else. Memory does not learn of it: a decision by labels
reads the rows at the primary first. Elsewhere a session is read together with its row. What else is written of a
session takes over the labels of its row, which stays, for those who remember the session from before.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from pdp.model import Session
from pdp.sessions.database import require_known_schema
from pdp.sessions.freezes import freeze_of
from pdp.sessions.lifecycle import labelled
from pdp.sessions.postgresconnection import BoundedLock, PostgresConnection
from pdp.sessions.postgresfailover import Failover
from pdp.sessions.rows import row_of
from pdp.sessions.scopes import ScopePool
from pdp.sessions.sql import Bindings, Statements, required
from pdp.sessions.sqlrows import Chain, RowReader, applied, cuts_on, freezes_on
from pdp.sessions.succession import chain_with, require_unchanged, successors_of

# A move that sets the store aside keeps others out of this table, and renames it.
_BEGIN: Final = "BEGIN; LOCK TABLE meta IN ROW SHARE MODE"


class LabelRow(NamedTuple):
    """Which decision has added each label, and how often some were added since the session was written as a whole."""

    origins: Mapping[str, str]
    times: int

    def added_to(self, session: Session, times: int) -> Session:
        """Return a session with the labels; `times` of the additions, each of which is a change, are not in it yet."""
        if not times and self.origins.keys() <= set(session.labels):
            return session
        return replace(
            session,
            epoch=session.epoch + times,
            labels=tuple(sorted({*session.labels, *self.origins})),
            label_origins={**self.origins, **session.label_origins},
        )


class LabelledReader(RowReader):
    """Builds sessions from rows, with the labels of theirs."""

    def all(self, sql: str, bindings: Bindings) -> Chain:
        """Return the sessions whose texts a query selects."""
        sessions = super().all(sql, bindings)
        rows = label_rows(self._connection, sessions)
        return tuple(one if (row := rows.get(one.id)) is None else row.added_to(one, row.times) for one in sessions)


class PostgresLabels:
    """Adds labels to sessions, on a connection of its own. Safe for threads.

    `schema_version` is the latest that this program knows.
    """

    def __init__(
        self,
        connection: PostgresConnection,
        scopes: ScopePool,
        *,
        busy_seconds: float,
        name: str,
        failover: Failover | None,
        schema_version: int,
    ) -> None:
        self._connection = connection
        self._lock = BoundedLock(busy_seconds, name)
        self._failover = failover
        self._schema_version = schema_version
        self._reader = LabelledReader(connection, scopes)

    def add(self, chain: Chain, labels: frozenset[str], *, by: str) -> Chain:
        """Add labels to a chain, as `SessionLedger.settle` does."""
        connection = self._connection
        with self._lock, connection.answering(), connection.transaction(_BEGIN):
            require_known_schema(
                required(connection.execute("SELECT schema_version FROM meta").get, "meta"), self._schema_version
            )
            if self._failover is not None:
                self._failover.require_standbys(
                    required(connection.execute("SELECT standbys FROM standing").get, "timelines")
                )
            _hold(connection, chain)
            # INVARIANT: what is read from here on is the latest, and stays so for these sessions.
            found = [stored for session in chain if (stored := self._reader.by_id(session.id)) is not None]
            freeze = freeze_of(chain[0].tenant, freezes_on(connection))
            require_unchanged(chain, applied(cuts_on(connection), found), freeze)
            written = successors_of(chain, labelled(labels, by=by))
            fresh = {session.id: labels.difference(session.labels) for session in chain}
            rows = [(one.id, json.dumps(dict.fromkeys(sorted(fresh[one.id]), by))) for one in written]
            connection.executemany(_ADD, rows)
        return chain_with(chain, written)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def label_rows(connection: Statements, sessions: Sequence[Session]) -> Mapping[str, LabelRow]:
    """Return the rows of some sessions by their ids; most have none."""
    if not sessions:
        return {}
    found = connection.execute(_ROWS, (_ids(one.id for one in sessions),)).fetchall()
    return {session_id: LabelRow(json.loads(origins), times) for session_id, origins, times in found}


def with_late_labels(connection: Statements, successors: Sequence[Session]) -> list[Session]:
    """Return successors of stored sessions, each with what calls have added since it was computed.

    That can come first, since no change depends on labels that calls add meanwhile. Others add none from here on until
    the transaction ends; the caller writes the sessions in it.
    """
    epochs = _hold(connection, successors)
    rows = label_rows(connection, successors)
    connection.execute(_TAKE_OVER, (_ids(rows),))
    return [
        # What was not seen of the row is not in the epoch.
        one if (row := rows.get(one.id)) is None else row.added_to(one, row.times - (one.epoch - 1 - epochs[one.id]))
        for one in successors
    ]


def bring_labels(connection: Statements, scopes: ScopePool) -> None:
    """Write all labels into their sessions, for programs that know no rows of theirs; the caller keeps others out."""
    for session in LabelledReader(connection, scopes).all(_LABELLED, ()):
        connection.execute(_WRITE, row_of(session))
    connection.execute("DELETE FROM labels")


def _hold(connection: Statements, sessions: Sequence[Session]) -> Mapping[str, int]:
    """Keep others from writing some sessions until the transaction ends; return their stored epochs."""
    return dict(connection.execute(_HOLD, (_ids(one.id for one in sessions),)).fetchall())


def _ids(ids: Iterable[str]) -> str:
    return json.dumps(list(ids))


_THESE: Final = "(SELECT json_array_elements_text(CAST(? AS json)))"
# All hold sessions in this order, so that none waits for another in a circle.
_HOLD: Final = f"""
SELECT id, epoch FROM sessions WHERE id IN {_THESE} ORDER BY depth, requested_at, id FOR NO KEY UPDATE
"""  # noqa: S608 - words of our own
_ROWS: Final = f"SELECT session_id, origins, times FROM labels WHERE session_id IN {_THESE}"  # noqa: S608 - the same
_ADD: Final = """
INSERT INTO labels (session_id, times, origins) VALUES (?, 1, ?) ON CONFLICT (session_id) DO UPDATE SET
  times = labels.times + 1, origins = CAST(CAST(labels.origins AS jsonb) || CAST(excluded.origins AS jsonb) AS text)
"""
_TAKE_OVER: Final = f"UPDATE labels SET times = 0 WHERE session_id IN {_THESE}"  # noqa: S608 - the same
_LABELLED: Final = "SELECT session_json FROM sessions WHERE id IN (SELECT session_id FROM labels WHERE times > 0)"
_WRITE: Final = "UPDATE sessions SET epoch = :epoch, session_json = :session_json WHERE id = :id"
