"""Keep signals in a file, so that each counts once and none that was accepted is lost."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Final

import apsw

from pdp.foundation.database import Database
from pdp.signals.words import OPEN, ForgottenError, Signal, State, Target, TooManyOpenError, UnknownSignalError, What

# Of one transmitter: signals that wait or are held, and all that are remembered.
MOST_OPEN: Final = 1000
MOST_KEPT: Final = 10_000
# How long a signal is remembered that nobody has to answer, and how old one may be that comes for the first time.
KEPT_SECONDS: Final = 30 * 86400.0
# Within this time the bounds of a transmitter count.
WINDOW_SECONDS: Final = 600.0

_DANGER: Final = "anyone could make signals disappear"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS signals (
  id TEXT PRIMARY KEY, transmitter TEXT NOT NULL, token_id TEXT NOT NULL, event TEXT NOT NULL, issued_at REAL NOT NULL,
  received_at REAL NOT NULL, state TEXT NOT NULL, targets TEXT NOT NULL, outcomes TEXT NOT NULL, by TEXT NOT NULL,
  UNIQUE (transmitter, token_id)
) STRICT;
CREATE INDEX IF NOT EXISTS signals_by_state ON signals (state, received_at);
CREATE TABLE IF NOT EXISTS forgotten (transmitter TEXT PRIMARY KEY, until REAL NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spent (
  transmitter TEXT NOT NULL, at REAL NOT NULL, target TEXT NOT NULL, sessions INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS spent_by_time ON spent (transmitter, at);
CREATE TABLE IF NOT EXISTS told (receiver TEXT, signal TEXT, PRIMARY KEY (receiver, signal)) STRICT, WITHOUT ROWID;
"""
_COLUMNS: Final = "id, transmitter, token_id, event, issued_at, received_at, state, targets, outcomes, by"
_OPEN: Final = ", ".join(f"'{one}'" for one in sorted(OPEN))
_OLDEST: Final = f"""
SELECT id, issued_at FROM signals WHERE transmitter = ? AND state NOT IN ({_OPEN})
  AND (received_at < ? OR id IN (
    SELECT id FROM signals WHERE transmitter = ? AND state NOT IN ({_OPEN})
    ORDER BY received_at DESC LIMIT -1 OFFSET ?))
"""  # noqa: S608 - words of our own


class SignalStore:
    """The signals of one receiver. Safe for threads and for several processes.

    Methods raise `StoreUnavailableError` when the file cannot be read or written.
    """

    def __init__(self, path: Path, *, most_open: int = MOST_OPEN, most_kept: int = MOST_KEPT) -> None:
        self._database = Database(path, _SCHEMA, name="file of signals", danger=_DANGER)
        self._most_open, self._most_kept = most_open, most_kept

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def add(self, signal: Signal) -> bool:
        """Keep a signal, durably; return False for one that was received before.

        Raise `ForgottenError` for one that could have been received and forgotten, and `TooManyOpenError`.
        """
        name, now = signal.transmitter, signal.received_at
        with self._database.writing() as connection:
            known = "SELECT 1 FROM signals WHERE transmitter = ? AND token_id = ?"
            if connection.execute(known, (name, signal.token_id)).get is not None:
                return False
            gone = "SELECT 1 FROM forgotten WHERE transmitter = ? AND until >= ?"
            forgotten = connection.execute(gone, (name, signal.issued_at)).get is not None
            if forgotten or signal.issued_at <= now - KEPT_SECONDS:
                raise ForgottenError("it is older than what is remembered of this transmitter (`iat`)")
            waiting = f"SELECT count(*) FROM signals WHERE transmitter = ? AND state IN ({_OPEN})"  # noqa: S608 - words of our own
            if signal.state in OPEN and connection.execute(waiting, (name,)).get >= self._most_open:
                raise TooManyOpenError(f"{self._most_open} signals of `{name}` wait or are held")
            connection.execute(f"INSERT INTO signals ({_COLUMNS}) VALUES (?{', ?' * 9})", _row(signal))  # noqa: S608 - words of our own
            self._forget(connection, name, now)
        return True

    def _forget(self, connection: apsw.Connection, transmitter: str, now: float) -> None:
        """Forget the oldest, and remember that what was issued then may have been received."""
        bound = (transmitter, now - KEPT_SECONDS, transmitter, self._most_kept)
        rows: list[Any] = connection.execute(_OLDEST, bound).fetchall()
        if not rows:
            return
        connection.executemany("DELETE FROM signals WHERE id = ?", [(id_,) for id_, _ in rows])
        noted = "INSERT INTO forgotten VALUES (?, ?) ON CONFLICT DO UPDATE SET until = max(until, excluded.until)"
        connection.execute(noted, (transmitter, max(issued_at for _, issued_at in rows)))

    def change(self, signal: Signal, *, before: State) -> bool:
        """Write what has become of a signal; return False unless it is still in the state `before`."""
        text = "UPDATE signals SET state = ?, targets = ?, outcomes = ?, by = ? WHERE id = ? AND state = ?"
        *_, state, targets, outcomes, by = _row(signal)
        with self._database.writing() as connection:
            connection.execute(text, (state, targets, outcomes, by, signal.id, before.value))
            return bool(connection.changes())

    def signal(self, signal_id: str) -> Signal:
        """Return one signal. Raise `UnknownSignalError`."""
        with self._database.reading() as connection:
            row = connection.execute(f"SELECT {_COLUMNS} FROM signals WHERE id = ?", (signal_id,)).fetchone()  # noqa: S608 - words of our own
        if row is None:
            raise UnknownSignalError(f"no such signal: `{signal_id}`")
        return _signal(*row)

    def signals(self, *states: State, limit: int) -> tuple[Signal, ...]:
        """Return signals in some states, by default in all; the oldest first."""
        wanted = [one.value for one in states or State]
        marks = ", ".join("?" * len(wanted))
        text = f"SELECT {_COLUMNS} FROM signals WHERE state IN ({marks}) ORDER BY received_at, rowid LIMIT ?"  # noqa: S608 - words of our own
        with self._database.reading() as connection:
            rows = connection.execute(text, (*wanted, limit)).fetchall()
        return tuple(_signal(*row) for row in rows)

    def untold(self, receiver: str, tenants: Collection[str], *, limit: int) -> tuple[Signal, ...]:
        """Return the signals that are held in some tenants, and that a receiver was not told of; the oldest first."""
        told = "SELECT signal FROM told WHERE receiver = ?"
        of = f"SELECT 1 FROM json_each(targets) WHERE value ->> 1 IN ({', '.join('?' * len(tenants))})"  # noqa: S608 - words of our own
        where = f"WHERE state = ? AND id NOT IN ({told}) AND EXISTS ({of}) ORDER BY received_at, rowid LIMIT ?"
        text = f"SELECT {_COLUMNS} FROM signals {where}"  # noqa: S608 - words of our own
        with self._database.reading() as connection:
            rows = connection.execute(text, (State.HELD.value, receiver, *tenants, limit)).fetchall()
        return tuple(_signal(*row) for row in rows)

    def note_told(self, receiver: str, signal_ids: Iterable[str]) -> None:
        """Note that a receiver was told of signals, and forget that of those which are not held any more."""
        with self._database.writing() as connection:
            held = "SELECT id FROM signals WHERE state = ?"
            connection.execute(f"DELETE FROM told WHERE signal NOT IN ({held})", (State.HELD.value,))  # noqa: S608 - words of our own
            rows = [(receiver, one) for one in signal_ids]
            connection.executemany("INSERT INTO told VALUES (?, ?) ON CONFLICT DO NOTHING", rows)

    def spend(self, transmitter: str, target: Target, sessions: int, *, at: float) -> None:
        """Note that a transmitter had a target revoked, with so many sessions."""
        with self._database.writing() as connection:
            connection.execute("DELETE FROM spent WHERE at <= ?", (at - WINDOW_SECONDS,))
            connection.execute("INSERT INTO spent VALUES (?, ?, ?, ?)", (transmitter, at, target.text, sessions))

    def spent(self, transmitter: str, *, at: float) -> tuple[frozenset[str], int]:
        """Return which targets a transmitter had revoked in the last ten minutes, and how many sessions in all."""
        text = "SELECT target, sessions FROM spent WHERE transmitter = ? AND at > ?"
        with self._database.reading() as connection:
            rows: list[Any] = connection.execute(text, (transmitter, at - WINDOW_SECONDS)).fetchall()
        return frozenset(target for target, _ in rows), sum(sessions for _, sessions in rows)


def _row(signal: Signal) -> tuple[str | float, ...]:
    return (
        signal.id,
        signal.transmitter,
        signal.token_id,
        signal.event,
        signal.issued_at,
        signal.received_at,
        signal.state.value,
        json.dumps([[one.what.value, one.tenant, one.id] for one in signal.targets]),
        json.dumps(signal.outcomes),
        signal.by,
    )


def _signal(*row: Any) -> Signal:  # noqa: ANN401 - columns of several types
    id_, transmitter, token_id, event, issued_at, received_at, state, targets, outcomes, by = row
    return Signal(
        id=id_,
        transmitter=transmitter,
        token_id=token_id,
        event=event,
        issued_at=issued_at,
        received_at=received_at,
        state=State(state),
        targets=tuple(Target(what=What(what), tenant=tenant, id=name) for what, tenant, name in json.loads(targets)),
        outcomes=tuple(json.loads(outcomes)),
        by=by,
    )
