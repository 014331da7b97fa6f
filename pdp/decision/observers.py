"""Several observers as one, in order."""

from __future__ import annotations

from collections.abc import Sequence

from pdp.model import Decision, TraceParent
from pdp.observer import Event, Observed, Observer, Recorder


class Observers:
    """Notifies several observers in order, handing each one's decision to the next.

    `record` comes first, and it alone can make a decision wait.
    """

    def __init__(self, *observers: Observer, record: Recorder | None = None) -> None:
        self._record, self._others = record, observers
        self._observers = observers if record is None else (record, *observers)

    @property
    def takes_at_once(self) -> bool:
        """Say whether the record does."""
        return self._record is None or self._record.takes_at_once

    def decision(self, decision: Decision, parent: TraceParent) -> Decision:
        """Pass a decision through all observers."""
        for observer in self._observers:
            decision = observer.decision(decision, parent)
        return decision

    def decisions(self, observed: Sequence[Observed]) -> Sequence[Decision] | None:
        """Pass decisions through all observers; None when the record would make them wait."""
        decisions = [one for one, _ in observed] if self._record is None else self._record.decisions(observed)
        if decisions is None:
            return None
        for observer in self._others:
            decisions = [observer.decision(one, parent) for one, (_, parent) in zip(decisions, observed, strict=True)]
        return decisions

    def event(self, event: Event) -> None:
        """Pass an event to all observers."""
        for observer in self._observers:
            observer.event(event)
