"""What people's connections rest on, and who refreshes one: a single process at a time, which the others see."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any, Final

import apsw

from pdp.broker.words import OTHERS_USED, Attempt, Consent, ConsentState, UnknownConnectionError
from pdp.errors import StoreUnavailableError, reason_of
from pdp.foundation.database import Database
from pdp.foundation.files import lock_file

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS consents (
  connection_id TEXT PRIMARY KEY REFERENCES connections (id) ON DELETE CASCADE,
  account TEXT NOT NULL,
  state TEXT NOT NULL,
  attempt_id TEXT NOT NULL,
  version INTEGER NOT NULL,
  first_at REAL NOT NULL,
  is_repeated INTEGER NOT NULL,
  paused_until REAL NOT NULL,
  used_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
"""
_STATE: Final = "state = CASE state WHEN 'ending' THEN state ELSE ? END"
_NO_ATTEMPT: Final = ("", 0, 0.0, False)
_POLL_SECONDS: Final = 0.02


class Consents:
    """What people's connections rest on, in the file of the store. Safe for threads and for several processes.

    Methods raise `StoreUnavailableError` when the file cannot be read or written, and `UnknownConnectionError`.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _SCHEMA, name="broker's store", danger=OTHERS_USED)
        self._folder = path.parent

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def add(self, one: Consent) -> None:
        """Add what a connection rests on."""
        attempt = astuple(one.attempt) if one.attempt else _NO_ATTEMPT
        row = (one.connection_id, one.account, one.state.value, *attempt, one.paused_until, one.used_at)
        with self._database.writing() as connection:
            try:
                connection.execute("INSERT INTO consents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            except apsw.ConstraintError:
                raise UnknownConnectionError(f"no such connection: `{one.connection_id}`") from None

    def of(self, connection_id: str) -> Consent:
        """Return what a connection rests on."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT * FROM consents WHERE connection_id = ?", (connection_id,)).fetchone()
        if row is None:
            raise UnknownConnectionError(f"no such connection: `{connection_id}`")
        return _consent(*row)

    def begin(self, connection_id: str, attempt: Attempt) -> None:
        """Write durably that a refresh begins. For who has the lock. One that ends stays so."""
        self._set(
            connection_id,
            f"{_STATE}, attempt_id = ?, version = ?, first_at = ?, is_repeated = ?",
            (ConsentState.REFRESHING.value, *astuple(attempt)),
        )

    def settle(self, connection_id: str, state: ConsentState, *, paused_until: float = 0.0) -> None:
        """Write durably how it is now. One that ends stays so."""
        self._set(connection_id, f"{_STATE}, paused_until = ?", (state.value, paused_until))

    def note_use(self, connection_id: str, at: float) -> None:
        """Note when the tokens were last opened."""
        self._set(connection_id, "used_at = ?", (at,))

    @contextmanager
    def locked(self, connection_id: str, *, wait_seconds: float = 0.0) -> Iterator[bool]:
        """Say whether this thread alone may refresh a connection, for as long as the block runs.

        The system gives the lock back when its process dies. So who has it, and finds a refresh that has begun, knows
        that the refresh was cut off.
        """
        path, until = self._folder / f"{connection_id}.lock", time.monotonic() + wait_seconds
        try:
            while (held := _taken(path)) is None and time.monotonic() < until:
                time.sleep(_POLL_SECONDS)
        except OSError as error:
            raise StoreUnavailableError(f"cannot lock `{path}`: {reason_of(error)}") from None
        if held is None:
            yield False
            return
        try:
            yield True
        finally:
            # Before the lock is given back: who took it on this file sees that it is no longer the one with the name.
            path.unlink(missing_ok=True)
            os.close(held)

    def _set(self, connection_id: str, what: str, values: tuple[object, ...]) -> None:
        with self._database.writing() as connection:
            connection.execute(f"UPDATE consents SET {what} WHERE connection_id = ?", (*values, connection_id))  # noqa: S608 - names of columns alone
            if not connection.changes():
                raise UnknownConnectionError(f"no such connection: `{connection_id}`")


def _taken(path: Path) -> int | None:
    held = lock_file(path)
    if held is None:
        return None
    try:
        if os.path.samestat(os.fstat(held), path.stat()):
            return held
    except FileNotFoundError:
        pass
    os.close(held)
    return None


def _consent(*row: Any) -> Consent:  # noqa: ANN401 - what the engine returns
    connection_id, account, state, attempt_id, version, first_at, is_repeated, paused_until, used_at = row
    attempt = Attempt(id=attempt_id, version=version, first_at=first_at, is_repeated=bool(is_repeated))
    return Consent(
        connection_id=connection_id,
        account=account,
        state=ConsentState(state),
        attempt=attempt if attempt_id else None,
        paused_until=paused_until,
        used_at=used_at,
    )
