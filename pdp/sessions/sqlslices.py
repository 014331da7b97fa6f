"""Take budgets in slices from a database that servers share, so that not each call waits for a commit.

A slice is a debit like any other, of as many units as it has, in the row that all servers take from; what a server then
spends of it is its own affair. A server that knows of no slices only sees that more is used up. A table of its own
holds what each slice had left at the beginning, for two reasons: people see it, and it goes back with the debit if a
standby takes over that has neither. So a slice is given back only when its row is still there, and only once.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

from pdp.errors import OverloadedError
from pdp.sessions.slices import Slice, Slices
from pdp.sessions.sql import Statements
from pdp.sessions.sqlhistory import GIVE_BACK, TAKE, ExhaustedError, taking
from pdp.sessions.values import Charge, Charged, Debit, Used

# A slice from which no call takes is given back after this.
IDLE_SLICE_SECONDS: Final = 5.0

Transaction = Callable[[str], AbstractContextManager[None]]


class SQLSlices:
    """The slices that a process takes in the database of a history. Safe for threads.

    `lease_timeline` returns the timeline of the present lease, None without one, and `timeline` that of the server that
    `connection` was opened to, empty when it is not known. `charging` and `returning` make transactions of `connection`
    in the order of a tree of sessions, by the id of its root; `turn` is held by the call that takes a slice.
    """

    def __init__(
        self,
        connection: Statements,
        lease_timeline: Callable[[], str | None],
        *,
        timeline: Callable[[], str],
        charging: Transaction,
        returning: Transaction,
        turn: AbstractContextManager[object],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._lease_timeline = lease_timeline
        self._timeline = timeline
        self._charging = charging
        self._returning = returning
        # So that of many calls which lack the same slice one takes it.
        self._turn = turn
        self._slices = Slices(lease_timeline, monotonic=monotonic)

    def charge(self, charge: Charge) -> Charged:
        """Take all debits of a charge in slices, or nothing, as `SessionHistory.charge` does."""
        charged = self._slices.spend(charge)
        if charged is not None:
            return charged
        with self._turn:
            # Another call can have taken enough meanwhile.
            charged = self._slices.spend(charge)
            return charged if charged is not None else self._take(charge)

    def take_back(self, charge: Charge, charged_at: float) -> None:
        """Take back a charge in slices, as `SessionHistory.take_back` does."""
        if not self._slices.leave(charge, charged_at):
            return
        gone, timeline = self._slices.give_back(charge.debits)
        if gone:
            with self._returning(charge.tree_id):
                # INVARIANT: a server that has taken the place of the one with the debits may never have had them.
                if self._timeline() in ("", timeline):
                    rows = [(one.amount, one.session_id, one.budget, one.window) for one in gone]
                    self._connection.executemany(GIVE_BACK, rows)

    def give_back(self, charge: Charge) -> bool:
        """Give back what is held of the budgets of a charge; say whether that was anything."""
        given = self._slices.take_out(charge.debits)
        for one in given:
            self._return(one)
        return any(one.left for one in given)

    def give_back_idle(self, seconds: float) -> None:
        """Give back all slices that were not spent from for so many seconds. What cannot be given back is lost."""
        while (one := self._slices.take_out_idle(seconds)) is not None:
            self._return(one)

    def used(self, session_id: str) -> Mapping[str, Used]:
        """Return what is used up of the budgets of a session, in a read of the caller.

        What this process holds is not: its calls can still take it.
        """
        own = self._slices.of(session_id)
        query = _USED.format("".join([", ?"] * len(own)))
        rows: list[tuple[Any, ...]] = self._connection.execute(
            query, (*(one.id for one in own.values()), session_id)
        ).fetchall()
        return {
            budget: Used(used - _left(own.get(budget), window), window, held) for budget, used, window, held in rows
        }

    def forget_receipts(self, *, charged_before: float) -> None:
        """Have retries of old charges be charges of their own."""
        self._slices.forget_receipts(charged_before=charged_before)

    def _take(self, charge: Charge) -> Charged:
        """Take a new slice for each debit in place of the one that is held, or exactly the debit when that is all."""
        rests = self._slices.take_out(charge.debits)
        timeline = self._lease_timeline()
        try:
            with self._charging(charge.tree_id):
                # INVARIANT: the lease can be of another server already than the one that will have the debit.
                if (on := self._timeline()) not in ("", timeline):
                    timeline = None
                self._give_back(rests)
                taken = [self._taken(debit, timeline, charge.tree_id) for debit in charge.debits]
        except ExhaustedError as error:
            # Nothing was given back either.
            self._slices.put_back(rests)
            return Charged(exhausted=error.debit)
        except OverloadedError:
            self._slices.put_back(rests)
            raise
        return self._slices.put(charge, taken, on or timeline or "")

    def _taken(self, debit: Debit, timeline: str | None, tree_id: str) -> Slice:
        # Without a lease no slice could be spent: see `Slices.spend`.
        for size in (debit.slice if timeline is not None else 0, debit.amount):
            found = self._connection.execute(_TAKE, taking(debit, size)).get if size >= debit.amount else None
            if found is not None:
                used, window = found
                break
        else:
            raise ExhaustedError(debit)
        left = size - debit.amount
        slice_id = secrets.token_hex(16) if left else ""
        if slice_id:
            row = (slice_id, debit.session_id, debit.budget, window, left, debit.ends_at)
            self._connection.execute("INSERT INTO slices VALUES (?, ?, ?, ?, ?, ?)", row)
        return Slice(
            id=slice_id,
            session_id=debit.session_id,
            budget=debit.budget,
            window=window,
            left=size,
            used=used,
            timeline=timeline or "",
            tree_id=tree_id,
        )

    def _return(self, one: Slice) -> None:
        try:
            with self._returning(one.tree_id):
                self._give_back([one])
        except OverloadedError:
            self._slices.put_back([one])
            raise

    def _give_back(self, slices: Collection[Slice]) -> None:
        for one in slices:
            self._connection.execute("DELETE FROM slices WHERE id = ?", (one.id,))
            # INVARIANT: its debit is there exactly when its row is.
            if self._connection.changes() and one.left:
                self._connection.execute(GIVE_BACK, (one.left, *one.place, one.window))


def _left(own: Slice | None, window: int) -> int:
    return own.left if own is not None and own.window == window else 0


_TAKE: Final = f'{TAKE}, "window"'
# The braces are filled with question marks.
_USED: Final = """
SELECT budget, used, "window", (
  SELECT CAST(coalesce(sum(held), 0) AS bigint) FROM slices
  WHERE slices.session_id = known.session_id AND slices.budget = known.budget AND slices."window" = known."window"
    AND id NOT IN (''{})
) FROM budgets AS known WHERE session_id = ?
"""
