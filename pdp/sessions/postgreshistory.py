"""Keep what calls left behind in PostgreSQL, apart from the sessions: none of it moves their revision."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING, Final

from pdp.errors import PDPError, StoreUnavailableError
from pdp.foundation.repeating import Repeater
from pdp.sessions.calltokenkeys import is_withdrawn
from pdp.sessions.closings import Note, refused, withdrawn
from pdp.sessions.postgresconnection import IDLE_SECONDS, SECONDS, BoundedLock, PostgresConnection, Primary
from pdp.sessions.postgrestables import HISTORY_VERSION, prepare_history
from pdp.sessions.sql import required
from pdp.sessions.sqlaccess import request_on
from pdp.sessions.sqlhistory import SQLSessionHistory
from pdp.sessions.sqlslices import IDLE_SLICE_SECONDS, SQLSlices
from pdp.sessions.values import Charge, Charged, Used

if TYPE_CHECKING:
    from pdp.sessions.postgres import PostgresSessionStore

_LOG = logging.getLogger("pdp")

_NAME: Final = "session history"
# How often idle slices of budgets are looked for.
_LOOK_SECONDS: Final = 1.0
# One row orders all writes. What is read before it is held can be out of date.
_LOCK: Final = "SELECT version FROM history FOR NO KEY UPDATE"
_BEGIN_DURABLE: Final = f"BEGIN; {_LOCK}"
# All see a commit before it returns, and it is on the disk after a while: as in SQLite.
_SOON: Final = "SET LOCAL synchronous_commit = off"
_BEGIN: Final = f"BEGIN; {_SOON}; {_LOCK}"
# What sessions of different trees take is written at the same time, since each commit waits for the disk. The lock ends
# with its transaction, which the server ends when its holder has stopped. A move keeps others out of the table.
_BEGIN_TREE: Final = (
    "BEGIN; {soon}LOCK TABLE history IN ROW SHARE MODE; SELECT pg_advisory_xact_lock(CAST('{number}' AS bigint))"
)


class PostgresSessionHistory(SQLSessionHistory):
    """A `SessionHistory` in a database of PostgreSQL. Safe for threads; open it after forking, not before.

    Its tables are in the schema `namespace` with `_history` behind it. The others are as in `PostgresSessionStore`, and
    in `SQLiteSessionHistory`. What is removed stays in the log of the database, and in its files until their cleaning.
    `beside` is the store of the sessions: after a failover nothing is kept here before it is settled, either, and when
    one of the two has lost the primary, both open their connections again. Under its lease budgets are taken in slices,
    where their debits say so, and one from which no call takes is given back after `slice_seconds`; without a lease all
    budgets are exact.
    """

    _connection: PostgresConnection
    # What the present transaction closes.
    _closed: list[Note]

    def __init__(
        self,
        conninfo: str,
        *,
        namespace: str = "pdp",
        busy_seconds: float = 5.0,
        seconds: float = SECONDS,
        idle_seconds: float = IDLE_SECONDS,
        tells: bool = False,
        wall_at: Callable[[], float] = time.time,
        beside: PostgresSessionStore | None = None,
        slice_seconds: float = IDLE_SLICE_SECONDS,
    ) -> None:
        tables, primary = f"{namespace}_history", beside.primary if beside else Primary()

        def connection(busy_seconds: float = busy_seconds) -> PostgresConnection:
            made = PostgresConnection(
                conninfo,
                namespace=tables,
                name=_NAME,
                busy_seconds=busy_seconds,
                seconds=seconds,
                idle_seconds=idle_seconds,
                primary=primary,
            )
            made.admit = beside.admit if beside else None
            return made

        self._beside = beside
        # A decision that only reads waits for no writer.
        self._lock, self._reading_lock = BoundedLock(busy_seconds, _NAME), BoundedLock(busy_seconds, _NAME)
        self._reader = connection(0.0)
        with ExitStack() as opened:
            writing = opened.enter_context(closing(connection()))
            super().__init__(writing, self._reader, tells=tells, turns=f"{namespace}_sessions.message_turn")
            with self._connection.answering():
                version = prepare_history(self._connection, tables)
                self._counts.begin(wall_at())
            if version != HISTORY_VERSION:
                raise StoreUnavailableError(
                    f"the session history has version `{version}`, and this program knows `{HISTORY_VERSION}`: "
                    "upgrade the program"
                )
            opened.pop_all()
        standing = beside.lease_standing if beside else None
        self._slice_seconds = slice_seconds
        self._has_leases = standing is not None
        self._slices = SQLSlices(
            self._connection,
            standing.timeline if standing else _no_timeline,
            timeline=lambda: self._connection.timeline,
            charging=self._charging,
            returning=self._returning,
            turn=BoundedLock(busy_seconds, _NAME),
        )
        self._look = Repeater("slices", self._give_back_idle, every=_LOOK_SECONDS, at_once=False)
        if self._has_leases:
            self._look.start()

    def charge(self, charge: Charge) -> Charged:
        """Take all debits of a charge and add to its counts, or nothing."""
        if self._has_leases and charge.sliced:
            return self._slices.charge(charge)
        charged = super().charge(charge)
        if charged.exhausted is not None and self._slices.give_back(charge):
            charged = super().charge(charge)
        return charged

    def take_back(self, charge: Charge, charged_at: float) -> None:
        """Take back a charge, unless another try of the same call counts on it."""
        if self._has_leases and charge.sliced:
            self._slices.take_back(charge, charged_at)
        else:
            super().take_back(charge, charged_at)

    def used(self, session_id: str) -> Mapping[str, Used]:
        """Return what is used up of the budgets of a session."""
        with self._answering():
            return self._slices.used(session_id)

    def forget_charges(self, *, ended_before: float, charged_before: float) -> int:
        """Remove what is kept of sessions that were over before a time, and what tells retries of old charges."""
        self._slices.forget_receipts(charged_before=charged_before)
        self._delete("slices", "id", "ends_at", ended_before)
        return super().forget_charges(ended_before=ended_before, charged_before=charged_before)

    def close(self) -> None:
        """Give back what is held of budgets, and close the connections; afterwards the history does not answer."""
        self._look.stop()
        # What is not given back is lost for its session.
        with suppress(PDPError):
            self._slices.give_back_idle(0.0)
        with self._lock, self._reading_lock:
            self._connection.close()
            self._reader.close()

    def _give_back_idle(self) -> None:
        try:
            self._slices.give_back_idle(self._slice_seconds)
        except PDPError as error:
            _LOG.warning("a slice of a budget could not be given back: %s", error)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._reading_lock, self._reader.answering():
            yield

    @contextmanager
    def _answering(self) -> Iterator[None]:
        with self._lock, self._connection.answering():
            yield

    def _charging(self, tree_id: str) -> AbstractContextManager[None]:
        # A budget is not exceeded either when the database has lost its last moments, or another one takes its place.
        return self._safely(_begin_in_turn(tree_id))

    def _returning(self, tree_id: str) -> AbstractContextManager[None]:
        # What is not given back in the end costs a call, and grants nothing.
        return self._transaction(_begin_in_turn(tree_id, f"{_SOON}; "))

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        with self._answering(), self._connection.transaction(begin):
            # INVARIANT: the last statement of `begin` holds something. Without the row it holds nothing, and others
            # write meanwhile.
            required(self._connection.changes() or None, "history")
            yield

    @contextmanager
    def _safely(self, begin: str) -> Iterator[None]:
        """Make a transaction that is not lost once it is acknowledged."""
        with self._transaction(begin):
            yield
            if self._beside is not None:
                # An open connection learns only here that commits wait for no standby any more.
                self._beside.require_standbys(self._connection)

    def _writing(self) -> AbstractContextManager[None]:
        return self._transaction(_BEGIN)

    def _removing(self) -> AbstractContextManager[None]:
        return self._transaction(_BEGIN)

    @contextmanager
    def _durably(self) -> Iterator[None]:
        with self._safely(_BEGIN_DURABLE):
            self._closed = []
            yield
            closed, timeline = self._closed, self._connection.timeline
        if closed and self._beside is not None:
            self._beside.note_closed(closed, timeline)

    def _note_closed(self, ids: Collection[str]) -> None:
        if self._beside is None or not self._beside.notes:
            return
        for one in ids:
            request = request_on(self._connection, one)
            note = refused(request) if request else None
            if is_withdrawn(self._connection, one):
                note = withdrawn(one)
            self._closed += [note] if note else []

    def _timeline(self) -> str:
        return self._connection.timeline

    def _spending(self) -> AbstractContextManager[None]:
        return self._safely(_BEGIN_DURABLE)

    def _wipe(self) -> None:
        pass


def _no_timeline() -> None:
    return None


def _begin_in_turn(tree_id: str, soon: str = "") -> str:
    """Return what begins a transaction in the turn of a tree, in one round trip.

    The number of the lock can be that of another tree too: then the two wait for each other.
    """
    number = int.from_bytes(hashlib.sha256(tree_id.encode()).digest()[:8], signed=True)
    return _BEGIN_TREE.format(number=number, soon=soon)
