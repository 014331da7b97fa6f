"""Keep messages in PostgreSQL, beside the sessions: one queue for all machines, and one of them sends at a time.

The machine that sends has a turn, which ends by the clock of the database unless it is kept. Each transaction of the
sender keeps it, and changes nothing when it is over: whoever has stopped for longer finds another one in its place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from pdp.errors import PDPError, StoreUnavailableError
from pdp.messages.queue import BUSY_SECONDS, NAME, Letter, MessageQueue
from pdp.sessions.postgresconnection import BoundedLock, PostgresConnection

if TYPE_CHECKING:
    from pdp.sessions.postgres import PostgresSessionStore

# How long the messages of a machine that has died wait for another one.
TURN_SECONDS: Final = 10.0


class PostgresMessageQueue(MessageQueue):
    """A `MessageQueue` in the tables of a session store in PostgreSQL, which must be there.

    `conninfo` and `namespace` are those of the store. After a failover nothing is kept or sent before it is settled by
    `beside`, the store. A turn lasts `turn_seconds` unless it is kept.
    """

    _connection: PostgresConnection

    def __init__(
        self,
        conninfo: str,
        *,
        namespace: str = "pdp",
        beside: PostgresSessionStore | None = None,
        turn_seconds: float = TURN_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        connection = PostgresConnection(
            conninfo,
            namespace=f"{namespace}_sessions",
            name=NAME,
            busy_seconds=BUSY_SECONDS,
            primary=beside.primary if beside else None,
        )
        connection.admit = beside.admit if beside else None
        super().__init__(connection)
        self._beside = beside
        self._lock = BoundedLock(BUSY_SECONDS, NAME)
        self._seconds = turn_seconds
        self._monotonic = monotonic
        # The present turn, and until when it certainly lasts.
        self._turn, self._until = "", float("-inf")

    def lead(self) -> str:
        """Return the name of the turn in which this process sends; empty while another one has it."""
        asked_at = self._monotonic()
        with self._writing():
            turn = self._connection.execute(_KEEP, (self._seconds, self._turn)).get
            if turn is None and self._connection.execute(_TAKEN).get is None:
                turn = self._connection.execute(_TAKE, (self._seconds,)).get
        self._turn, self._until = turn or "", asked_at + self._seconds
        return self._turn

    def due(self, receiver: str, *, at: float) -> Letter | None:
        """Return the oldest message to be sent to a receiver now; None without one, and when the turn may be over."""
        return super().due(receiver, at=at) if self._turn and self._monotonic() < self._until else None

    def close(self) -> None:
        """End the turn, and close the connection."""
        turn, self._turn = self._turn, ""
        if turn:
            # What cannot be ended ends by itself.
            with suppress(PDPError), self._writing():
                self._connection.execute(_END, (turn,))
        with self._lock:
            self._connection.close()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock, self._connection.answering():
            yield

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._reading(), self._connection.transaction("BEGIN"):
            yield
            if self._beside is not None:
                self._beside.require_standbys(self._connection)

    def _require_turn(self) -> None:
        asked_at = self._monotonic()
        if self._connection.execute(_KEEP, (self._seconds, self._turn)).get is None:
            raise StoreUnavailableError("another machine sends messages now")
        self._until = asked_at + self._seconds


# An end that is further away than any is of a clock that was put back.
_LASTS: Final = "ends_at > clock_timestamp() AND ends_at < clock_timestamp() + interval '1 minute'"
_ENDS: Final = "clock_timestamp() + make_interval(secs => CAST(? AS double precision))"
_KEEP: Final = f"UPDATE message_turn SET ends_at = {_ENDS} WHERE turn = ? AND {_LASTS} RETURNING turn"  # noqa: S608 - words of our own
# Most machines only read this.
_TAKEN: Final = f"SELECT turn FROM message_turn WHERE {_LASTS}"  # noqa: S608 - the same
_TAKE: Final = f"""
INSERT INTO message_turn ("only", turn, ends_at) VALUES (1, CAST(gen_random_uuid() AS text), {_ENDS})
ON CONFLICT ("only") DO UPDATE SET turn = excluded.turn, ends_at = excluded.ends_at
WHERE NOT ({_LASTS.replace("ends_at", "message_turn.ends_at")})
RETURNING turn
"""  # noqa: S608 - the same
_END: Final = "UPDATE message_turn SET ends_at = '-infinity' WHERE turn = ?"
