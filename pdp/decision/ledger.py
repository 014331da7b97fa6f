"""The ledger: writes what an allowed call changes, before the answer; when that fails, the answer is a deny."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import NamedTuple, Protocol

from pdp.decision.budgets import NONE_SEEN, Owed, charge_of, exhausted, owed_by, owes, uncountable
from pdp.decision.counts import SeenCounts, seen_counts
from pdp.decision.ruling import deny, lifted
from pdp.decision.snapshot import Snapshot
from pdp.decision.stepup import People, Waiting
from pdp.errors import ConflictError, OverloadedError, UnavailableError
from pdp.limits import DEFAULT_LIMITS, MOST_LABELS, Limits
from pdp.model import Basis, Call, Caller, CallRequest, Debited, Ruling
from pdp.policy.budgets import BudgetMemory
from pdp.policy.counting import CountedNames
from pdp.policy.plan import Plan
from pdp.sessions.access import AccessRequest, Use
from pdp.sessions.historycontract import SessionHistory
from pdp.sessions.store import SessionLedger, SessionReader
from pdp.sessions.succession import require_unchanged
from pdp.sessions.values import Charge, Charged

_NOTHING = frozenset[str]()


class LedgerSessions(SessionReader, SessionLedger, Protocol):
    """The sessions as the ledger needs them."""


class Settled(NamedTuple):
    """The ruling that counts, and the snapshot with what the call changed.

    `labels_added` holds the labels that it added, sorted, and `debits` what it took of the budgets of its own session.
    `access` is the request to a person that an approval-required call waits for, or whose approval was used.
    `counted_as` holds the names under which the call is counted. `charge`, with its time, and `use` can be taken back.
    """

    ruling: Ruling
    snapshot: Snapshot
    labels_added: tuple[str, ...] = ()
    debits: Debited = ()
    access: AccessRequest | None = None
    counted_as: tuple[str, ...] = ()
    charge: tuple[Charge, float] | None = None
    use: Use | None = None


class Ledger:
    """Settles rulings: a call that changes nothing writes nothing. Safe for threads."""

    def __init__(self, sessions: LedgerSessions, history: SessionHistory, limits: Limits = DEFAULT_LIMITS) -> None:
        self._sessions = sessions
        self._history = history
        self._people = People(sessions, history, limits)
        self._limits = limits
        self._budgets = BudgetMemory()

    def counts(self, snapshot: Snapshot, request: CallRequest, caller: Caller, names: CountedNames) -> SeenCounts:
        """Return the counts that policies see of a call, for `settle`. Raises what `SessionHistory.counts` raises."""
        return seen_counts(snapshot, request, caller, names, self._history)

    def settles(self, snapshot: Snapshot, plan: Plan) -> bool:
        """Say whether an allowed call can change anything: if not, there is nothing to settle."""
        return plan.settles or (snapshot.bundle.has_budgets and owes(snapshot, plan.tool, self._budgets.of))

    def settle(
        self,
        snapshot: Snapshot,
        request: CallRequest,
        caller: Caller,
        ruling: Ruling,
        decision_id: str,
        seen: SeenCounts | None = None,
    ) -> Settled | None:
        """Write what the call changes when it is allowed; None when that is nothing.

        `seen` holds the counts that the policies saw. A call that a person can allow is allowed by using an approval;
        without one, a person is asked. Any failure turns the allow into a deny. Raise `ConflictError` when a session
        has changed since the snapshot, or a count since it was read: then nothing is changed, and the call must be
        decided again.
        """
        if ruling.basis is Basis.APPROVAL_REQUIRED:
            return self._step_up(snapshot, request, caller, ruling, decision_id, seen)
        if not ruling.allowed:
            return None
        return self._allow(snapshot, request, caller, ruling, decision_id, seen, None)

    def _step_up(
        self,
        snapshot: Snapshot,
        request: CallRequest,
        caller: Caller,
        ruling: Ruling,
        decision_id: str,
        seen: SeenCounts | None,
    ) -> Settled:
        try:
            waiting = self._people.waiting(snapshot, request, caller, ruling)
            if not self._people.have_approved(waiting):
                return self._ask(waiting, decision_id)
            allow = self._allow(snapshot, request, caller, lifted(ruling), decision_id, seen, waiting)
        except (UnavailableError, OverloadedError) as error:
            return unsettled(snapshot, str(error))
        if allow is None:
            raise AssertionError("the use of an approval is settled")
        return allow

    def _ask(self, waiting: Waiting, decision_id: str) -> Settled:
        offer = self._people.ask(waiting, decision_id)
        return Settled(offer.ruling, waiting.snapshot, access=offer.request)

    def _allow(
        self,
        snapshot: Snapshot,
        request: CallRequest,
        caller: Caller,
        ruling: Ruling,
        decision_id: str,
        seen: SeenCounts | None,
        waiting: Waiting | None,
    ) -> Settled | None:
        """Charge, use the approval of a call that waits for one, then add labels; None when there is nothing of it."""
        owed = owed_by(snapshot, request, self._limits, self._budgets.of)
        if not owed and seen is None and request.call.action not in snapshot.bundle.counted_as:
            return self._use(waiting, snapshot, request.call, ruling, decision_id)
        if (refused := uncountable(owed, snapshot)) is not None:
            return Settled(refused, snapshot)
        charge = charge_of(owed, snapshot, request, caller, seen.rows if seen is not None else NONE_SEEN)
        return self._charge(owed, charge, snapshot, request, ruling, decision_id, waiting)

    def _charge(
        self,
        owed: tuple[Owed, ...],
        charge: Charge,
        snapshot: Snapshot,
        request: CallRequest,
        ruling: Ruling,
        decision_id: str,
        waiting: Waiting | None,
    ) -> Settled:
        try:
            charged = self._history.charge(charge)
        except (UnavailableError, OverloadedError) as error:
            return unsettled(snapshot, str(error))
        if charged.exhausted is not None:
            return Settled(exhausted(owed, charged.exhausted, snapshot), snapshot)
        # INVARIANT: at a moment after the charge, the sessions are as the policies saw them.
        settled = self._kept_if_allowed(
            lambda: (
                self._use(waiting, snapshot, request.call, ruling, decision_id) or self._unchanged(snapshot, ruling)
            ),
            partial(self._history.take_back, charge, charged.charged_at),
            snapshot,
        )
        if not settled.ruling.allowed:
            return settled
        names = snapshot.bundle.counted_as.get(request.call.action, ())
        return settled._replace(debits=_own(owed, charged), counted_as=names, charge=(charge, charged.charged_at))

    def undo(self, settled: Settled) -> None:
        """Take back what a call took, used and was counted as, which is denied after all. Its labels stay."""
        with suppress(UnavailableError, OverloadedError):
            if settled.use is not None:
                self._people.give_back(settled.use)
        with suppress(UnavailableError, OverloadedError):
            if settled.charge is not None:
                self._history.take_back(*settled.charge)

    def _kept_if_allowed(self, rest: Callable[[], Settled], undo: Callable[[], None], snapshot: Snapshot) -> Settled:
        """Settle the rest of a call; unless it is allowed, undo what was written for it.

        Raise `ConflictError` as `settle` does. When it cannot be undone, the call is denied.
        """
        try:
            settled = rest()
        except ConflictError:
            if (denied := _undone(undo, snapshot)) is not None:
                return denied
            raise
        return settled if settled.ruling.allowed else _undone(undo, snapshot) or settled

    def _use(
        self, waiting: Waiting | None, snapshot: Snapshot, call: Call, ruling: Ruling, decision_id: str
    ) -> Settled | None:
        """Use the approval of a call that waits for one, and add labels; None for a call that needs neither."""
        if waiting is None:
            return self._label(snapshot, call, ruling, decision_id)
        try:
            use = self._people.use(waiting, decision_id)
            if use is None:
                # Another call has used it meanwhile, or it was taken back.
                return self._ask(waiting, decision_id)
        except (UnavailableError, OverloadedError) as error:
            return unsettled(snapshot, str(error))
        # INVARIANT: at a moment after the use, the sessions are as the policies saw them.
        settled = self._kept_if_allowed(
            lambda: self._label(snapshot, call, ruling, use.decision_id) or self._unchanged(snapshot, ruling),
            partial(self._people.give_back, use),
            snapshot,
        )
        return settled._replace(access=use.request, use=use) if settled.ruling.allowed else settled

    def _label(self, snapshot: Snapshot, call: Call, ruling: Ruling, decision_id: str) -> Settled | None:
        """Add the labels of the call; None when it adds none. Raise `ConflictError` as `settle` does."""
        fresh = _fresh_labels(snapshot, call)
        if not fresh:
            return self._known(snapshot, call)
        if any(len(fresh.union(session.labels)) > MOST_LABELS for session in snapshot.chain):
            return unsettled(snapshot, f"a session would have more than {MOST_LABELS} labels")
        try:
            chain = self._sessions.settle(snapshot.chain, fresh, by=decision_id, wall_at=snapshot.now.wall_at)
        except (UnavailableError, OverloadedError) as error:
            return unsettled(snapshot, str(error))
        return Settled(ruling, replace(snapshot, chain=chain), tuple(sorted(fresh)))

    def _known(self, snapshot: Snapshot, call: Call) -> Settled | None:
        """Wait until all know the labels of a call that are there already; None when they do."""
        # INVARIANT: what a label forbids after this call is forbidden everywhere. Whoever has added it may still wait.
        if snapshot.bundle.added_labels.get(call.action):
            try:
                self._sessions.outwait()
            except (UnavailableError, OverloadedError) as error:
                return unsettled(snapshot, str(error))
        return None

    def _unchanged(self, snapshot: Snapshot, ruling: Ruling) -> Settled:
        """Return a ruling as it is. Raise `ConflictError` when a session has changed since the snapshot."""
        try:
            present = self._sessions.view(snapshot.chain[0].handle_digest)
        except (UnavailableError, OverloadedError) as error:
            return unsettled(snapshot, str(error))
        require_unchanged(snapshot.chain, present.chain, present.freeze)
        return Settled(ruling, snapshot)


def unsettled(snapshot: Snapshot, detail: str) -> Settled:
    """Return the deny of a call whose changes could not be written."""
    return Settled(deny(Basis.LEDGER_UNAVAILABLE, detail), snapshot)


def _undone(undo: Callable[[], None], snapshot: Snapshot) -> Settled | None:
    """Undo what was written for a call; return the deny when that fails."""
    try:
        undo()
    except (UnavailableError, OverloadedError) as error:
        # What was taken or used stays so: that costs a call or an approval, and grants nothing.
        return unsettled(snapshot, str(error))
    return None


def _own(owed: tuple[Owed, ...], charged: Charged) -> Debited:
    """Return what is used up of the budgets of the call's own session; nothing for a retry."""
    if not charged.used:
        return ()
    return tuple(
        (one.budget.name, one.budget.value(used))
        for one, used in zip(owed, charged.used, strict=True)
        if one.place == 0
    )


def _fresh_labels(snapshot: Snapshot, call: Call) -> frozenset[str]:
    """Return the labels that the call adds to its session or to one above it."""
    added = snapshot.bundle.added_labels.get(call.action, _NOTHING)
    return frozenset(label for session in snapshot.chain for label in added.difference(session.labels))
