"""Keep in PostgreSQL what the record of each process is to say of its changes, until the record has it on its disk.

A row belongs to the chain of the record that its writer had. Whoever continues that chain knows that the writer is
gone, because it holds the lock on the chain, and records what is left.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from pdp.model import Session
from pdp.observer import Event
from pdp.sessions.sql import Statements
from pdp.sessions.unrecorded import Account, KnownRows, Unrecorded, events_from, events_text

_KEEP: Final = "INSERT INTO unrecorded (id, chain, events) VALUES (?, ?, ?)"
_CHAINS: Final = "SELECT DISTINCT chain FROM unrecorded WHERE chain != ?"
_ADOPT: Final = "UPDATE unrecorded SET chain = ? WHERE chain = ANY(?)"
_OWN: Final = "SELECT id FROM unrecorded WHERE chain = ?"
_EVENTS: Final = "SELECT id, events FROM unrecorded WHERE id = ANY(?)"
_FORGET: Final = "DELETE FROM unrecorded WHERE id = ANY(?)"


class PostgresUnrecorded:
    """The rows of one process, on a connection of its store. Safe for threads.

    `known` are those that it knows. `holding` holds the connection for some statements. All methods but `accounting`,
    `keep` and `recorded` raise what that raises.
    """

    def __init__(
        self, connection: Statements, *, known: KnownRows, holding: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._connection, self._known, self._holding = connection, known, holding
        self._block = _Block()

    @contextmanager
    def accounting(self, account: Account | None) -> Iterator[None]:
        """Keep what `account` says of each transaction of this thread in the `with` block.

        When the block ends well, all of that was handed to the record. Without an account, that of a block around this
        one counts.
        """
        if account is None or not self._known.chain:
            yield
            return
        before, self._block.account, self._block.ids = (self._block.account, self._block.ids), account, []
        try:
            yield
        except BaseException:
            # What has come of it is not known: whatever is found is looked for in the record.
            self._known.drop(self._block.ids)
            raise
        else:
            self._known.note(self._block.ids, recorded=True)
        finally:
            self._block.account, self._block.ids = before

    def keep(self, written: Sequence[Session]) -> None:
        """Write in the present transaction what the record is to say of it."""
        events = tuple(self._block.account(written))
        if events:
            row = secrets.token_hex(16)
            self._block.ids.append(row)
            self._known.note([row], recorded=False)
            self._connection.execute(_KEEP, (row, self._known.chain, events_text(events)))

    def recorded(self) -> frozenset[str]:
        """Return the rows whose events were handed to the record, and that are not forgotten."""
        return self._known.recorded()

    def forget(self, rows: Collection[str]) -> None:
        """Remove rows whose events the record has on its disk."""
        if rows:
            with self._holding():
                self._connection.execute(_FORGET, (list(rows),))
            self._known.drop(rows)

    def left(self, is_left: Callable[[str], bool]) -> tuple[Unrecorded, ...]:
        """Return what no living process will record, and have it count as recorded.

        That is what is left of other chains whose process `is_left` says is gone, of an earlier process with the chain
        of this one, and of changes whose outcome this process has not learned.
        """
        with self._holding():
            # Within one turn at the connection: a process that starts later takes a chain long after that.
            others = [str(chain) for (chain,) in self._connection.execute(_CHAINS, (self._known.chain,))]
            if behind := [chain for chain in others if is_left(chain)]:
                self._connection.execute(_ADOPT, (self._known.chain, behind))
            own = [str(row) for (row,) in self._connection.execute(_OWN, (self._known.chain,))]
            # The known ones become many while the disk fails.
            unknown = self._known.unknown(own)
            rows = self._connection.execute(_EVENTS, (unknown,)).fetchall() if unknown else ()
        return tuple(Unrecorded(id=row, events=events_from(text)) for row, text in rows)

    def take(self, left: Iterable[Unrecorded]) -> None:
        """Note that the record has got what was left."""
        self._known.note([one.id for one in left], recorded=True)


def _nothing(_: Sequence[Session]) -> Iterable[Event]:
    return ()


class _Block(threading.local):
    """The present block of a thread: what says what the record is to say, and the rows that were written."""

    def __init__(self) -> None:
        self.account: Account = _nothing
        self.ids: list[str] = []
