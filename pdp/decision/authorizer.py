"""The decision: may this agent, for this user, in this approved session, call this tool with these arguments now?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from random import uniform
from time import perf_counter_ns, sleep
from typing import Any

from pdp.clock import Instant
from pdp.decision.accessevents import event_of
from pdp.decision.cache import DecisionCache, RequestMemory, call_key, read_key
from pdp.decision.counts import SeenCounts
from pdp.decision.gate import gate
from pdp.decision.gatewords import Refusal
from pdp.decision.ledger import Ledger, Settled, unsettled
from pdp.decision.ruling import call_facts, caller_facts, deny, judge_chain, of_this_call, seen_targets
from pdp.decision.snapshot import Snapshot, Snapshots
from pdp.decision.values import names_in_results
from pdp.decision.visibility import ToolListing, tool_listing
from pdp.errors import (
    ConflictError,
    InvalidArgumentsError,
    InvalidJSONError,
    InvalidRequestError,
    OverloadedError,
    UnavailableError,
    UnknownRevisionError,
)
from pdp.foundation.ids import decision_ids
from pdp.foundation.jsontext import digest
from pdp.limits import DEFAULT_LIMITS, Limits
from pdp.model import Basis, CacheResult, Caller, CallRequest, Decision, Outcome, Ruling, TraceParent
from pdp.observer import Observer, TraceIds
from pdp.policy.plan import Plan
from pdp.policy.question import Facts
from pdp.policy.tools.catalogue import Tool
from pdp.sessions.lifecycle import earliest_end
from pdp.sessions.store import SessionHistory
from pdp.sessions.turns import Turns

NO_PARENT = TraceParent()

# How often a call is decided again because its session changed before the ledger was written.
_TRIES_AGAIN = 3
# How often because other processes count calls of its session: each time, one of them went ahead.
_TRIES_AT_COUNTS = 30
# The longest pause before one of these, in seconds.
_LONGEST_PAUSE = 0.02
# For how many trees of sessions calls are counted at the same time, and how long and how many of a tree wait.
_TURNS, _MOST_WAITING, _PATIENCE_SECONDS = 64, 256, 2.0


class Authorizer:
    """Decides about tool calls. Safe for threads.

    `trace_ids` gives each decision the ids of its trace and span, so that all observers see them.
    """

    def __init__(
        self,
        *,
        snapshots: Snapshots,
        ledger: Ledger,
        history: SessionHistory,
        observer: Observer,
        trace_ids: TraceIds | None = None,
        cache: DecisionCache | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._snapshots = snapshots
        self._ledger = ledger
        self._history = history
        self._observer = observer
        self._trace_ids = trace_ids or _no_trace
        self._cache = cache if cache is not None else DecisionCache()
        # Trees of sessions share them, so that their number is fixed.
        self._turns = tuple(Turns(most=_MOST_WAITING, seconds=_PATIENCE_SECONDS) for _ in range(_TURNS))
        self._retries = RequestMemory()
        self._limits = limits
        self._new_id = decision_ids()

    def authorize(self, request: CallRequest, caller: Caller, *, parent: TraceParent = NO_PARENT) -> Decision:
        """Decide about one call.

        Raise `InvalidRequestError` for a mistake of the PEP, `RequestIdConflictError` for a request id that was used
        for another call, `UnknownRevisionError` for a change that the store does not have, and `UnavailableError` when
        there is no answer. A mistake of the agent is a deny, never an error.
        """
        started = perf_counter_ns()
        snapshot = self._snapshots.of_call(request, caller)
        facts = caller_facts(snapshot.bundle, request.call, self._limits)
        decision, _ = self._decide(snapshot, request, facts, caller, request.parent or parent, started)
        return decision

    def batch(
        self, requests: Sequence[CallRequest], caller: Caller, *, parent: TraceParent = NO_PARENT
    ) -> tuple[Decision, ...]:
        """Decide about several calls on one snapshot, in order. Raises what `authorize` raises.

        Each call sees what the calls before it changed.
        """
        started = perf_counter_ns()
        snapshots = self._snapshots.of_calls(requests, caller)
        facts = []
        for index, request in enumerate(requests):
            # A mistake of the PEP in any call is refused before any call is decided.
            try:
                facts.append(caller_facts(snapshots[request.call.session_handle].bundle, request.call, self._limits))
            except InvalidRequestError as error:
                raise InvalidRequestError(f"requests[{index}].{error.attribute}", error.problem) from None
        decisions = []
        for request, stated in zip(requests, facts, strict=True):
            snapshot = snapshots[request.call.session_handle]
            decision, after = self._decide(snapshot, request, stated, caller, request.parent or parent, started)
            decisions.append(decision)
            if after is not snapshot:
                # Other sessions of the batch can have the same ancestors.
                snapshots = {handle: one.after(after) for handle, one in snapshots.items()}
            started = perf_counter_ns()
        return tuple(decisions)

    def list_tools(self, session_handle: str, caller: Caller, *, with_readings: bool = False) -> ToolListing:
        """Return for each tool of the catalogue whether the session could be allowed to call it.

        Raise `NotFoundError` for an unknown handle, `WrongStateError` when the session is not active.
        """
        snapshot = self._snapshots.of_handle(session_handle, caller)
        return tool_listing(snapshot, caller, with_readings=with_readings)

    # The path of a decision: snapshot, gate, look up, judge, remember, settle, record.

    def _decide(
        self,
        snapshot: Snapshot,
        request: CallRequest,
        facts: Mapping[str, Any],
        caller: Caller,
        parent: TraceParent,
        started: int,
        tries_left: int | None = None,
    ) -> tuple[Decision, Snapshot]:
        """Return the decision, and the snapshot with what the call changed.

        `tries_left` says how often the call can be decided again; None while it has not had its turn.
        """
        passed = gate(snapshot, request.call, caller.bounds)
        gated = perf_counter_ns()
        if isinstance(passed, Refusal):
            return self._refuse(snapshot, request, caller, parent, passed.ruling, started, gated)
        plan = snapshot.bundle.plan(passed)
        if plan.in_turn and tries_left is None:
            return self._decide_in_turn(snapshot, plan, request, facts, caller, parent, started)
        ruling, looked_up, seen = self._ruling(snapshot, plan, request, caller, facts)
        # A call that a person can allow has an id of its own: a retry that is allowed later is another decision.
        decision_id = self._decision_id(request, caller, snapshot.now, None if ruling.asks else ruling.outcome)
        times, settled = (started, gated, perf_counter_ns()), None
        if plan.settles or ruling.asks:
            left = _TRIES_AGAIN if tries_left is None else tries_left
            try:
                settled = self._ledger.settle(snapshot, request, caller, ruling, decision_id, seen)
            except ConflictError:
                anew = self._anew(snapshot, request, caller, left, pause=seen is not None)
                if isinstance(anew, Snapshot):
                    return self._decide(anew, request, facts, caller, parent, started, left - 1)
                settled = anew
        ids = (decision_id, *self._trace_ids(parent, caller))
        decision = _decision(ids, ruling, looked_up, snapshot, passed, request, caller, times)
        return self._answer(decision, settled, snapshot, request, parent, times)

    def _refuse(
        self,
        snapshot: Snapshot,
        request: CallRequest,
        caller: Caller,
        parent: TraceParent,
        ruling: Ruling,
        started: int,
        gated: int,
    ) -> tuple[Decision, Snapshot]:
        """Deny a call about which no policy is asked.

        The deny has an id of its own: a retry that passes later is another decision.
        """
        tool = snapshot.bundle.catalogue.tool(request.call.server, request.call.tool)
        ids = (self._decision_id(request, caller, snapshot.now, None), *self._trace_ids(parent, caller))
        times = (started, gated, perf_counter_ns())
        decision = _decision(ids, ruling, CacheResult.NONE, snapshot, tool, request, caller, times)
        return self._answer(decision, None, snapshot, request, parent, times)

    def _decide_in_turn(
        self,
        snapshot: Snapshot,
        plan: Plan,
        request: CallRequest,
        facts: Mapping[str, Any],
        caller: Caller,
        parent: TraceParent,
        started: int,
    ) -> tuple[Decision, Snapshot]:
        """Decide about a call after those of its tree that came before: else the first changes the counts of all."""
        tries = _TRIES_AT_COUNTS if plan.policies.counted else _TRIES_AGAIN
        with ExitStack() as turn:
            try:
                turn.enter_context(self._turns[hash(snapshot.chain[-1].id) % _TURNS].turn())
            except OverloadedError:
                refused = deny(Basis.LEDGER_UNAVAILABLE, "too many calls of the session wait for each other")
                return self._refuse(snapshot, request, caller, parent, refused, started, perf_counter_ns())
            return self._decide(snapshot, request, facts, caller, parent, started, tries)

    def _anew(
        self, snapshot: Snapshot, request: CallRequest, caller: Caller, tries_left: int, *, pause: bool
    ) -> Snapshot | Settled:
        """Return the snapshot by which to decide again about a call whose session has changed, or the deny."""
        if pause:
            # Those that wait for each other must not meet again.
            longest = min(_LONGEST_PAUSE, 0.001 * 2 ** (_TRIES_AT_COUNTS - tries_left))
            sleep(uniform(0.0, longest))  # noqa: S311 - it keeps no secret
        try:
            anew = self._snapshots.of_handle(request.call.session_handle, caller, request.least)
        except (UnavailableError, UnknownRevisionError) as error:
            return unsettled(snapshot, str(error))
        # The facts were typed by this bundle, and a batch is decided by one.
        if tries_left and anew.bundle.version == snapshot.bundle.version:
            return anew
        return unsettled(snapshot, "the session or the active bundle changes too fast")

    def _answer(
        self,
        decision: Decision,
        settled: Settled | None,
        snapshot: Snapshot,
        request: CallRequest,
        parent: TraceParent,
        times: tuple[int, int, int],
    ) -> tuple[Decision, Snapshot]:
        """Return the decision as it is recorded, and the snapshot with what the call changed."""
        whole = decision if settled is None else _with_settled(decision, settled, times)
        answered = self._observer.decision(whole, parent)
        if answered.ruling is not decision.ruling and request.request_id:
            self._retries.part(decision.caller.id, request.request_id)
        if settled is None:
            return answered, snapshot
        # A try before this one has used the approval, and was told: it is one use, of one decision.
        retried = whole.id != decision.id
        if not retried and (event := event_of(settled.access, answered)) is not None:
            self._observer.event(event)
        if not answered.allowed:
            # It could not be recorded: what was not allowed is not done.
            self._ledger.undo(settled)
        return answered, settled.snapshot

    def _ruling(
        self, snapshot: Snapshot, plan: Plan, request: CallRequest, caller: Caller, facts: Mapping[str, Any]
    ) -> tuple[Ruling, CacheResult, SeenCounts | None]:
        """Ask the cache, then the policies. INVARIANT: the gate has passed the call on the same snapshot.

        The cache is asked for a call with the same bytes, then for one in which the policies can read the same. Where
        policies see the targets of calls, it is asked only for the latter, which holds where their names come from.
        Where they see counts, which are returned too, it is not asked.
        """
        bundle, chain, now, at = snapshot.bundle, snapshot.chain, snapshot.now, snapshot.wall_at
        call, tool, policies = request.call, plan.tool, plan.policies
        reading = policies.reading
        place = reading.place_in_time(at)
        by_call = call_key(bundle.version, chain, call, caller, place) if plan.by_call else None
        if by_call and (found := self._cache.get(by_call, now)) is not None:
            return found.ruling, CacheResult.HIT, None
        try:
            find = names_in_results(self._history, chain, call.session_handle)
            seen = call_facts(tool, call, caller.id, facts, self._limits, seen_targets(bundle, chain, tool, find))
        except (InvalidJSONError, InvalidArgumentsError) as error:
            return deny(Basis.INVALID_ARGUMENTS, str(error)), CacheResult.NONE, None
        if not reading.cacheable:
            return self._ruling_past_cache(snapshot, plan, request, caller, seen)
        read = reading.part(seen.resource, seen.context, seen.targets)
        by_reading = read_key(bundle.version, chain, call, read, place)
        if (found := self._cache.get(by_reading, now)) is not None:
            ruling = of_this_call(found.ruling, chain, tool, seen)
            if by_call:
                self._cache.put(by_call, ruling, found.end, now)
            return ruling, CacheResult.HIT, None
        general = judge_chain(bundle, chain, seen, at)
        ruling = of_this_call(general, chain, tool, seen)
        if Basis.POLICY_ERROR in (ruling.basis, ruling.ancestor_basis) or ruling.basis is Basis.APPROVAL_REQUIRED:
            return ruling, CacheResult.BYPASS, None
        # Most calls are never repeated to the byte: those that are get a key of their own with their first repetition.
        self._cache.put(by_reading, general, earliest_end(chain, now), now)
        return ruling, CacheResult.MISS, None

    def _ruling_past_cache(
        self, snapshot: Snapshot, plan: Plan, request: CallRequest, caller: Caller, facts: Facts
    ) -> tuple[Ruling, CacheResult, SeenCounts | None]:
        ruling, seen = None, None
        if names := plan.policies.counted:
            try:
                seen = self._ledger.counts(snapshot, request, caller, names)
            except (UnavailableError, OverloadedError) as error:
                return deny(Basis.LEDGER_UNAVAILABLE, str(error)), CacheResult.BYPASS, None
            facts, ruling = replace(facts, counted=seen.counted), seen.unknown
        ruling = ruling or judge_chain(snapshot.bundle, snapshot.chain, facts, snapshot.wall_at)
        return of_this_call(ruling, snapshot.chain, plan.tool, facts), CacheResult.BYPASS, seen

    def _decision_id(self, request: CallRequest, caller: Caller, now: Instant, outcome: Outcome | None) -> str:
        fresh = self._new_id()
        if not request.request_id:
            return fresh
        return self._retries.claim(caller.id, request.request_id, request.call, fresh, outcome, now)


def _decision(
    ids: tuple[str, str, str],
    ruling: Ruling,
    looked_up: CacheResult,
    snapshot: Snapshot,
    tool: Tool | None,
    request: CallRequest,
    caller: Caller,
    times: tuple[int, int, int],
) -> Decision:
    own = snapshot.chain[0] if snapshot.chain else None
    call, bundle = request.call, snapshot.bundle
    decision_id, trace_id, span_id = ids
    started, gated, ended = times
    return Decision(
        id=decision_id,
        ruling=ruling,
        session_id=own.id if own else "",
        session_epoch=own.epoch if own else 0,
        ancestor_ids=own.ancestor_ids if own else (),
        user=own.user if own else "",
        agent=own.agent if own else "",
        # The auditor of the caller's tenant sees a call with an unknown or foreign handle.
        tenant=own.tenant if own else caller.tenant,
        environment=own.environment if own else "",
        opened_by=own.opened_by if own else "",
        caller=caller,
        server=call.server,
        tool=call.tool,
        arguments_digest=digest(call.arguments_json),
        definition_digest=call.definition_digest,
        catalogue_digest=tool.definition_digest if tool else "",
        bundle_version=bundle.version,
        cache_result=looked_up,
        decided_at=snapshot.wall_at,
        # From the clock's nanoseconds, since a sum of the phases would show spurious digits.
        duration_us=(ended - started) / 1000,
        reportable=bundle.takes_reports and ruling.allowed and caller.sees_results,
        phases=(("gate", (gated - started) / 1000), ("policy", (ended - gated) / 1000)),
        request_id=request.request_id,
        tool_call_id=request.tool_call_id,
        trace_id=trace_id,
        span_id=span_id,
    )


def _with_settled(decision: Decision, settled: Settled, times: tuple[int, int, int]) -> Decision:
    """Return a decision with what the ledger made of it."""
    (started, _, ruled), ended = times, perf_counter_ns()
    ruling, access = settled.ruling, settled.access
    return replace(
        decision,
        id=settled.use.decision_id if settled.use is not None else decision.id,
        ruling=ruling,
        duration_us=(ended - started) / 1000,
        reportable=settled.snapshot.bundle.takes_reports and ruling.allowed and decision.caller.sees_results,
        labels_added=settled.labels_added,
        debits=settled.debits,
        access_request_id=access.id if access else "",
        access_ends_at=access.deadline.wall_at if access and not ruling.allowed else 0.0,
        counted_as=settled.counted_as,
        phases=(*decision.phases, ("ledger", (ended - ruled) / 1000)),
    )


def _no_trace(_: TraceParent, __: Caller) -> tuple[str, str]:
    return "", ""
