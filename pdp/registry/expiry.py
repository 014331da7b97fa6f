"""Tell once that a session has expired. No clock does it: expiry is computed by whoever looks at a session."""

from __future__ import annotations

from threading import Lock

from pdp.foundation.kept import Few
from pdp.model import Basis, Decision, TraceParent
from pdp.observer import Event, EventKind, Observer

# Sessions that are looked at after so many others have expired are told of again.
_MOST_NOTICED = 65_536


class ExpiryNotices:
    """The observer before all others, which adds `session.expired` when this process first meets an expired session.

    It makes the event from a decision that rests on the expiry, and lets one by anybody else through the first time.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._lock = Lock()
        self._noticed: Few[str, None] = Few(_MOST_NOTICED)

    def decision(self, decision: Decision, parent: TraceParent) -> Decision:
        """Pass a decision on, and then tell of the expiry that it rests on."""
        decision = self._observer.decision(decision, parent)
        ruling = decision.ruling
        if ruling.basis is Basis.SESSION_EXPIRED:
            self._notice(decision, decision.session_id, decision.agent)
        elif ruling.ancestor_basis is Basis.SESSION_EXPIRED:
            # Whose agent the session above has is not known from here.
            self._notice(decision, ruling.ancestor_id, "")
        return decision

    def event(self, event: Event) -> None:
        """Pass an event on, that a session has expired only once."""
        if event.kind is not EventKind.SESSION_EXPIRED or self._first(event.session_id):
            self._observer.event(event)

    def _notice(self, decision: Decision, session_id: str, agent: str) -> None:
        self.event(
            Event(
                kind=EventKind.SESSION_EXPIRED,
                at=decision.decided_at,
                caller_id=decision.caller.id,
                session_id=session_id,
                user=decision.user,
                agent=agent,
                tenant=decision.tenant,
            )
        )

    def _first(self, session_id: str) -> bool:
        with self._lock:
            if session_id in self._noticed:
                return False
            self._noticed.keep(session_id, None)
            return True
