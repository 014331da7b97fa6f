"""The words of the PDP as frozen values: callers, calls, sessions, decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import Any, NamedTuple, Protocol

from pdp.clock import Deadline
from pdp.quickvalues import quickly_made


class _Word(Enum):
    """An enumeration whose members are looked up many times for each call."""

    # Hash members by identity: each is one object, and `Enum` would hash its name in an extra call.
    __hash__ = object.__hash__


class Outcome(_Word):
    """Whether a call may go ahead."""

    ALLOW = "allow"
    DENY = "deny"


class Basis(_Word):
    """The basis of an outcome. The names are the API's, in lower case."""

    PERMIT = "permit"
    FORBID = "forbid"
    DEFAULT_DENY = "default_deny"
    POLICY_ERROR = "policy_error"
    INVALID_ARGUMENTS = "invalid_arguments"
    UNKNOWN_TOOL = "unknown_tool"
    TOOL_CHANGED = "tool_changed"
    OUT_OF_SCOPE = "out_of_scope"
    SESSION_NOT_FOUND = "session_not_found"
    SESSION_NOT_APPROVED = "session_not_approved"
    SESSION_EXPIRED = "session_expired"
    SESSION_REVOKED = "session_revoked"
    SESSION_ENDED = "session_ended"
    ANCESTOR_DENIED = "ancestor_denied"
    APPROVAL_REQUIRED = "approval_required"
    BUDGET_EXHAUSTED = "budget_exhausted"
    RECORD_UNAVAILABLE = "record_unavailable"
    LABEL_NOT_APPROVED = "label_not_approved"
    LEDGER_UNAVAILABLE = "ledger_unavailable"
    RESULT_UNSEEN = "result_unseen"
    FROZEN = "frozen"


class CallStatus(_Word):
    """What came of an allowed call, as its gateway reports it."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"


class ValueClass(_Word):
    """What is known of a value that results in a tree of sessions held; a better class has a lower `rank`.

    An issued one was in a field that issues ids, a clean one in a result that strangers do not write, a tainted one
    only in results of others. The names are words of `context.targets`.
    """

    ISSUED = "issued"
    CLEAN = "clean"
    TAINTED = "tainted"

    @property
    def rank(self) -> int:
        """Return the place in the order of the classes, from the best."""
        return _RANKS[self]


class CacheResult(_Word):
    """What the decision cache did for one decision."""

    NONE = "none"
    HIT = "hit"
    MISS = "miss"
    BYPASS = "bypass"


class SessionState(_Word):
    """The state of a session. EXPIRED is never stored: it is computed when read."""

    REQUESTED = "requested"
    ACTIVE = "active"
    DENIED = "denied"
    ENDED = "ended"
    EXPIRED = "expired"
    REVOKED = "revoked"


class Role(_Word):
    """A role of a caller."""

    PEP = "pep"
    APPROVER = "approver"
    AUTHOR = "author"
    AUDITOR = "auditor"
    ADMIN = "admin"
    BROKER = "broker"
    REVOKER = "revoker"
    OPERATOR = "operator"


_RANKS = {one: rank for rank, one in enumerate(ValueClass)}

# A caller that asks for tool calls, makes them, runs the server, or ends authority by itself, does not decide about
# sessions: no policy lifts this.
NEVER_APPROVERS = (Role.PEP, Role.ADMIN, Role.BROKER, Role.REVOKER)
# Of a session without terms.
NO_TERMS = "{}"
# Later than any call.
AT_EACH_CALL = inf

# What a call took of budgets: names, and what is used up of each afterwards; sums are texts.
Debited = tuple[tuple[str, int | str], ...]


class Asked(Protocol):
    """What a gateway asks about: a session, or a call that waits for a person."""

    @property
    def tenant(self) -> str:
        """Return the tenant of the session."""
        ...

    @property
    def user(self) -> str:
        """Return the user of the session."""
        ...

    @property
    def agent(self) -> str:
        """Return the agent of the session."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What bounds a gateway: the ids of tenants, users and agents for whom it may ask, and what it sees of calls.

    `users` and `agents` are None for all; a service, `broker` or `revoker`, has only `tenants`. One that `sees_results`
    knows what allowed calls return, and reports it.
    """

    tenants: frozenset[str]
    users: frozenset[str] | None = None
    agents: frozenset[str] | None = None
    sees_results: bool = True

    def include(self, asked: Asked) -> bool:
        """Say whether the gateway may ask about this."""
        return (
            asked.tenant in self.tenants
            and (self.users is None or asked.user in self.users)
            and (self.agents is None or asked.agent in self.agents)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A caller of the API: an id, its kind of identity (`token`, …), its roles and its tenant.

    `authenticated_at` (unix seconds) is when a person last proved their identity: 0.0 when that is unknown, and
    `AT_EACH_CALL` for a person who is assumed to be present. `bounds` are those of a gateway or service; None for one
    that may ask for its whole tenant and sees results. `user_groups` are those that a person's token puts them in, as
    the directory would name them; None where no credential says that.
    """

    id: str
    kind: str
    roles: frozenset[Role]
    tenant: str = "default"
    authenticated_at: float = 0.0
    bounds: Bounds | None = None
    user_groups: tuple[str, ...] | None = None

    def may_ask_about(self, asked: Asked) -> bool:
        """Say whether this is within the caller's tenant, or within its bounds if it has some."""
        return asked.tenant == self.tenant if self.bounds is None else self.bounds.include(asked)

    @property
    def tenants(self) -> frozenset[str]:
        """Return the tenants for which this caller may act: its own, or those of its bounds."""
        return frozenset({self.tenant}) if self.bounds is None else self.bounds.tenants

    @property
    def sees_results(self) -> bool:
        """Say whether this gateway sees what allowed calls return."""
        return self.bounds is None or self.bounds.sees_results


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Everything in one tool call that decides about it, as the PEP sent it.

    `arguments_json` and `facts_json` are UTF-8 JSON objects, byte for byte; empty means `{}`.
    `definition_digest` is `sha256:…` or empty when the PEP does not state it.
    """

    session_handle: str = field(repr=False)
    server: str
    tool: str
    arguments_json: bytes = field(default=b"", repr=False)
    definition_digest: str = ""
    facts_json: bytes = field(default=b"", repr=False)

    @property
    def action(self) -> str:
        """Return the action's id, `server/tool`."""
        return f"{self.server}/{self.tool}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The latest change of a store: its revision, and a random tag, which no other history of it has.

    `tag` is empty where a store has one history.
    """

    revision: int
    tag: str


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class CallRequest:
    """A call, and fields that do not affect the answer: equal calls have equal answers.

    `parent` is its own position in the caller's trace, or None for that of the whole request. `least` is a change that
    the answer must know, with all before it; None for those that were acknowledged.
    """

    call: Call
    request_id: str = ""
    tool_call_id: str = ""
    parent: TraceParent | None = None
    least: Head | None = None


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True)
class Scope:
    """The tools of a session, frozen at approval: action id to definition digest.

    `id` is the digest of the content; equal scopes share one object.
    """

    id: str
    tools: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One agent that works for one user on one approved task, with an end.

    `deadline` is the end of the present state: of the request while REQUESTED, of the session afterwards.
    `duration` is seconds. `..._at` are unix seconds, 0.0 when it has not happened.
    `entities_json` holds the directory's data for user and agent when it was captured: Cedar's JSON array.
    `user_attributes_json` holds attributes of the user that the requester vouched for: a JSON object.
    `user_groups` are the groups of the directory in which the user's own token put them, sorted; they never change
    after the approval.
    `terms_json` holds the session's terms as canonical JSON, those taken over from its parent included. They
    never change after its approval. `sealed_key` is the key of the values in its tree, sealed under its handle; empty
    at the root.
    `label_origins` maps each label that an allowed call added to the id of the decision.
    `widening_labels` holds the labels that widened under the bundle of the approval, and that the session had then or
    its tools could add: no other label can ever grant anything.
    `state` is as stored; `lifecycle.state_of` returns the present one.
    """

    id: str
    handle_digest: bytes = field(repr=False)
    state: SessionState
    user: str
    agent: str
    purpose: str
    tool_patterns: tuple[str, ...]
    duration: float
    requested_at: float
    deadline: Deadline
    tenant: str
    environment: str
    opened_by: str
    epoch: int = 1
    scope: Scope | None = None
    parent_id: str = ""
    ancestor_ids: tuple[str, ...] = ()
    may_delegate: bool = False
    grants: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    widening_labels: tuple[str, ...] = ()
    label_origins: Mapping[str, str] = field(default_factory=dict)
    entities_json: str = field(default="[]", repr=False)
    user_attributes_json: str = field(default="{}", repr=False)
    user_groups: tuple[str, ...] = ()
    terms_json: str = field(default=NO_TERMS, repr=False)
    sealed_key: bytes = field(default=b"", repr=False)
    approved_at: float = 0.0
    approved_by: str = ""
    ended_at: float = 0.0
    ended_by: str = ""
    reason: str = ""

    @property
    def depth(self) -> int:
        """Return the number of ancestors of this session."""
        return len(self.ancestor_ids)


class Obligation(NamedTuple):
    """An action that the gateway must take for an allowed call, with its parameters as a JSON object."""

    id: str
    parameters_json: str


class Ask(NamedTuple):
    """A forbid that a person can lift for one call, in one session of its chain.

    `text_digest` is the SHA-256 of the policy's text, `question` what to ask the person. `run` is how many calls one
    answer can cover, 0 when it covers only one.
    """

    session_id: str
    policy: str
    text_digest: str
    question: str
    run: int = 0

    @property
    def forbid(self) -> tuple[str, str, str]:
        """Return what an approval lifts: the session, the policy's id, and the digest of its text."""
        return self.session_id, self.policy, self.text_digest


class Targets(NamedTuple):
    """Where the names of a call's targets come from, as one session sees it, and those of the links in its texts.

    Both hold words of `pdp.policy.provenance`, sorted, each once.
    """

    provenance: tuple[str, ...]
    links: tuple[str, ...]

    def cedar(self) -> dict[str, list[str]]:
        """Return `context.targets` in Cedar's JSON."""
        return {"provenance": list(self.provenance), "links": list(self.links)}


class Counted(NamedTuple):
    """What one session sees of its earlier calls: how many there were, and which names are done, both sorted by name.

    Calls of the sessions below it are among them.
    """

    counts: tuple[tuple[str, int], ...] = ()
    done: tuple[str, ...] = ()

    def cedar(self) -> dict[str, Any]:
        """Return `context.counts` and `context.done` in Cedar's JSON."""
        return {"counts": dict(self.counts), "done": list(self.done)}


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """The result for a call: the part of a decision that can be remembered.

    `resource_type` and `resource_id` name the resource of the call; empty when it was not mapped.
    `logged_arguments` holds the arguments that the bundle allows to be recorded, each as name and JSON text.
    `targets` is what the session sees of the call's targets, `counted` what it sees of its earlier calls; None where no
    policy can see them. `ancestor_counted` is what the session above sees that denied the call.
    `obligations` are those of the permits that an allow rests on, for a session below others also of the permits of
    these; sorted, each once. `advice` are the lines of the forbids that a deny rests on.
    `asks` are the forbids that a person can lift, of all sessions of the chain, where a call is denied only until then:
    `otherwise` is the allow that holds without them. `policies_lifted` are those that a person has lifted, sorted.
    `errors` holds ids of policies that could not be evaluated. Policies and errors are sorted and complete; answers and
    records name at most `limits.MOST_POLICIES` of them.
    `detail` is one line in our words, without any value of the arguments; for logs, never for agents.
    """

    outcome: Outcome
    basis: Basis
    policies: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    resource_type: str = ""
    resource_id: str = field(default="", repr=False)
    log_resource: bool = True
    logged_arguments: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    targets: Targets | None = None
    counted: Counted | None = None
    ancestor_id: str = ""
    ancestor_basis: Basis | None = None
    ancestor_counted: Counted | None = None
    obligations: tuple[Obligation, ...] = ()
    advice: tuple[str, ...] = ()
    asks: tuple[Ask, ...] = field(default=(), repr=False)
    otherwise: Ruling | None = field(default=None, repr=False)
    policies_lifted: tuple[str, ...] = ()
    detail: str = ""

    @property
    def allowed(self) -> bool:
        """Say whether the call may go ahead."""
        return self.outcome is Outcome.ALLOW


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class Matter:
    """What a decision is about: a call, its session, and the bundle. Decisions from memory about equal calls share it.

    Session fields are empty for an unknown handle, except for `tenant`, which is then the caller's. `catalogue_digest`
    is of the tool's definition as the bundle holds it; empty when the tool is unknown.
    """

    session_id: str
    session_epoch: int
    ancestor_ids: tuple[str, ...]
    user: str
    agent: str
    tenant: str
    environment: str
    opened_by: str
    server: str
    tool: str
    arguments_digest: str
    catalogue_digest: str
    bundle_version: str


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The whole answer about one call.

    `definition_digest` is of the tool's definition as the PEP stated it; empty when it was not stated. `reportable`
    says whether the gateway can report what came of the call: it was allowed, the gateway sees results, and the bundle
    can make use of them. `recurs` says that `matter` and `ruling` are the same objects in each decision about an equal
    call, for as long as these are remembered: its `cache_result` is a hit. `labels_added` holds the labels that this
    decision added to the session or to one above it, sorted; `debits` is what it took of budgets of the session,
    `counted_as` the names under which the call is counted.
    `access_request_id` names the request to a person about the call: of a deny, the one to wait for, until
    `access_ends_at` (unix seconds); of an allow, the one whose approval was used. `phases` holds (name, microseconds)
    in order. `decided_at` is unix seconds, `duration_us` microseconds.
    """

    id: str
    matter: Matter
    ruling: Ruling
    definition_digest: str
    caller: Caller
    cache_result: CacheResult
    decided_at: float
    duration_us: float
    reportable: bool = False
    recurs: bool = False
    labels_added: tuple[str, ...] = ()
    debits: Debited = ()
    access_request_id: str = ""
    access_ends_at: float = 0.0
    counted_as: tuple[str, ...] = ()
    phases: tuple[tuple[str, float], ...] = ()
    request_id: str = ""
    tool_call_id: str = ""
    trace_id: str = ""
    span_id: str = ""

    @property
    def allowed(self) -> bool:
        """Say whether the call may go ahead."""
        return self.ruling.outcome is Outcome.ALLOW

    # Whose action it is, and which: programs that decide in their own process read these.

    @property
    def user(self) -> str:
        """Return the user of the session."""
        return self.matter.user

    @property
    def agent(self) -> str:
        """Return the agent of the session."""
        return self.matter.agent

    @property
    def session_id(self) -> str:
        """Return the id of the session."""
        return self.matter.session_id

    @property
    def server(self) -> str:
        """Return the tool server that was to be called."""
        return self.matter.server

    @property
    def tool(self) -> str:
        """Return the tool that was to be called."""
        return self.matter.tool


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class TraceParent:
    """The position of a decision in the caller's trace: W3C `traceparent` and `tracestate`, as received."""

    traceparent: str = ""
    tracestate: str = ""


class Visibility(Enum):
    """Whether calls of a tool could be allowed in a session."""

    NEVER = "never"
    DEPENDS = "depends"
    ALWAYS = "always"
