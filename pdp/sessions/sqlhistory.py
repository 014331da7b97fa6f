"""The methods of a session history in SQL, for any engine: an engine adds connections, transactions and tables."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

from pdp.clock import Instant
from pdp.sessions.calltokenkeys import SQLCallTokenKeys
from pdp.sessions.history import require_same
from pdp.sessions.historycontract import BEGINNING, RETRY_SECONDS, AccessRequests, CallTokenKeys, ResultValues
from pdp.sessions.sql import Statements, required
from pdp.sessions.sqlaccess import SQLAccessRequests
from pdp.sessions.sqlcounts import SQLCounts
from pdp.sessions.sqlvalues import SQLValues
from pdp.sessions.taken import Taken
from pdp.sessions.values import Charge, Charged, Counts, Debit, Report, Used

# Old rows go in steps.
_ROWS_OF_A_STEP: Final = 2000


class ExhaustedError(Exception):
    """Too little is left for a debit: nothing of its charge is written."""

    def __init__(self, debit: Debit) -> None:
        super().__init__(debit.budget)
        self.debit = debit


class SQLSessionHistory(ABC):
    """A `SessionHistory` on a connection for all and one that only reads.

    An engine says how each is held: `_reading` and `_answering` while it reads, and the others for one transaction.
    With `tells` it has events of access requests; `turns` and `by_expiry` are for them, too.
    """

    def __init__(
        self,
        connection: Statements,
        reader: Statements,
        *,
        tells: bool,
        turns: str = "",
        by_expiry: str = "",
    ) -> None:
        self._connection = connection
        self._taken = Taken()
        self._counts = SQLCounts(connection)
        self._values = SQLValues(
            connection, reader, reading=self._reading, writing=self._writing, removing=self._removing
        )
        self._access = SQLAccessRequests(
            connection,
            reading=self._answering,
            writing=self._durably,
            spending=self._spending,
            wipe=self._wipe,
            noted=self._note_closed,
            taken=self._note_taken,
            may_lack=self._may_lack,
            tells=tells,
            turns=turns,
            by_expiry=by_expiry,
        )
        self._call_token_keys = SQLCallTokenKeys(
            connection,
            reading=self._answering,
            publishing=self._writing,
            withdrawing=self._durably,
            noted=self._note_closed,
        )

    def key(self) -> bytes:
        """Return the random secret."""
        with self._answering():
            key = required(self._connection.execute("SELECT key FROM history").get, "history")
        return bytes(key)

    def values(self) -> ResultValues:
        """Return what results held, in the same database."""
        return self._values

    def access(self) -> AccessRequests:
        """Return the access requests in the same database."""
        return self._access

    def call_token_keys(self) -> CallTokenKeys:
        """Return the keys of call tokens in the same database."""
        return self._call_token_keys

    def keep_report(self, report: Report) -> None:
        """Keep a report, one for each decision."""
        with self._writing():
            self._connection.execute(_KEEP, (report.decision_id, report.digest, report.reported_at))
            if self._connection.changes():
                self._counts.fail(report.failed)
            require_same(self._connection.execute(_KEPT, (report.decision_id,)).get, report)

    def forget_reports(self, *, reported_before: float) -> int:
        """Remove the reports from before a time; return how many."""
        return self._delete("reports", "decision_id", "reported_at", reported_before)

    def charge(self, charge: Charge) -> Charged:
        """Take all debits of a charge and add to its counts, or nothing."""
        try:
            with self._charging(charge.tree_id):
                receipt = _recent(charge.retry_digest, charge.now)
                charged_at = self._connection.execute(_JOIN, receipt).get if charge.retry_digest else None
                self._note_taken(charge.at if charged_at is None else float(charged_at))
                if charged_at is not None:
                    return Charged(charged_at=float(charged_at))
                used = tuple([self._take(debit) for debit in charge.debits])
                self._counts.require_seen(charge.seen)
                self._counts.add(charge.addends)
                if charge.retry_digest:
                    now = charge.now
                    self._connection.execute(_SIGN, (charge.retry_digest, now.wall_at, now.boot_at, now.boot_id))
        except ExhaustedError as error:
            return Charged(exhausted=error.debit)
        return Charged(used=used, charged_at=charge.at)

    def take_back(self, charge: Charge, charged_at: float) -> None:
        """Take back a charge, unless another try of the same call counts on it."""
        with self._returning(charge.tree_id):
            if self._may_lack(charged_at):
                return
            if charge.retry_digest:
                tries = self._connection.execute(_LEAVE, (charge.retry_digest, charged_at)).get
                # Another charge can have replaced one that is old.
                if tries is None or tries > 0:
                    return
                self._connection.execute(_TEAR, (charge.retry_digest,))
            self._connection.executemany(
                GIVE_BACK, [(one.amount, one.session_id, one.budget, one.window) for one in charge.debits]
            )
            self._counts.take_back(charge.addends)

    def used(self, session_id: str) -> Mapping[str, Used]:
        """Return what is used up of the budgets of a session."""
        with self._answering():
            rows: list[tuple[Any, ...]] = self._connection.execute(_USED, (session_id,)).fetchall()
        return {budget: Used(used, window) for budget, used, window in rows}

    def counts(
        self,
        session_ids: Collection[str],
        names: Collection[str],
        *,
        retry_digest: bytes = b"",
        now: Instant = BEGINNING,
    ) -> Counts:
        """Return the counts of some sessions under some names."""
        with self._answering():
            # Before the counts: when the charge is taken back in between, these are not as they will be `seen`.
            receipt = _recent(retry_digest, now)
            retried = bool(retry_digest) and self._connection.execute(_RETRIED, receipt).get is not None
            return self._counts.of(session_ids, names, retried=retried)

    def forget_charges(self, *, ended_before: float, charged_before: float) -> int:
        """Remove what is kept of sessions that were over before a time, and what tells retries of old charges."""
        self._delete("receipts", "retry_digest", "charged_at", charged_before)
        gone = self._delete("counts", "(session_id, name)", "ends_at", ended_before)
        return gone + self._delete("budgets", "(session_id, budget)", "ends_at", ended_before)

    @abstractmethod
    def close(self) -> None:
        """Close the connections; afterwards the history does not answer."""

    @abstractmethod
    def _reading(self) -> AbstractContextManager[None]:
        """Hold the connection that only reads: a decision that does waits for no writer."""

    @abstractmethod
    def _answering(self) -> AbstractContextManager[None]:
        """Hold the connection for all, to read."""

    @abstractmethod
    def _writing(self) -> AbstractContextManager[None]:
        """Make a transaction that takes nothing of what is reserved."""

    def _charging(self, tree_id: str) -> AbstractContextManager[None]:  # noqa: ARG002 - for engines that write at once
        """Make a transaction, before or after all others that take from a tree of sessions, or give back."""
        return self._writing()

    def _returning(self, tree_id: str) -> AbstractContextManager[None]:  # noqa: ARG002 - the same
        """Make one, in the same order, that may take of what is reserved."""
        return self._removing()

    @abstractmethod
    def _removing(self) -> AbstractContextManager[None]:
        """Make a transaction that may take of what is reserved."""

    @abstractmethod
    def _durably(self) -> AbstractContextManager[None]:
        """Make one that survives the sudden end of the machine, and may take of what is reserved."""

    @abstractmethod
    def _spending(self) -> AbstractContextManager[None]:
        """Make one that survives it, and takes nothing of what is reserved."""

    @abstractmethod
    def _note_closed(self, ids: Collection[str]) -> None:
        """Note which of these access requests and keys are closed in the present transaction, where that can be lost.

        It is noted before what the transaction has written, or found, is acknowledged.
        """

    def _timeline(self) -> str:
        """Return that of the database that has the present transaction; empty where there is only one."""
        return ""

    def _note_taken(self, at: float) -> None:
        self._taken.note(at, self._timeline())

    def _may_lack(self, at: float) -> bool:
        return self._taken.may_lack(at, self._timeline())

    @abstractmethod
    def _wipe(self) -> None:
        """Take the last traces of what was removed out of the files, as far as others let it happen."""

    def _delete(self, table: str, key: str, time: str, before: float) -> int:
        """Delete old rows in steps, between which others write; return how many."""
        columns = key.strip("()")
        total, removed = 0, _ROWS_OF_A_STEP
        while removed == _ROWS_OF_A_STEP:
            with self._removing():
                self._connection.execute(
                    f"DELETE FROM {table} WHERE {key} IN (SELECT {columns} FROM {table} WHERE {time} < ? LIMIT ?)",  # noqa: S608 - our own names
                    (before, _ROWS_OF_A_STEP),
                )
                removed = self._connection.changes()
            total += removed
        return total

    def _take(self, debit: Debit) -> int:
        used: int | None = self._connection.execute(TAKE, taking(debit, debit.amount)).get
        if used is None:
            raise ExhaustedError(debit)
        return used


def taking(debit: Debit, amount: int) -> tuple[str | float, ...]:
    """Return the values for `TAKE`, which takes `amount` of the budget of a debit."""
    values = (debit.session_id, debit.budget, amount, debit.window, debit.ends_at)
    return (*values, amount, debit.most, debit.most)


def _recent(retry_digest: bytes, now: Instant) -> tuple[bytes, float, str, float]:
    """Return the values for what finds a charge of the same call that is less than `RETRY_SECONDS` old."""
    return retry_digest, now.wall_at - RETRY_SECONDS, now.boot_id, now.boot_at - RETRY_SECONDS


_KEEP: Final = "INSERT INTO reports VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_KEPT: Final = "SELECT digest FROM reports WHERE decision_id = ?"
# Written without a sum of two numbers of 64 bits.
TAKE: Final = """
INSERT INTO budgets AS known SELECT ?, ?, ?, ?, ? WHERE ? <= ?
ON CONFLICT (session_id, budget) DO UPDATE SET
  used = CASE WHEN known."window" < excluded."window" THEN 0 ELSE known.used END + excluded.used,
  "window" = CASE WHEN known."window" < excluded."window" THEN excluded."window" ELSE known."window" END
WHERE known."window" < excluded."window" OR known.used <= ? - excluded.used
RETURNING used
"""
GIVE_BACK: Final = 'UPDATE budgets SET used = used - ? WHERE session_id = ? AND budget = ? AND "window" = ?'
_USED: Final = 'SELECT budget, used, "window" FROM budgets WHERE session_id = ?'
_RECENT: Final = "retry_digest = ? AND charged_at > ? AND NOT (boot_id = ? AND boot_at <= ?)"
_JOIN: Final = f"UPDATE receipts SET tries = tries + 1 WHERE {_RECENT} RETURNING charged_at"  # noqa: S608 - words of our own
_SIGN: Final = """
INSERT INTO receipts VALUES (?, ?, 1, ?, ?) ON CONFLICT (retry_digest) DO UPDATE SET
  charged_at = excluded.charged_at, tries = excluded.tries, boot_at = excluded.boot_at, boot_id = excluded.boot_id
"""
_LEAVE: Final = "UPDATE receipts SET tries = tries - 1 WHERE retry_digest = ? AND charged_at = ? RETURNING tries"
_TEAR: Final = "DELETE FROM receipts WHERE retry_digest = ?"
_RETRIED: Final = f"SELECT 1 FROM receipts WHERE {_RECENT}"  # noqa: S608 - words of our own
