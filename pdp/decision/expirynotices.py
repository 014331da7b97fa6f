"""Report once that a session has expired. No timer does this: expiry is computed when a session is read."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

from pdp.foundation.quickcaches import SmallCache
from pdp.model import Basis, Decision, TraceParent
from pdp.observer import Event, EventKind, Observed, Recorder

# The expiry of a session is reported again when it is seen after so many other expired sessions.
_MOST_NOTICED = 65_536


class ExpiryNotices:
    """The outermost observer: adds `session.expired` when this process first sees an expired session.

    It makes the event from a decision based on the expiry. When another part sends the event, only the first passes.
    """

    def __init__(self, observer: Recorder) -> None:
        self._observer = observer
        self._lock = Lock()
        self._noticed: SmallCache[str, None] = SmallCache(_MOST_NOTICED)

    @property
    def takes_at_once(self) -> bool:
        """Say whether the observer behind it does."""
        return self._observer.takes_at_once

    def decision(self, decision: Decision, parent: TraceParent) -> Decision:
        """Pass a decision on, then report the expiry that it is based on."""
        decision = self._observer.decision(decision, parent)
        self._look_at(decision)
        return decision

    def decisions(self, observed: Sequence[Observed]) -> Sequence[Decision] | None:
        """Pass decisions on, then report the expiries that they are based on."""
        decisions = self._observer.decisions(observed)
        for decision in decisions or ():
            self._look_at(decision)
        return decisions

    def _look_at(self, decision: Decision) -> None:
        ruling = decision.ruling
        if ruling.basis is Basis.SESSION_EXPIRED:
            self._notice(decision, decision.matter.session_id, decision.matter.agent)
        elif ruling.ancestor_basis is Basis.SESSION_EXPIRED:
            # The decision does not name the ancestor's agent.
            self._notice(decision, ruling.ancestor_id, "")

    def event(self, event: Event) -> None:
        """Pass an event on; the expiry of a session only once."""
        if event.kind is not EventKind.SESSION_EXPIRED or self._first(event.session_id):
            self._observer.event(event)

    def _notice(self, decision: Decision, session_id: str, agent: str) -> None:
        self.event(
            Event(
                kind=EventKind.SESSION_EXPIRED,
                at=decision.decided_at,
                caller_id=decision.caller.id,
                session_id=session_id,
                user=decision.matter.user,
                agent=agent,
                tenant=decision.matter.tenant,
            )
        )

    def _first(self, session_id: str) -> bool:
        with self._lock:
            if session_id in self._noticed:
                return False
            self._noticed.keep(session_id, None)
            return True
