"""Keep messages until their receivers have taken them, in an SQLite file; what was given up stays as a dead letter.

It is another file than the stores': what is sent and tried again must not delay a write of theirs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any, Final

import apsw

from pdp.errors import StoreUnavailableError, reason_of
from pdp.foundation.files import make_file, make_folder, sync_folder
from pdp.foundation.sqlite import ENGINE_ERRORS, committing, require_sound_engine, set_pragmas, unavailable, use_log
from pdp.messages.sorting import Message, burst_from, told_together
from pdp.sessions.outbox import event_from, event_text

_NAME: Final = "queue of messages"
_BUSY_SECONDS: Final = 5.0
# Of what waits for a receiver, the oldest messages are looked at.
_LOOKED_AT: Final = 200
# A message that waits longer was put off by a clock that was ahead.
_LONGEST_PAUSE_SECONDS: Final = 3600.0

GIVEN_UP, REMOVED, TOO_MANY = "not taken in time", "the receiver was removed", "too many messages wait"


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A message that waits or was given up (`dead`): since when, how often it was tried, and what was the last problem.

    `..._at` are unix seconds.
    """

    message: Message
    dead: bool
    created_at: float
    attempts: int
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How one receiver is served: what waits, what is dead, and what went well and badly; `..._at` are unix seconds."""

    receiver: str
    waiting: int = 0
    dead: int = 0
    oldest_at: float = 0.0
    sent: int = 0
    sent_at: float = 0.0
    failed: int = 0
    problem: str = ""


class MessageQueue:
    """The queue of one deployment. Safe for threads; `path` is `:memory:` for one that ends with its process.

    Methods raise `StoreUnavailableError` when the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        require_sound_engine(apsw.sqlite_lib_version())
        self._lock = Lock()
        try:
            if str(path) != ":memory:":
                make_folder(path.parent, sync_folder)
                make_file(path, bytes)
            self._connection = apsw.Connection(str(path))
        except OSError as error:
            raise StoreUnavailableError(f"cannot create the {_NAME} `{path}`: {reason_of(error)}") from None
        except ENGINE_ERRORS as error:
            raise unavailable(error, _NAME) from None
        try:
            self._connection.set_busy_timeout(round(_BUSY_SECONDS * 1000))
            use_log(self._connection, _BUSY_SECONDS)
            set_pragmas(self._connection, "synchronous=FULL")
            with self._writing():
                self._connection.execute(_SCHEMA)
        except BaseException as error:
            self._connection.close(force=True)
            if isinstance(error, ENGINE_ERRORS):
                raise unavailable(error, _NAME) from None
            raise

    def put(self, messages: Iterable[Message], event_ids: Collection[str], *, at: float) -> None:
        """Keep messages, and note the events that they were made of: both or neither."""
        rows = [(one.id, one.receiver, event_text(one.event), at) for one in messages]
        with self._writing():
            self._connection.executemany("INSERT OR IGNORE INTO taken VALUES (?)", [(one,) for one in event_ids])
            self._connection.executemany(_PUT, rows)

    def taken(self, event_ids: Collection[str]) -> frozenset[str]:
        """Return which of some events are noted: a sender that died can have left them in their store."""
        with self._reading():
            found = self._connection.execute("SELECT event_id FROM taken").fetchall()
        return frozenset(str(one) for (one,) in found).intersection(event_ids)

    def forget_taken(self, event_ids: Collection[str]) -> None:
        """Forget events that their store no longer has."""
        with self._writing():
            self._connection.executemany("DELETE FROM taken WHERE event_id = ?", [(one,) for one in event_ids])

    def forget_person(self, user: str, *, tenant: str, apply: bool) -> int:
        """Remove the messages of a tenant that name a person, also dead ones; return how many there are.

        Without `apply` none is removed. With it the file is rewritten, so that nothing of them is left.
        """
        who = (tenant, user)
        with self._writing():
            count: Any = self._connection.execute(f"SELECT count(*) FROM messages WHERE {_ABOUT}", who).get  # noqa: S608 - words of our own
            if apply:
                self._connection.execute(f"DELETE FROM messages WHERE {_ABOUT}", who)  # noqa: S608 - words of our own
        if apply:
            with self._reading():
                self._connection.execute("VACUUM")
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return int(count)

    def due(self, receiver: str, *, at: float) -> Letter | None:
        """Return the oldest message to be sent to a receiver now; None without one.

        While a message is to be tried again, later ones about the same session wait, and others do not. What has
        gathered behind one while its receiver was away, and was not tried, is told with it as one burst.
        """
        rows = self._rows(_WAITING, (receiver, _LOOKED_AT))
        letters = [_letter(*row) for _, *row in rows]
        waiting: list[Message] = []
        for place, (letter, (next_at, *_)) in enumerate(zip(letters, rows, strict=True)):
            put_off = at < next_at <= at + _LONGEST_PAUSE_SECONDS
            if not put_off and not any(letter.message.must_follow(earlier) for earlier in waiting):
                return letter if letter.attempts else self._with_burst(letter, letters[place + 1 :], waiting)
            waiting.append(letter.message)
        return None

    def _with_burst(self, letter: Letter, later: Sequence[Letter], waiting: Sequence[Message]) -> Letter:
        untried = [one.message for one in later if not one.attempts]
        tried = [one.message for one in later if one.attempts]
        burst = burst_from(letter.message, untried, others=(*waiting, *tried))
        if not burst:
            return letter
        # A new id: a sender that died can have sent the first one alone.
        message = told_together((letter.message, *burst))
        with self._writing():
            self._connection.executemany("DELETE FROM messages WHERE id = ?", [(one.id,) for one in burst])
            self._connection.execute(_REPLACE, (message.id, event_text(message.event), letter.message.id))
        return replace(letter, message=message)

    def sent(self, letter: Letter, *, at: float) -> None:
        """Remove a message that its receiver has taken."""
        with self._writing():
            self._connection.execute("DELETE FROM messages WHERE id = ?", (letter.message.id,))
            if self._connection.changes():
                self._connection.execute(_SENT, (letter.message.receiver, at))

    def failed(self, letter: Letter, problem: str, *, next_at: float) -> None:
        """Put a message off that its receiver has not taken."""
        with self._writing():
            self._connection.execute(_PUT_OFF, (problem, next_at, letter.message.id))
            self._connection.execute(_FAILED, (letter.message.receiver, problem))

    def give_up(self, receivers: Collection[str], *, created_before: float, most: int) -> int:
        """Give up messages that are too old, too many for their receiver, or for none that there is; return how many.

        Of the dead letters of each receiver, too, only the latest are kept.
        """
        with self._writing():
            before = self._connection.total_changes()
            self._connection.execute(_GIVE_UP_OLD, (GIVEN_UP, created_before))
            names = [name for (name,) in self._connection.execute("SELECT DISTINCT receiver FROM messages").fetchall()]
            for name in names:
                if name not in receivers:
                    self._connection.execute(_GIVE_UP_ALL, (REMOVED, name))
                self._connection.execute(_GIVE_UP_BEYOND, (TOO_MANY, name, name, False, most))
            given_up = self._connection.total_changes() - before
            self._connection.executemany(_DROP_DEAD, [(name, name, True, most) for name in names])
        return given_up

    def retry(self, receiver: str = "", *, at: float) -> int:
        """Have dead letters sent once more, of one receiver or all; return how many."""
        with self._writing():
            self._connection.execute(_RETRY, (at, receiver, receiver))
            return self._connection.changes()

    def letters(self, *, dead: bool, receiver: str = "", limit: int) -> tuple[Letter, ...]:
        """Return what waits, or what is dead, the oldest first."""
        return tuple(_letter(*row) for row in self._rows(_LETTERS, (dead, receiver, receiver, limit)))

    def standings(self) -> tuple[Standing, ...]:
        """Return how each receiver is served that has ever been, by name."""
        return tuple(
            Standing(
                receiver=receiver,
                waiting=waiting,
                dead=dead,
                oldest_at=oldest_at,
                sent=sent,
                sent_at=sent_at,
                failed=failed,
                problem=problem,
            )
            for receiver, waiting, dead, oldest_at, sent, sent_at, failed, problem in self._rows(_STANDINGS, ())
        )

    def close(self) -> None:
        """Close the file. Calling it twice is harmless."""
        with self._lock:
            self._connection.close()

    def _rows(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self._reading():
            rows: list[tuple[Any, ...]] = self._connection.execute(sql, tuple(values)).fetchall()
            return rows

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except ENGINE_ERRORS as error:
                raise unavailable(error, _NAME) from None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._reading():
            self._connection.execute("BEGIN IMMEDIATE")
            with committing(self._connection):
                yield


def _letter(
    message_id: str, receiver: str, event: str, dead: int, created_at: float, attempts: int, problem: str
) -> Letter:
    return Letter(
        message=Message(id=message_id, receiver=receiver, event=event_from(event)),
        dead=bool(dead),
        created_at=created_at,
        attempts=attempts,
        problem=problem,
    )


_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS messages (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  receiver TEXT NOT NULL,
  event TEXT NOT NULL,
  dead INTEGER NOT NULL DEFAULT 0,
  created_at REAL NOT NULL,
  next_at REAL NOT NULL DEFAULT 0,
  attempts INTEGER NOT NULL DEFAULT 0,
  problem TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX IF NOT EXISTS messages_of_receiver ON messages (receiver, dead, position);
CREATE TABLE IF NOT EXISTS taken (event_id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS receivers (
  name TEXT PRIMARY KEY,
  sent INTEGER NOT NULL DEFAULT 0,
  sent_at REAL NOT NULL DEFAULT 0,
  failed INTEGER NOT NULL DEFAULT 0,
  problem TEXT NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;
"""
_COLUMNS: Final = "id, receiver, event, dead, created_at, attempts, problem"
_PUT: Final = "INSERT INTO messages (id, receiver, event, created_at) VALUES (?, ?, ?, ?)"
# The first column is for the choice, and the others make a letter.
_WAITING: Final = f"SELECT next_at, {_COLUMNS} FROM messages WHERE receiver = ? AND dead = 0 ORDER BY position LIMIT ?"  # noqa: S608 - words of our own
_LETTERS: Final = (
    f"SELECT {_COLUMNS} FROM messages WHERE dead = ? AND (? = '' OR receiver = ?) ORDER BY position LIMIT ?"  # noqa: S608 - the same
)
_SENT: Final = """
INSERT INTO receivers (name, sent, sent_at) VALUES (?, 1, ?)
ON CONFLICT DO UPDATE SET sent = sent + 1, sent_at = excluded.sent_at, problem = ''
"""
_REPLACE: Final = "UPDATE messages SET id = ?, event = ? WHERE id = ?"
_PUT_OFF: Final = "UPDATE messages SET attempts = attempts + 1, problem = ?, next_at = ? WHERE id = ?"
_FAILED: Final = """
INSERT INTO receivers (name, failed, problem) VALUES (?, 1, ?)
ON CONFLICT DO UPDATE SET failed = failed + 1, problem = excluded.problem
"""
_GIVE_UP: Final = "UPDATE messages SET dead = 1, problem = iif(problem = '', ?, problem) WHERE dead = 0"
_GIVE_UP_OLD: Final = f"{_GIVE_UP} AND created_at < ?"
_GIVE_UP_ALL: Final = f"{_GIVE_UP} AND receiver = ?"
_BEYOND: Final = "SELECT position FROM messages WHERE receiver = ? AND dead = ? ORDER BY position DESC LIMIT 1 OFFSET ?"
_GIVE_UP_BEYOND: Final = f"{_GIVE_UP} AND receiver = ? AND position <= ({_BEYOND})"
_DROP_DEAD: Final = f"DELETE FROM messages WHERE receiver = ? AND dead = 1 AND position <= ({_BEYOND})"  # noqa: S608 - words of our own
_RETRY: Final = """
UPDATE messages SET dead = 0, created_at = ?, next_at = 0, attempts = 0
WHERE dead = 1 AND (? = '' OR receiver = ?)
"""
_ABOUT: Final = "event ->> '$.tenant' = ? AND ? IN (event ->> '$.user', event ->> '$.by')"
_STANDINGS: Final = """
SELECT name,
  (SELECT count(*) FROM messages WHERE receiver = name AND dead = 0),
  (SELECT count(*) FROM messages WHERE receiver = name AND dead = 1),
  (SELECT coalesce(min(created_at), 0.0) FROM messages WHERE receiver = name AND dead = 0),
  coalesce(sent, 0), coalesce(sent_at, 0.0), coalesce(failed, 0), coalesce(problem, '')
FROM (SELECT name FROM receivers UNION SELECT receiver FROM messages) LEFT JOIN receivers USING (name)
ORDER BY name
"""
