"""Keep messages until their receivers have taken them; what was given up stays as a dead letter.

Here is what queues in all engines share. It is apart from the stores: what is sent and tried again must not delay a
write of theirs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from pdp.messages.sorting import Earlier, Message, burst_from, told_together
from pdp.sessions.outbox import event_from, event_text
from pdp.sessions.sql import Statements

NAME: Final = "queue of messages"
BUSY_SECONDS: Final = 5.0
# So many of what waits for a receiver are read at a time, and one message can tell as many more.
_STEP: Final = 200
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


class MessageQueue(ABC):
    """The queue of one deployment, on a connection of its engine. Safe for threads.

    Methods raise `StoreUnavailableError` when it cannot be read or written, and those of the sender also when its turn
    is over.
    """

    def __init__(self, connection: Statements) -> None:
        self._connection = connection

    @abstractmethod
    def lead(self) -> str:
        """Return the name of the turn in which this process sends; empty while another one has it.

        The holder calls it again and again to keep the turn. Each turn has a name of its own.
        """

    def put(self, messages: Iterable[Message], event_ids: Collection[str], *, at: float) -> None:
        """Keep messages, and note the events that they were made of: both or neither."""
        rows = [(one.id, one.receiver, event_text(one.event), at) for one in messages]
        with self._sending():
            self._connection.executemany(_TAKE, [(one,) for one in event_ids])
            self._connection.executemany(_PUT, rows)

    def taken(self, event_ids: Collection[str]) -> frozenset[str]:
        """Return which of some events are noted: a sender that died can have left them in their store."""
        with self._reading():
            found = self._connection.execute("SELECT event_id FROM taken").fetchall()
        return frozenset(str(one) for (one,) in found).intersection(event_ids)

    def forget_taken(self, event_ids: Collection[str]) -> None:
        """Forget events that their store no longer has."""
        with self._sending():
            self._connection.executemany("DELETE FROM taken WHERE event_id = ?", [(one,) for one in event_ids])

    def forget_all_taken(self) -> None:
        """Forget all noted events: those of senders that died, when no store has one of them any more."""
        with self._sending():
            self._connection.execute("DELETE FROM taken")

    def due(self, receiver: str, *, at: float) -> Letter | None:
        """Return the oldest message to be sent to a receiver now; None without one.

        While a message is to be tried again, later ones about the same session wait, and others do not. What has
        gathered behind one while its receiver was away, and was not tried, is told with it as one burst.
        """
        latest = at + _LONGEST_PAUSE_SECONDS
        # Mostly nothing is, and then none of thousands that were put off is read.
        if not self._rows(_ANY_DUE, (receiver, at, latest)):
            return None
        waiting, position = Earlier(), 0
        while rows := self._rows(_WAITING, (receiver, position, _STEP)):
            for position, next_at, *row in rows:
                letter = _letter(*row)
                put_off = at < next_at <= latest
                if not put_off and not waiting.hold(letter.message):
                    return letter if letter.attempts else self._with_burst(letter, position, waiting)
                waiting.add(letter.message)
        return None

    def _with_burst(self, letter: Letter, position: int, waiting: Earlier) -> Letter:
        later = [_letter(*row) for _, _, *row in self._rows(_WAITING, (letter.message.receiver, position, _STEP))]
        for one in later:
            if one.attempts:
                waiting.add(one.message)
        untried = [one.message for one in later if not one.attempts]
        burst = burst_from(letter.message, untried, others=waiting)
        if not burst:
            return letter
        # A new id: a sender that died can have sent the first one alone.
        message = told_together((letter.message, *burst))
        with self._sending():
            self._connection.executemany("DELETE FROM messages WHERE id = ?", [(one.id,) for one in burst])
            self._connection.execute(_REPLACE, (message.id, event_text(message.event), letter.message.id))
        return replace(letter, message=message)

    def sent(self, letter: Letter, *, at: float) -> None:
        """Remove a message that its receiver has taken."""
        with self._sending():
            self._connection.execute("DELETE FROM messages WHERE id = ?", (letter.message.id,))
            if self._connection.changes():
                self._connection.execute(_SENT, (letter.message.receiver, at))

    def failed(self, letter: Letter, problem: str, *, next_at: float) -> None:
        """Put a message off that its receiver has not taken."""
        with self._sending():
            self._connection.execute(_PUT_OFF, (problem, next_at, letter.message.id))
            self._connection.execute(_FAILED, (letter.message.receiver, problem))

    def give_up(self, receivers: Collection[str], *, created_before: float, most: int) -> int:
        """Give up messages that are too old, too many for their receiver, or for none that there is; return how many.

        Of the dead letters of each receiver, too, only the latest are kept.
        """
        with self._sending():
            self._connection.execute(_GIVE_UP_OLD, (GIVEN_UP, created_before))
            given_up = self._connection.changes()
            names = [name for (name,) in self._connection.execute("SELECT DISTINCT receiver FROM messages").fetchall()]
            for name in names:
                if name not in receivers:
                    self._connection.execute(_GIVE_UP_ALL, (REMOVED, name))
                    given_up += self._connection.changes()
                self._connection.execute(_GIVE_UP_BEYOND, (TOO_MANY, name, name, 0, most))
                given_up += self._connection.changes()
            self._connection.executemany(_DROP_DEAD, [(name, name, 1, most) for name in names])
        return given_up

    def retry(self, receiver: str = "", *, at: float) -> int:
        """Have dead letters sent once more, of one receiver or all; return how many."""
        with self._writing():
            self._connection.execute(_RETRY, (at, receiver, receiver))
            return self._connection.changes()

    def letters(self, *, dead: bool, receiver: str = "", limit: int) -> tuple[Letter, ...]:
        """Return what waits, or what is dead, the oldest first."""
        return tuple(_letter(*row) for row in self._rows(_LETTERS, (int(dead), receiver, receiver, limit)))

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

    def receive(self, other: MessageQueue) -> int:
        """Take over what another queue holds, in its order; return how many messages. There must be no sender there.

        What is here already stays as it is: the other one can have been read before, without being emptied.
        """
        rows = other._rows(_ALL, ())
        taken = other._rows("SELECT event_id FROM taken", ())
        with self._writing():
            self._connection.executemany(_RECEIVE, rows)
            self._connection.executemany(_TAKE, taken)
        with other._writing():
            other._connection.executemany("DELETE FROM messages WHERE id = ?", [row[:1] for row in rows])
            other._connection.executemany("DELETE FROM taken WHERE event_id = ?", taken)
        return len(rows)

    @abstractmethod
    def close(self) -> None:
        """End the turn, and close it. Calling it twice is harmless."""

    @abstractmethod
    def _reading(self) -> AbstractContextManager[None]:
        """Hold the connection, to read."""

    @abstractmethod
    def _writing(self) -> AbstractContextManager[None]:
        """Hold the connection for one transaction."""

    @abstractmethod
    def _require_turn(self) -> None:
        """Raise `StoreUnavailableError` unless this process has the turn until the end of the transaction."""

    @contextmanager
    def _sending(self) -> Iterator[None]:
        """Make a transaction of the sender.

        INVARIANT: one that was stopped while another one took its turn changes nothing of what that one does.
        """
        with self._writing():
            self._require_turn()
            yield

    def _rows(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self._reading():
            rows: list[tuple[Any, ...]] = self._connection.execute(sql, tuple(values)).fetchall()
            return rows


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


_COLUMNS: Final = "id, receiver, event, dead, created_at, attempts, problem"
_TAKE: Final = "INSERT INTO taken (event_id) VALUES (?) ON CONFLICT DO NOTHING"
_ALL: Final = """
SELECT id, receiver, event, dead, created_at, next_at, attempts, problem FROM messages ORDER BY position
"""
_RECEIVE: Final = """
INSERT INTO messages (id, receiver, event, dead, created_at, next_at, attempts, problem)
VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING
"""
_PUT: Final = "INSERT INTO messages (id, receiver, event, created_at) VALUES (?, ?, ?, ?)"
# The first columns are for the choice, and the others make a letter.
_WAITING: Final = f"""
SELECT position, next_at, {_COLUMNS} FROM messages WHERE receiver = ? AND dead = 0 AND position > ?
ORDER BY position LIMIT ?
"""  # noqa: S608 - words of our own
_ANY_DUE: Final = """
SELECT 1 FROM messages WHERE receiver = ? AND dead = 0 AND (next_at <= ? OR next_at > ?) LIMIT 1
"""
_LETTERS: Final = (
    f"SELECT {_COLUMNS} FROM messages WHERE dead = ? AND (? = '' OR receiver = ?) ORDER BY position LIMIT ?"  # noqa: S608 - the same
)
_SENT: Final = """
INSERT INTO receivers (name, sent, sent_at) VALUES (?, 1, ?)
ON CONFLICT (name) DO UPDATE SET sent = receivers.sent + 1, sent_at = excluded.sent_at, problem = ''
"""
_REPLACE: Final = "UPDATE messages SET id = ?, event = ? WHERE id = ?"
_PUT_OFF: Final = "UPDATE messages SET attempts = attempts + 1, problem = ?, next_at = ? WHERE id = ?"
_FAILED: Final = """
INSERT INTO receivers (name, failed, problem) VALUES (?, 1, ?)
ON CONFLICT (name) DO UPDATE SET failed = receivers.failed + 1, problem = excluded.problem
"""
_GIVE_UP: Final = "UPDATE messages SET dead = 1, problem = CASE problem WHEN '' THEN ? ELSE problem END WHERE dead = 0"
_GIVE_UP_OLD: Final = f"{_GIVE_UP} AND created_at < ?"
_GIVE_UP_ALL: Final = f"{_GIVE_UP} AND receiver = ?"
_BEYOND: Final = "SELECT position FROM messages WHERE receiver = ? AND dead = ? ORDER BY position DESC LIMIT 1 OFFSET ?"
_GIVE_UP_BEYOND: Final = f"{_GIVE_UP} AND receiver = ? AND position <= ({_BEYOND})"
_DROP_DEAD: Final = f"DELETE FROM messages WHERE receiver = ? AND dead = 1 AND position <= ({_BEYOND})"  # noqa: S608 - words of our own
_RETRY: Final = """
UPDATE messages SET dead = 0, created_at = ?, next_at = 0, attempts = 0
WHERE dead = 1 AND (? = '' OR receiver = ?)
"""
_STANDINGS: Final = """
SELECT name,
  (SELECT count(*) FROM messages WHERE receiver = name AND dead = 0),
  (SELECT count(*) FROM messages WHERE receiver = name AND dead = 1),
  (SELECT coalesce(min(created_at), 0.0) FROM messages WHERE receiver = name AND dead = 0),
  coalesce(sent, 0), coalesce(sent_at, 0.0), coalesce(failed, 0), coalesce(problem, '')
FROM (SELECT name FROM receivers UNION SELECT receiver FROM messages) AS known LEFT JOIN receivers USING (name)
ORDER BY name
"""
