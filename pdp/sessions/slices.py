"""The slices of budgets that a process holds: what it has taken of a budget at once, and spends without asking.

All of a slice is used up where the budget is stored before any of it is spent here. So whatever becomes of it, no
budget is overshot: what is not spent and not given back is lost for the session.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from threading import Lock
from typing import Final, NamedTuple

from pdp.sessions.memoryreceipts import MemoryReceipts
from pdp.sessions.taken import Taken
from pdp.sessions.values import Charge, Charged, Debit

# A retry of an older call than the last of these is charged once more.
MOST_RECEIPTS: Final = 65_536

Place = tuple[str, str]


class Slice(NamedTuple):
    """What is `left` of a slice of a budget in a window, and `used` of the whole budget when it was taken, with it.

    `id` is empty when nothing was left from the beginning. It was taken under a lease of the database on `timeline`,
    for a tree of sessions whose root has the id `tree_id`. `spent_at` is when it was last spent from, on the monotonic
    clock.
    """

    id: str
    session_id: str
    budget: str
    window: int
    left: int
    used: int
    timeline: str
    tree_id: str
    spent_at: float = 0.0

    @property
    def place(self) -> Place:
        """Return whose budget it is of, and which one."""
        return self.session_id, self.budget


class Slices:
    """The slices and the receipts of calls that were charged to them. Safe for threads.

    `timeline` returns that of the present lease, None without one.
    """

    def __init__(self, timeline: Callable[[], str | None], *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._timeline = timeline
        self._monotonic = monotonic
        self._lock = Lock()
        self._held: dict[Place, Slice] = {}
        self._receipts = MemoryReceipts(MOST_RECEIPTS)
        self._taken = Taken()

    def spend(self, charge: Charge) -> Charged | None:
        """Take all debits of a charge from what is held, or nothing; None when that is not enough for all of them."""
        with self._lock:
            charged_at = self._receipts.join(charge.retry_digest, charge.now)
            if charged_at is not None:
                return Charged(charged_at=charged_at)
            # INVARIANT: under a lease, no other server has taken the place of the one that has the debit of the slice,
            # and given the same units again.
            timeline = self._timeline()
            held = [self._held.get(_place(debit)) for debit in charge.debits]
            slices = [one for one in held if one is not None and one.timeline == timeline]
            if len(slices) < len(held) or not all(map(_covers, slices, charge.debits)):
                return None
            return self._spent(charge, slices, timeline or "")

    def take_out(self, debits: Collection[Debit]) -> list[Slice]:
        """Hold the slices of the budgets of some debits no longer, and return them."""
        with self._lock:
            found = (self._held.pop(_place(debit), None) for debit in debits)
            return [one for one in found if one is not None]

    def take_out_idle(self, seconds: float) -> Slice | None:
        """Hold one no longer that was not spent from for so many seconds, and return it; None when there is none."""
        with self._lock:
            oldest = next(iter(self._held.values()), None)
            if oldest is None or oldest.spent_at > self._monotonic() - seconds:
                return None
            return self._held.pop(oldest.place)

    def put_back(self, slices: Iterable[Slice]) -> None:
        """Hold slices again as they were taken out, but for those in whose place there is another one."""
        with self._lock:
            for one in slices:
                self._held.setdefault(one.place, one)

    def put(self, charge: Charge, slices: Sequence[Slice], timeline: str) -> Charged:
        """Hold new slices, one for each debit of a charge, which is taken from them first, on a timeline."""
        with self._lock:
            return self._spent(charge, slices, timeline)

    def leave(self, charge: Charge, charged_at: float) -> bool:
        """Let one try less count on a charge; say whether it was the last one, and the charge can be taken back.

        One that was made on a timeline before cannot: what has taken the place of that server may never have had it.
        """
        with self._lock:
            was_last = self._receipts.leave(charge.retry_digest, charged_at)
            return was_last and not self._taken.may_lack(charged_at, self._taken.timeline)

    def give_back(self, debits: Iterable[Debit]) -> tuple[list[Debit], str]:
        """Give debits back to the slices that they were taken from.

        Return those whose slice is not held any more, and the timeline that they were taken on.
        """
        gone: list[Debit] = []
        with self._lock:
            for debit in debits:
                held = self._held.get(_place(debit))
                # INVARIANT: windows only rise, so the debit was not taken from a slice of an earlier one.
                if held is not None and held.window == debit.window and held.timeline == self._taken.timeline:
                    self._held[held.place] = held._replace(left=held.left + debit.amount)
                else:
                    gone.append(debit)
            return gone, self._taken.timeline

    def of(self, session_id: str) -> Mapping[str, Slice]:
        """Return the slices of the budgets of a session."""
        with self._lock:
            return {one.budget: one for one in self._held.values() if one.session_id == session_id}

    def forget_receipts(self, *, charged_before: float) -> None:
        """Have retries of old charges be charges of their own."""
        with self._lock:
            self._receipts.forget(charged_before=charged_before)

    def _spent(self, charge: Charge, slices: Sequence[Slice], timeline: str) -> Charged:
        self._taken.note(charge.at, timeline)
        now = self._monotonic()
        left = [
            one._replace(left=one.left - debit.amount, spent_at=now)
            for one, debit in zip(slices, charge.debits, strict=True)
        ]
        for one in left:
            # To the end of the table: what is at its front was spent from longest ago.
            self._held.pop(one.place, None)
            if one.id:
                self._held[one.place] = one
        self._receipts.sign(charge.retry_digest, charge.now)
        return Charged(used=tuple(one.used - one.left for one in left), charged_at=charge.at)


def _place(debit: Debit) -> Place:
    return debit.session_id, debit.budget


def _covers(held: Slice, debit: Debit) -> bool:
    # As where the budget is stored, what is late counts in the present window.
    return held.window >= debit.window and held.left >= debit.amount
