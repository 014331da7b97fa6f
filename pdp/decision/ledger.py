"""The ledger: writes what an allowed call changes, before the answer; when that fails, the answer is a deny."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from pdp.decision.ruling import deny
from pdp.decision.snapshot import Snapshot
from pdp.errors import OverloadedError, UnavailableError
from pdp.limits import MOST_LABELS
from pdp.model import Basis, Call, Outcome, Ruling
from pdp.sessions.lifecycle import labelled
from pdp.sessions.store import SessionLedger

_NOTHING = frozenset[str]()


class Settled(NamedTuple):
    """The ruling that counts, the snapshot with what the call changed, and the labels that it added, sorted."""

    ruling: Ruling
    snapshot: Snapshot
    labels_added: tuple[str, ...] = ()


class Ledger:
    """Settles rulings: a call that changes nothing writes nothing. Safe for threads."""

    def __init__(self, sessions: SessionLedger) -> None:
        self._sessions = sessions

    def settle(self, snapshot: Snapshot, call: Call, ruling: Ruling, decision_id: str) -> Settled | None:
        """Write what the call changes when it is allowed; None when that is nothing.

        Any failure turns the allow into a deny. Raise `ConflictError` when a session has changed since the snapshot:
        then nothing is written, and the call must be decided again.
        """
        # A shortcut, since this runs for each call and most bundles add none.
        if not snapshot.bundle.added_labels or ruling.outcome is not Outcome.ALLOW:
            return None
        fresh = _fresh_labels(snapshot, call)
        if not fresh:
            return None
        if any(len(fresh.union(session.labels)) > MOST_LABELS for session in snapshot.chain):
            return unsettled(snapshot, f"a session would have more than {MOST_LABELS} labels")
        try:
            chain = self._sessions.settle(snapshot.chain, labelled(fresh, by=decision_id), wall_at=snapshot.now.wall_at)
        except (UnavailableError, OverloadedError) as error:
            return unsettled(snapshot, str(error))
        return Settled(ruling, replace(snapshot, chain=chain), tuple(sorted(fresh)))


def unsettled(snapshot: Snapshot, detail: str) -> Settled:
    """Return the deny of a call whose changes could not be written."""
    return Settled(deny(Basis.LEDGER_UNAVAILABLE, detail), snapshot)


def _fresh_labels(snapshot: Snapshot, call: Call) -> frozenset[str]:
    """Return the labels that the call adds to its session or to one above it."""
    added = snapshot.bundle.added_labels.get(call.action, _NOTHING)
    return frozenset(label for session in snapshot.chain for label in added.difference(session.labels))
