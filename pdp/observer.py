"""Who is told what the PDP decides and does: the trace, the metrics and the record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pdp.model import Caller, Decision, Session, TraceParent

# Gives a decision that is about to be made its place in the trace: the ids of trace and span, empty without a trace.
Place = Callable[[TraceParent, Caller], tuple[str, str]]


# The two kinds of events that a trace shows as spans.
REFUSED = "request.refused"
# Many refusals of one kind, as one.
REFUSED_SUM = "requests.refused"
# What ends or narrows authority, and what changes the rules for all: recorded as long as there is any room.
ENDING = frozenset({"session.ended", "session.revoked", "session.denied", "session.narrowed", "bundle.activated"})
SESSION_DECIDED = "session.decided"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened and is not a decision.

    `kind` is one of `session.requested`, `.delegated`, `.approved`, `.denied`, `.ended`, `.expired`, `.revoked`,
    `.narrowed`, `.recaptured`, `.decided`, `bundle.activated`, `bundle.refused`, `call.explained`, `request.refused`,
    `requests.refused`, `store.restored`, `server.started`, `server.stopped`. `at` is unix seconds.
    `session.decided`: the policies were asked about a request, an approval or a delegation; what they said, and which
    of them, stands in the facts `action`, `outcome` and `basis` and the lists `policies` and `errors` of ids.
    The fact `traceparent` of what has a span is where it hangs in a gateway's trace; what anybody else states is
    `tracelink`.
    `facts` holds ids, our own words, and a session's purpose and reason, `lists` ids and the patterns of tools: never
    arguments, handles, tokens. `attributes` are those that a gateway vouched for: JSON values by name, which only the
    record looks at.
    """

    kind: str
    at: float
    caller_id: str = ""
    session_id: str = ""
    user: str = ""
    agent: str = ""
    tenant: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    attributes: Mapping[str, object] = field(default_factory=dict, repr=False)

    @classmethod
    def of_session(cls, kind: str, session: Session, *, at: float, **more: Any) -> Event:  # noqa: ANN401 - other fields
        """Return an event that names a session and whose it is; `more` is all else that it says."""
        return cls(
            kind=kind,
            at=at,
            session_id=session.id,
            user=session.user,
            agent=session.agent,
            tenant=session.tenant,
            **more,
        )


class Observer(Protocol):
    """Told of every decision and event, on the thread where it happens. Methods never raise.

    `decision` returns the decision to go on with: the record may turn an allow into a deny.
    """

    def decision(self, decision: Decision, parent: TraceParent) -> Decision:
        """Take note of a decision."""
        ...

    def event(self, event: Event) -> None:
        """Take note of an event."""
        ...


class Observers:
    """Tell several observers in order, handing each one's decision to the next."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def decision(self, decision: Decision, parent: TraceParent) -> Decision:
        """Pass a decision through all observers."""
        for observer in self._observers:
            decision = observer.decision(decision, parent)
        return decision

    def event(self, event: Event) -> None:
        """Tell all observers of an event."""
        for observer in self._observers:
            observer.event(event)
