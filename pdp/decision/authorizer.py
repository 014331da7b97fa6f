"""The decision: may this agent, for this user, in this approved session, call this tool with these arguments now?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from time import perf_counter_ns
from typing import Any

from pdp.clock import Clock, Instant, no_earlier
from pdp.decision.cache import BoundedCache, DecisionCache, RequestMemory, call_key, read_key
from pdp.decision.gate import Snapshot, deny, gate
from pdp.decision.ruling import CallFacts, call_facts, caller_facts, of_this_call, question_of, rule_chain
from pdp.decision.visibility import policy_visibility
from pdp.errors import (
    InvalidArgumentsError,
    InvalidJSONError,
    InvalidRequestError,
    NotFoundError,
    UnavailableError,
    WrongStateError,
)
from pdp.foundation.ids import decision_ids, handle_digest
from pdp.foundation.jsontext import digest
from pdp.limits import DEFAULT_LIMITS, Limits
from pdp.model import (
    Basis,
    CacheResult,
    Call,
    Caller,
    Decision,
    Outcome,
    Ruling,
    Session,
    SessionState,
    TraceParent,
    Visibility,
)
from pdp.observer import Observer, Place
from pdp.policy.bundle import Bundle
from pdp.policy.engine import SessionEntities, SliceEntities
from pdp.policy.reading import Reading
from pdp.policy.tools.catalogue import Tool
from pdp.sessions.lifecycle import earliest_end, state_of
from pdp.sessions.store import ActiveBundle, SessionReader, StoreView

NO_PARENT = TraceParent()

# What the entities of sessions may take: by themselves, and with what the calls of an action add.
MOST_KNOWN_BYTES, MOST_BESIDE_BYTES = 16 * 1024 * 1024, 32 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRequest:
    """One call of a batch, with what varies without mattering."""

    call: Call
    request_id: str = ""
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolVisibility:
    """One tool of the catalogue as a session sees it; `reading` is what policies read of its calls, when asked for."""

    server: str
    tool: str
    visibility: Visibility
    definition_digest: str
    reading: Reading | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolListing:
    """Every tool of the catalogue as one session sees it. Being listed gives no authority."""

    session_id: str
    bundle_version: str
    tools: tuple[ToolVisibility, ...]


class Authorizer:
    """Decides about tool calls. Safe to use from many threads.

    `bundle_for` returns the loaded bundle that the store names as active; it raises `BundleUnavailableError`.
    `place` gives each decision the ids of its trace and span, so that all observers see them.
    """

    def __init__(
        self,
        *,
        sessions: SessionReader,
        bundle_for: Callable[[ActiveBundle | None], Bundle],
        clock: Clock,
        observer: Observer,
        place: Place | None = None,
        cache: DecisionCache | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._sessions = sessions
        self._bundle_for = bundle_for
        self._clock = clock
        self._observer = observer
        self._place = place or _nowhere
        self._cache = cache if cache is not None else DecisionCache()
        self._known: BoundedCache[SessionEntities] = BoundedCache(
            4096, most_bytes=MOST_KNOWN_BYTES, weigh=attrgetter("weight")
        )
        self._beside: BoundedCache[SliceEntities] = BoundedCache(
            4096, most_bytes=MOST_BESIDE_BYTES, weigh=attrgetter("weight")
        )
        self._retries = RequestMemory()
        self._limits = limits
        self._new_id = decision_ids()

    def authorize(
        self,
        call: Call,
        caller: Caller,
        *,
        request_id: str = "",
        tool_call_id: str = "",
        parent: TraceParent = NO_PARENT,
    ) -> Decision:
        """Decide about one call.

        Raise `InvalidRequestError` for what the PEP wrote wrongly, `RequestIdConflictError` for a request id
        that was used for another call, and `UnavailableError` when there is no answer. Whatever the agent wrote is a
        deny, never an error.
        """
        started = perf_counter_ns()
        snapshot = self._snapshot(call.session_handle, caller)
        request = CallRequest(call=call, request_id=request_id, tool_call_id=tool_call_id)
        return self._decide(snapshot, request, caller, parent, started)

    def batch(
        self, requests: Sequence[CallRequest], caller: Caller, *, parent: TraceParent = NO_PARENT
    ) -> tuple[Decision, ...]:
        """Decide about several calls on one snapshot, in order. Raises what `authorize` raises."""
        started = perf_counter_ns()
        snapshots = self._snapshots({request.call.session_handle for request in requests}, caller)
        for place, request in enumerate(requests):
            # What is wrong in any call is refused before anything is decided.
            try:
                caller_facts(snapshots[request.call.session_handle].bundle, request.call, self._limits)
            except InvalidRequestError as error:
                raise InvalidRequestError(f"requests[{place}].{error.attribute}", error.problem) from None
        decisions = []
        for request in requests:
            snapshot = snapshots[request.call.session_handle]
            decisions.append(self._decide(snapshot, request, caller, parent, started))
            started = perf_counter_ns()
        return tuple(decisions)

    def list_tools(self, session_handle: str, caller: Caller, *, with_readings: bool = False) -> ToolListing:
        """Say for each tool of the catalogue whether the session could be allowed to call it.

        Raise `NotFoundError` for an unknown handle, `WrongStateError` when the session is not active.
        """
        snapshot = self._snapshot(session_handle, caller)
        if not snapshot.chain:
            raise NotFoundError("no such session")
        state = state_of(snapshot.chain[0], snapshot.now)
        if state is not SessionState.ACTIVE:
            raise WrongStateError(f"the session is {state.value}, not active")
        tools = snapshot.bundle.catalogue.tools
        return ToolListing(
            session_id=snapshot.chain[0].id,
            bundle_version=snapshot.bundle.version,
            tools=tuple(self._visibility(snapshot, tools[one], caller, with_readings) for one in sorted(tools)),
        )

    # The path of a decision: snapshot, gate, look up, decide, remember, record.

    def _snapshot(self, session_handle: str, caller: Caller) -> Snapshot:
        view = self._sessions.view(handle_digest(session_handle))
        return self._snapshot_of(view, self._clock.now(), caller)

    def _decide(
        self, snapshot: Snapshot, request: CallRequest, caller: Caller, parent: TraceParent, started: int
    ) -> Decision:
        call = request.call
        facts = caller_facts(snapshot.bundle, call, self._limits)
        ruling, looked_up = gate(snapshot, call), CacheResult.NONE
        gated, passed = perf_counter_ns(), ruling is None
        if ruling is None:
            ruling, looked_up = self._ruling(snapshot, call, caller, facts)
        # What the gate denies has an id of its own: a retry that passes later is another decision.
        decision_id = self._decision_id(request, caller, snapshot.now, ruling.outcome if passed else None)
        times = (started, gated, perf_counter_ns())
        trace = self._place(parent, caller)
        decision = _decision(decision_id, ruling, looked_up, snapshot, request, caller, times, trace)
        answered = self._observer.decision(decision, parent)
        if answered.ruling is not ruling and request.request_id:
            self._retries.part(caller.id, request.request_id)
        return answered

    def _ruling(
        self, snapshot: Snapshot, call: Call, caller: Caller, facts: Mapping[str, Any]
    ) -> tuple[Ruling, CacheResult]:
        """Ask the cache, then the policies. INVARIANT: the gate has been passed on this very snapshot.

        A call that came before in the same bytes is answered at once, another one by what policies can read of it.
        """
        version, chain, now = snapshot.bundle.version, snapshot.chain, snapshot.now
        action = call.action
        tool, reading = snapshot.bundle.catalogue.tools[action], snapshot.bundle.slice(action).reading
        place = reading.place_in_time(snapshot.wall_at)
        by_call = call_key(version, chain, call, caller, place)
        if reading.cacheable and (found := self._cache.get(by_call, now)) is not None:
            return found.ruling, CacheResult.HIT
        try:
            seen = call_facts(tool, call, caller.id, facts, self._limits)
        except (InvalidJSONError, InvalidArgumentsError) as error:
            return deny(Basis.INVALID_ARGUMENTS, str(error)), CacheResult.NONE
        if not reading.cacheable:
            return of_this_call(self._evaluate(snapshot, seen, action), tool, seen), CacheResult.BYPASS
        by_reading = read_key(version, chain, call, reading.part(seen.resource, seen.context), place)
        if (found := self._cache.get(by_reading, now)) is not None:
            ruling = of_this_call(found.ruling, tool, seen)
            self._cache.put(by_call, ruling, found.end, now)
            return ruling, CacheResult.HIT
        general = self._evaluate(snapshot, seen, action)
        ruling = of_this_call(general, tool, seen)
        if Basis.POLICY_ERROR in (ruling.basis, ruling.ancestor_basis):
            return ruling, CacheResult.BYPASS
        end = earliest_end(chain, now)
        self._cache.put(by_reading, general, end, now)
        self._cache.put(by_call, ruling, end, now)
        return ruling, CacheResult.MISS

    def _evaluate(self, snapshot: Snapshot, facts: CallFacts, action: str) -> Ruling:
        """Evaluate the policies for the session and for each of its ancestors: all must permit."""
        bundle, wall_at = snapshot.bundle, snapshot.wall_at
        return rule_chain(snapshot.chain, lambda session: self._ask(bundle, session, facts, wall_at, action))

    def _ask(self, bundle: Bundle, session: Session, facts: CallFacts, wall_at: float, action: str) -> Ruling:
        asked, key = bundle.slice(action), (bundle.version, session.id, session.epoch, action)
        try:
            beside = self._beside.get_or_make(key, lambda: asked.beside(self._session_entities(bundle, session)))
        except ValueError:
            return deny(Basis.POLICY_ERROR, "the session's entities do not fit the schema")
        return asked.ask(question_of(session, facts, wall_at), beside)

    def _session_entities(self, bundle: Bundle, session: Session) -> SessionEntities:
        key = (bundle.version, session.id, session.epoch)
        return self._known.get_or_make(key, lambda: bundle.session_entities(session))

    def _visibility(self, snapshot: Snapshot, tool: Tool, caller: Caller, with_reading: bool) -> ToolVisibility:  # noqa: FBT001 - private
        call = Call(session_handle="", server=tool.server, tool=tool.name, definition_digest=tool.definition_digest)
        seen = Visibility.NEVER if gate(snapshot, call) else self._policy_visibility(snapshot, tool, caller)
        return ToolVisibility(
            server=tool.server,
            tool=tool.name,
            visibility=seen,
            definition_digest=tool.definition_digest,
            reading=snapshot.bundle.slice(tool.action).reading if with_reading else None,
        )

    def _policy_visibility(self, snapshot: Snapshot, tool: Tool, caller: Caller) -> Visibility:
        bundle = snapshot.bundle
        return policy_visibility(
            bundle,
            snapshot.chain,
            tool,
            caller_id=caller.id,
            wall_at=snapshot.wall_at,
            entities_of=lambda session: self._session_entities(bundle, session),
        )

    def _snapshots(self, handles: set[str], caller: Caller) -> dict[str, Snapshot]:
        for _ in range(3):
            views = {handle: self._sessions.view(handle_digest(handle)) for handle in handles}
            if len({view.bundle for view in views.values()}) <= 1:
                now = self._clock.now()
                return {handle: self._snapshot_of(view, now, caller) for handle, view in views.items()}
        raise UnavailableError("the active bundle changes too fast; try again")

    def _snapshot_of(self, view: StoreView, now: Instant, caller: Caller) -> Snapshot:
        bundle = self._bundle_for(view.bundle)
        # A session of another tenant looks like an unknown one.
        chain = view.chain if view.chain and view.chain[0].tenant == caller.tenant else ()
        return Snapshot(bundle=bundle, chain=chain, now=no_earlier(now, view.high_water_at), wall_at=now.wall_at)

    def _decision_id(self, request: CallRequest, caller: Caller, now: Instant, outcome: Outcome | None) -> str:
        fresh = self._new_id()
        if not request.request_id:
            return fresh
        return self._retries.claim(caller.id, request.request_id, request.call, fresh, outcome, now)


def _decision(
    decision_id: str,
    ruling: Ruling,
    looked_up: CacheResult,
    snapshot: Snapshot,
    request: CallRequest,
    caller: Caller,
    times: tuple[int, int, int],
    trace: tuple[str, str],
) -> Decision:
    own = snapshot.chain[0] if snapshot.chain else None
    call = request.call
    tool = snapshot.bundle.catalogue.tools.get(call.action)
    started, gated, ended = times
    return Decision(
        id=decision_id,
        ruling=ruling,
        session_id=own.id if own else "",
        session_epoch=own.epoch if own else 0,
        ancestor_ids=own.ancestor_ids if own else (),
        user=own.user if own else "",
        agent=own.agent if own else "",
        # Whose auditor sees a call with an unknown or foreign handle.
        tenant=own.tenant if own else caller.tenant,
        environment=own.environment if own else "",
        opened_by=own.opened_by if own else "",
        caller=caller,
        server=call.server,
        tool=call.tool,
        arguments_digest=digest(call.arguments_json),
        definition_digest=call.definition_digest,
        catalogue_digest=tool.definition_digest if tool and tool.server == call.server else "",
        bundle_version=snapshot.bundle.version,
        cache_result=looked_up,
        decided_at=snapshot.wall_at,
        # Of the clock's nanoseconds: a sum of the phases would seem to know more.
        duration_us=(ended - started) / 1000,
        phases=(("gate", (gated - started) / 1000), ("policy", (ended - gated) / 1000)),
        request_id=request.request_id,
        tool_call_id=request.tool_call_id,
        trace_id=trace[0],
        span_id=trace[1],
    )


def _nowhere(_: TraceParent, __: Caller) -> tuple[str, str]:
    return "", ""
