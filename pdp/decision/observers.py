"""Several observers as one, in order."""

from __future__ import annotations

from pdp.model import Decision, TraceParent
from pdp.observer import Event, Observer


class Observers:
    """Notifies several observers in order, handing each one's decision to the next."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def decision(self, decision: Decision, parent: TraceParent) -> Decision:
        """Pass a decision through all observers."""
        for observer in self._observers:
            decision = observer.decision(decision, parent)
        return decision

    def event(self, event: Event) -> None:
        """Pass an event to all observers."""
        for observer in self._observers:
            observer.event(event)
