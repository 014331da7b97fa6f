"""The observers of what the PDP decides and does: the trace, the metrics and the record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from pdp.model import Caller, Decision, Session, TraceParent

# Returns the trace and span ids of a decision before it is made; both empty without a trace.
TraceIds = Callable[[TraceParent, Caller], tuple[str, str]]


class EventKind(StrEnum):
    """The kind of an event. The text is its name in the record; `record/README.md` describes each."""

    SESSION_REQUESTED = "session.requested"  # a session was asked for
    SESSION_DELEGATED = "session.delegated"  # an agent asked for a session below its own
    SESSION_DECIDED = "session.decided"  # the policies were asked about a step of a session, or the approval of a call
    SESSION_APPROVED = "session.approved"  # a session became active
    SESSION_HANDLE_RENEWED = "session.handle_renewed"  # it was requested again: the first handle is void
    SESSION_DENIED = "session.denied"  # an approver refused a session
    SESSION_NARROWED = "session.narrowed"  # an active session has less authority
    SESSION_RECAPTURED = "session.recaptured"  # another bundle's directory has other data for its user or agent
    SESSION_ENDED = "session.ended"  # a gateway ended a session
    SESSION_REVOKED = "session.revoked"  # another caller ended it, or another bundle did
    SESSION_EXPIRED = "session.expired"  # a session was read after its end
    BUNDLE_ACTIVATED = "bundle.activated"  # a bundle became active
    BUNDLE_REFUSED = "bundle.refused"  # a bundle could not be loaded
    CALL_REPORTED = "call.reported"  # a gateway said what came of an allowed call
    ACCESS_REQUESTED = "access.requested"  # a call waits for a person
    ACCESS_APPROVED = "access.approved"  # a person approved a call
    ACCESS_DENIED = "access.denied"  # a person refused a call
    ACCESS_REVOKED = "access.revoked"  # an approval of a call was taken back
    ACCESS_USED = "access.used"  # an approved call was allowed
    FREEZE_SET = "freeze.set"  # a tenant was frozen, or all of them
    FREEZE_LIFT_CONFIRMED = "freeze.lift_confirmed"  # the first of two confirmed that a freeze is to be lifted
    FREEZE_LIFTED = "freeze.lifted"  # a freeze stops nothing any more
    CALL_TOKEN_ISSUED = "calltoken.issued"  # noqa: S105 - no secret: a call token was signed for an allowed call
    CALL_TOKEN_REFUSED = "calltoken.refused"  # noqa: S105 - no secret: a call token that was checked does not count any longer
    CALL_TOKEN_KEY_WITHDRAWN = "calltoken.key_withdrawn"  # noqa: S105 - no secret: a key of call tokens was withdrawn
    CALL_TOKEN_USED = "calltoken.used"  # noqa: S105 - no secret: the broker uses a secret for an allowed call
    CALL_TOKEN_REPLAYED = "calltoken.replayed"  # noqa: S105 - no secret: a call token was presented again
    CONNECTION_USED = "connection.used"  # the broker uses a secret for what calls no tool
    CALL_TOKEN_ANSWERED = "calltoken.answered"  # noqa: S105 - no secret: what came of the use of a secret
    CALL_EXPLAINED = "call.explained"  # an author or auditor asked why
    REQUEST_REFUSED = "request.refused"  # a request got a status instead of an answer
    REQUESTS_REFUSED = "requests.refused"  # the sum of many similar refusals
    PERSON_FORGOTTEN = "person.forgotten"  # what was kept of somebody was removed
    STORE_RESTORED = "store.restored"  # a backup replaced the session store
    STORE_WENT_BACK = "store.went_back"  # the database may lack what was acknowledged
    STORE_MOVED = "store.moved"  # all that the session store holds is in one of another kind
    SERVER_STARTED = "server.started"  # a server listens
    SERVER_STOPPED = "server.stopped"  # a server has ended
    CONNECTION_ADDED = "connection.added"  # the broker got a connection
    CONNECTION_REMOVED = "connection.removed"  # the broker lost a connection, with its secret
    CONNECTION_REFRESHED = "connection.refreshed"  # the broker got an access token for a connection
    CONNECTION_BEGUN = "connection.begun"  # a person was sent to a provider, to agree there
    CONNECTION_REFUSED = "connection.refused"  # what came back from a provider was not taken
    CONNECTION_AUTHORIZED = "connection.authorized"  # a person connected an account
    CONNECTION_ENDED = "connection.ended"  # a person's connection was disconnected
    CONNECTION_LOST = "connection.lost"  # the tokens of a person's connection count no longer, or may be lost
    SECRET_STORED = "secret.stored"  # noqa: S105 - no secret: the broker got the first secret of a connection
    SECRET_ROTATED = "secret.rotated"  # noqa: S105 - no secret: the broker got another secret of a connection
    SECRET_REFUSED = "secret.refused"  # noqa: S105 - no secret: the broker could not open a secret where it found it
    CREDENTIAL_CHECKED_OUT = "credential.checked_out"  # a credential left the broker, for one call
    CREDENTIAL_REVOKED = "credential.revoked"  # what became of a credential that was to end
    CREDENTIAL_FORGOTTEN = "credential.forgotten"  # an operator had the broker give up a credential
    KEY_ROTATED = "key.rotated"  # a tenant's compartment got a new key in the broker
    KEY_RETIRED = "key.retired"  # a key of the broker that sealed nothing any more was destroyed
    KEY_ROOT_REPLACED = "key.root_replaced"  # all keys of the broker were wrapped by a new root key
    TENANT_SHREDDED = "tenant.shredded"  # the broker destroyed all keys and secrets of a tenant
    SIGNAL_RECEIVED = "signal.received"  # a signal came from outside
    SIGNAL_APPLIED = "signal.applied"  # it was carried out
    SIGNAL_HELD = "signal.held"  # it goes beyond the bounds of its transmitter, so a person is asked
    SIGNAL_PREVIEWED = "signal.previewed"  # it was only looked at what it would end
    SIGNAL_RELEASED = "signal.released"  # a person said that it is to be carried out
    SIGNAL_DISMISSED = "signal.dismissed"  # a person said that it is not


# What ends or narrows authority, or changes the rules for all: recorded while there is any room.
ENDING = frozenset(
    {
        EventKind.SESSION_ENDED,
        EventKind.SESSION_REVOKED,
        EventKind.SESSION_DENIED,
        EventKind.SESSION_NARROWED,
        EventKind.BUNDLE_ACTIVATED,
        EventKind.ACCESS_DENIED,
        EventKind.ACCESS_REVOKED,
        EventKind.FREEZE_SET,
        EventKind.CALL_TOKEN_KEY_WITHDRAWN,
        EventKind.CONNECTION_REMOVED,
        EventKind.CREDENTIAL_REVOKED,
        EventKind.CONNECTION_ENDED,
        EventKind.KEY_RETIRED,
        EventKind.TENANT_SHREDDED,
        EventKind.SIGNAL_APPLIED,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event that is not a decision.

    `at` is unix seconds.
    `session.decided`: the policies were asked about a step of a session, or the approval of a call in it. The facts
    `action`, `outcome` and `basis` and the lists `policies` and `errors` of ids hold the result.
    The fact `traceparent` of an event with a span is its position in a gateway's trace; that of any other caller is
    `tracelink`.
    `facts` holds ids, our own words, and a session's purpose and reason, `lists` ids and the patterns of tools: never
    arguments, handles, tokens. `attributes` are those that a gateway vouched for, and `terms` those of the session:
    JSON values by name, which only the record reads.
    """

    kind: EventKind
    at: float
    caller_id: str = ""
    session_id: str = ""
    user: str = ""
    agent: str = ""
    tenant: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    attributes: Mapping[str, object] = field(default_factory=dict, repr=False)
    terms: Mapping[str, object] = field(default_factory=dict, repr=False)

    @classmethod
    def of_session(cls, kind: EventKind, session: Session, *, at: float, **more: Any) -> Event:  # noqa: ANN401 - other fields
        """Return an event with the fields of a session; `more` holds all other fields."""
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
    """Notified of every decision and event, on the thread where it happens. Methods never raise.

    `decision` returns the decision to go on with: the record can turn an allow into a deny.
    """

    def decision(self, decision: Decision, parent: TraceParent) -> Decision:
        """Observe a decision."""
        ...

    def event(self, event: Event) -> None:
        """Observe an event."""
        ...


# A decision, and the place of its question in the caller's trace.
Observed = tuple[Decision, TraceParent]


class Recorder(Observer, Protocol):
    """An observer that takes several decisions together."""

    @property
    def takes_at_once(self) -> bool:
        """Say whether it can take decisions without waiting, as a rule."""
        ...

    def decisions(self, observed: Sequence[Observed]) -> Sequence[Decision] | None:
        """Observe decisions, and return those to go on with, in their order, without waiting longer than a moment.

        None when it would have to wait; then it has observed none of them.
        """
        ...


class CallOutcome(StrEnum):
    """What became of a call at a door. The text is its name in telemetry."""

    ALLOW = "allow"  # it was allowed; `error` says whether it failed
    DENY = "deny"  # the PDP or the door denied it
    WAITING = "waiting"  # a person must approve the call, or its session, first
    WITHHELD = "withheld"  # it was made, and its result was not handed on
    REFUSED = "refused"  # it was malformed, so nothing was asked
    UNDECIDED = "undecided"  # there is no decision, for example because the PDP is away
    CANCELLED = "cancelled"  # the client took it back before there was an answer


class Refusal(StrEnum):
    """Why a door refused a message or a request that is no call. The text is its name in telemetry."""

    MALFORMED = "malformed"  # it cannot be read
    MISMATCH = "mismatch"  # a header says something else than the message
    TOO_LARGE = "too_large"
    TOO_MANY = "too_many"  # too many requests are open
    TOO_SLOW = "too_slow"
    METHOD = "method"  # this method is not let pass
    PLACE = "place"  # another path, host or page
    SESSION = "session"  # there is no session, or it is over
    CREDENTIAL = "credential"  # the credential of the caller is missing or invalid
    UNDECIDED = "undecided"  # the PDP is away
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorCall:
    """One call of a tool at a door, from its arrival to its answer.

    `operation` is the method of MCP, such as `tools/call`, and `execute_tool` elsewhere. `began_at` is unix seconds;
    the call took `seconds`, of which the question took `question_seconds` and the tool `upstream_seconds`; None for
    what was not begun. `error` is empty, or one word for what went wrong. `request_id` is the client's id of a message,
    and `tool_call_id` the model's of the call. Ids of trace and span are empty without spans; `parent` is the span
    above, `linked` another one that the call is part of. No field holds an argument, a handle, a result or a
    credential.
    """

    operation: str
    outcome: CallOutcome
    began_at: float
    seconds: float
    question_seconds: float | None = None
    upstream_seconds: float | None = None
    error: str = ""
    server: str = ""
    tool: str = ""
    request_id: str = ""
    tool_call_id: str = ""
    transport: str = ""
    session_id: str = ""
    user: str = ""
    agent: str = ""
    decision_id: str = ""
    basis: str = ""
    bundle_version: str = ""
    access_request_id: str = ""
    trace_id: str = ""
    span_id: str = ""
    parent: TraceParent = field(default_factory=TraceParent)
    linked: TraceParent = field(default_factory=TraceParent)


class CallObserver(Protocol):
    """Notified of calls at a door, on the thread where it happens. Methods never wait and never raise."""

    def began(self, parent: TraceParent) -> TraceParent:
        """Observe that a call has arrived below a span; return the place below its own, or `parent` if it has none."""
        ...

    def over(self, call: DoorCall) -> None:
        """Observe what became of a call that has arrived."""
        ...


class DoorObserver(CallObserver, Protocol):
    """Notified of all that happens at a door. Methods never wait and never raise."""

    def refused(self, why: Refusal) -> None:
        """Observe a refused message."""
        ...

    def watch_sessions(self, count: Callable[[], int]) -> None:
        """Report how many sessions the door holds, as `count` returns it, on any thread."""
        ...

    def watch_signals(self, count: Callable[[], Mapping[str, int]]) -> None:
        """Report how many signals are open in each state, as `count` returns it, on any thread."""
        ...

    def watch_checkouts(self, count: Callable[[], Mapping[str, int]]) -> None:
        """Report how many credentials have left the broker, by state, as `count` returns it, on any thread."""
        ...
