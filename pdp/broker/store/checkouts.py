"""The checkouts in the broker's store: on the disk before a credential leaves, until it has ended."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final, NamedTuple

import apsw

from pdp.broker.checkouts.words import (
    Bounds,
    Checkout,
    CheckoutState,
    CredentialKind,
    Look,
    UnknownCheckoutError,
    due_at,
)
from pdp.broker.sealing.envelope import Sealed
from pdp.broker.store.tables import SCHEMA
from pdp.broker.words import OTHERS_USED, UnknownKeyError
from pdp.clock import Clock, SystemClock
from pdp.errors import ConflictError, OverloadedError
from pdp.foundation.database import Database

_CHECKOUT: Final = """
SELECT id, connection_id, kind, token_id, decision_id, session_id, user, agent, action, scopes_json, begun_at, ends_at,
  state, next_at, tries, problem,
  (SELECT json_group_array(above.session_id) FROM checkout_sessions AS above
    WHERE above.checkout_id = id AND above.session_id != checkouts.session_id)
FROM checkouts
"""
# INVARIANT: one that was not handed out keeps its time. Its role may still be on its way, and must not be looked for
# before it has come or never will.
_END: Final = "UPDATE checkouts SET next_at = iif(ends_at = 0, next_at, ?), state = 'ending' WHERE"
_BEGIN: Final = """
INSERT INTO checkouts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_HAND_OUT: Final = """
UPDATE checkouts SET ends_at = ?1, next_at = iif(state = 'begun', min(?6, latest_at), 0), kek_id = ?2,
  wrapped_key = ?3, sealed = ?4, state = iif(state = 'begun', 'out', state)
WHERE id = ?5
"""
_OF_SESSION: Final = "SELECT count(*) FROM checkout_sessions WHERE session_id = ?"
_OF_TENANT: Final = """
SELECT count(*) FROM checkouts JOIN connections ON connections.id = connection_id
WHERE checkouts.kind != 'consent' AND tenant = (SELECT tenant FROM connections WHERE id = ?)
"""
_OF_USER: Final = f"{_OF_TENANT} AND user = ?"
_MOST: Final = "and no more may be: some must end first, see `pdp-broker checkout list`"
_NEVER: Final = float("inf")


class Counts(NamedTuple):
    """How many credentials are out, are past their end by some time, and could not be ended at the last try."""

    out: int
    overdue: int
    failed: int


class CheckoutStore:
    """The outstanding checkouts. Safe for threads and for several processes."""

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._database = Database(path, SCHEMA, name="broker's store", danger=OTHERS_USED)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def begin(self, one: Checkout, kept: Sealed | None = None, *, bounds: Bounds | None = None) -> None:
        """Keep a checkout before its credential is made, or with what is `kept` to end it.

        Raise `ConflictError` when its connection was just removed, and `OverloadedError` beyond the `bounds`.
        """
        whose = (one.id, one.connection_id, one.kind, one.token_id, one.decision_id, one.session_id)
        about = (one.user, one.agent, one.action, json.dumps(one.scopes), one.begun_at, one.ends_at)
        with self._database.writing() as connection:
            if bounds is not None:
                _require_room(connection, one, bounds)
            try:
                connection.execute(
                    _BEGIN,
                    (*whose, *about, _NEVER, one.state, one.next_at, one.tries, one.problem, *_columns(kept)),
                )
            except apsw.ConstraintError:
                raise ConflictError(f"the connection `{one.connection_id}` was just removed") from None
            now = self._clock.now()
            connection.execute("INSERT INTO checkout_boots VALUES (?, ?, ?)", (one.id, now.boot_id, now.boot_at))
            connection.executemany(
                "INSERT INTO checkout_sessions VALUES (?, ?)", [(id_, one.id) for id_ in one.session_ids]
            )

    def hand_out(self, checkout_id: str, *, ends_at: float, kept: Sealed | None, until: float = _NEVER) -> None:
        """Note that a credential leaves, with what is kept to end it. It is to be ended at `until`, at the latest.

        Raise `ConflictError` when it is to be ended already: then it must not leave. Raise `UnknownKeyError` when the
        key under which `kept` is sealed was just retired.
        """
        due = due_at(ends_at, until=until, ends_itself=kept is not None)
        with self._database.writing() as connection:
            try:
                connection.execute(_HAND_OUT, (ends_at, *_columns(kept), checkout_id, due))
            except apsw.ConstraintError:
                raise UnknownKeyError("the key of the sealed credential was just retired") from None
            row = connection.execute("SELECT state FROM checkouts WHERE id = ?", (checkout_id,)).fetchone()
        if row is None or row[0] != CheckoutState.OUT:
            raise ConflictError("the session of the call ended while the credential was made")

    def end_of_sessions(self, session_ids: Collection[str], *, now: float) -> int:
        """Have the credentials of sessions, and of those below, ended. Return how many there are."""
        return self._end(
            "state IN ('begun', 'out') AND id IN (SELECT checkout_id FROM checkout_sessions WHERE session_id IN "
            "(SELECT value FROM json_each(?)))",
            json.dumps([*session_ids]),
            now=now,
        )

    def no_later_than(self, session_id: str, ends_at: float) -> None:
        """Have the credentials of a session, and of those below, ended by a time at the latest."""
        with self._database.writing() as connection:
            connection.execute(
                "UPDATE checkouts SET latest_at = min(latest_at, ?1), "
                "next_at = iif(state = 'out', min(next_at, ?1), next_at) WHERE state IN ('begun', 'out') AND id IN "
                "(SELECT checkout_id FROM checkout_sessions WHERE session_id = ?2)",
                (ends_at, session_id),
            )

    def end(self, checkout_ids: Collection[str], *, now: float) -> int:
        """Have some credentials ended now, also those that were put off. Return how many there are."""
        where = "state != 'lasting' AND id IN (SELECT value FROM json_each(?))"
        return self._end(where, json.dumps([*checkout_ids]), now=now)

    def due(self, now: float) -> tuple[Checkout, ...]:
        """Return the checkouts that are to be looked at, the longest due first."""
        return self._select("WHERE next_at <= ? ORDER BY next_at", (now,))

    def all(self) -> tuple[Checkout, ...]:
        """Return all checkouts, oldest first."""
        return self._select("ORDER BY begun_at, id", ())

    def get(self, checkout_id: str) -> Checkout:
        """Return a checkout. Raise `UnknownCheckoutError`."""
        found = self._select("WHERE id = ?", (checkout_id,))
        if not found:
            raise UnknownCheckoutError(f"no such checkout: `{checkout_id}`; it may have ended")
        return found[0]

    def is_out(self, checkout_id: str) -> bool:
        """Say whether a credential may still be used: it was handed out, and is not to be ended."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT state FROM checkouts WHERE id = ?", (checkout_id,)).fetchone()
        return row is not None and row[0] == CheckoutState.OUT

    def seconds_of(self, checkout_id: str) -> float:
        """Return how many seconds a checkout is there at least, by the clock that nobody sets."""
        now = self._clock.now()
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT boot_at FROM checkout_boots WHERE checkout_id = ? AND boot_id = ?", (checkout_id, now.boot_id)
            ).fetchone()
        # One of an earlier boot was there before this one began.
        return now.boot_at - (row[0] if row else 0.0)

    def kept(self, checkout_id: str) -> Sealed | None:
        """Return what is kept of a credential to end it; None for a login, whose name says enough."""
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT kek_id, wrapped_key, sealed FROM checkouts WHERE id = ?", (checkout_id,)
            ).fetchone()
        if row is None or row[0] is None:
            return None
        kek_id, wrapped_key, text = row
        return Sealed(kek_id=kek_id, wrapped_key=wrapped_key, text=text)

    def put_off(self, one: Checkout, state: CheckoutState, *, next_at: float, problem: str) -> None:
        """Note that a credential has not ended, why, and when it is looked at again."""
        with self._database.writing() as connection:
            connection.execute(
                "UPDATE checkouts SET state = ?, next_at = ?, tries = tries + 1, problem = ? WHERE id = ?",
                (state, next_at, problem, one.id),
            )

    def hand_over(self, checkout_id: str, connection_id: str, kept: Sealed) -> None:
        """Have a credential ended by another connection, for which it is `kept`. Nothing if it has just ended."""
        with self._database.writing() as connection:
            connection.execute(
                "UPDATE checkouts SET connection_id = ?, kek_id = ?, wrapped_key = ?, sealed = ? WHERE id = ?",
                (connection_id, *_columns(kept), checkout_id),
            )

    def finish(self, checkout_id: str) -> bool:
        """Forget a checkout that has ended. Say whether it was still there: only then is its end to be told."""
        with self._database.writing() as connection:
            connection.execute("DELETE FROM checkouts WHERE id = ?", (checkout_id,))
            return bool(connection.changes())

    def sessions(self) -> tuple[str, ...]:
        """Return the sessions with which credentials are to end."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT DISTINCT above.session_id FROM checkout_sessions AS above JOIN checkouts ON id = checkout_id "
                "WHERE state IN ('begun', 'out') ORDER BY 1"
            )
            return tuple(str(one) for (one,) in rows)

    def note(self, look: Look) -> None:
        """Note what a look at the roles of a connection's database found."""
        with self._database.writing() as connection:
            connection.execute(
                "INSERT INTO looks SELECT id, ?, ?, ? FROM connections WHERE id = ? ON CONFLICT DO UPDATE SET "
                "at = excluded.at, orphans = excluded.orphans, problem = excluded.problem",
                (look.at, look.orphans, look.problem, look.connection_id),
            )

    def looks(self) -> tuple[Look, ...]:
        """Return the last look at each connection's database."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT connection_id, at, orphans, problem FROM looks ORDER BY connection_id")
            return tuple(
                Look(connection_id=id_, at=at, orphans=orphans, problem=problem) for id_, at, orphans, problem in rows
            )

    def counts(self, overdue_at: float) -> Counts:
        """Count the checkouts; overdue is what should have ended before a time."""
        with self._database.reading() as connection:
            rows: Any = connection.execute(
                "SELECT count(*), count(*) FILTER (WHERE 0 < ends_at AND ends_at < ?), "
                "count(*) FILTER (WHERE state = 'ending' AND tries) FROM checkouts",
                (overdue_at,),
            )
            return Counts(*next(rows))

    def _end(self, where: str, value: str, *, now: float) -> int:
        with self._database.writing() as connection:
            connection.execute(f"{_END} {where}", (now, value))
            return connection.changes()

    def _select(self, rest: str, values: tuple[Any, ...]) -> tuple[Checkout, ...]:
        with self._database.reading() as connection:
            return tuple(_checkout_of(*row) for row in connection.execute(f"{_CHECKOUT} {rest}", values))


def _require_room(connection: apsw.Connection, one: Checkout, bounds: Bounds) -> None:
    """Raise `OverloadedError` when as many credentials are out as may be."""
    for session_id in one.session_ids:
        if connection.execute(_OF_SESSION, (session_id,)).get >= bounds.session:
            raise OverloadedError(f"{bounds.session} credentials are out for the session `{session_id}`, {_MOST}")
    if connection.execute(_OF_USER, (one.connection_id, one.user)).get >= bounds.user:
        raise OverloadedError(f"{bounds.user} credentials are out for the user `{one.user}`, {_MOST}")
    if connection.execute(_OF_TENANT, (one.connection_id,)).get >= bounds.tenant:
        raise OverloadedError(f"{bounds.tenant} credentials are out for the tenant, {_MOST}")


def _columns(kept: Sealed | None) -> tuple[str | bytes | None, ...]:
    return (kept.kek_id, kept.wrapped_key, kept.text) if kept else (None, None, None)


def _checkout_of(*row: Any) -> Checkout:  # noqa: ANN401 - what the engine returns
    id_, connection_id, kind, token_id, decision_id, session_id, user, agent, action, scopes, *times, above = row
    begun_at, ends_at, state, next_at, tries, problem = times
    return Checkout(
        id=id_,
        connection_id=connection_id,
        kind=CredentialKind(kind),
        token_id=token_id,
        decision_id=decision_id,
        session_ids=(session_id, *json.loads(above)) if session_id else (),
        user=user,
        agent=agent,
        action=action,
        scopes=tuple(json.loads(scopes)),
        begun_at=begun_at,
        ends_at=ends_at,
        state=CheckoutState(state),
        next_at=next_at,
        tries=tries,
        problem=problem,
    )
