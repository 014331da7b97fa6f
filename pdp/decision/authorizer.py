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
)
from pdp.foundation.ids import decision_ids
from pdp.foundation.jsontext import digest
from pdp.limits import DEFAULT_LIMITS, Limits
from pdp.model import Basis, CacheResult, Caller, CallRequest, Decision, Outcome, Ruling, TraceParent
from pdp.observer import Observer, TraceIds
from pdp.policy.counting import CountedNames
from pdp.policy.question import Facts
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
        for another call, and `UnavailableError` when there is no answer. A mistake of the agent is a deny, never an
        error.
        """
        started = perf_counter_ns()
        snapshot = self._snapshots.of_handle(request.call.session_handle, caller)
        facts = caller_facts(snapshot.bundle, request.call, self._limits)
        decision, _ = self._decide(snapshot, request, facts, caller, parent, started)
        return decision

    def batch(
        self, requests: Sequence[CallRequest], caller: Caller, *, parent: TraceParent = NO_PARENT
    ) -> tuple[Decision, ...]:
        """Decide about several calls on one snapshot, in order. Raises what `authorize` raises.

        Each call sees what the calls before it changed.
        """
        started = perf_counter_ns()
        snapshots = self._snapshots.of_handles({request.call.session_handle for request in requests}, caller)
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
            decision, after = self._decide(snapshot, request, stated, caller, parent, started)
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
        return tool_listing(snapshot, caller.id, with_readings=with_readings)

    # The path of a decision: snapshot, gate, look up, judge, remember, settle, record.

    def _decide(
        self,
        snapshot: Snapshot,
        request: CallRequest,
        facts: Mapping[str, Any],
        caller: Caller,
        parent: TraceParent,
        started: int,
    ) -> tuple[Decision, Snapshot]:
        """Return the decision, and the snapshot with what the call changed."""
        action, bundle = request.call.action, snapshot.bundle
        if not (bundle.counted and snapshot.chain and action in bundle.catalogue.tools):
            return self._decide_now(snapshot, request, facts, caller, parent, started, _TRIES_AGAIN)
        if not (action in bundle.counted_as or bundle.slice(action).counted):
            return self._decide_now(snapshot, request, facts, caller, parent, started, _TRIES_AGAIN)
        tries = _TRIES_AT_COUNTS if bundle.slice(action).counted else _TRIES_AGAIN
        with ExitStack() as turn:
            try:
                # One after another in a tree, or all are decided on counts that the first of them changes.
                turn.enter_context(self._turns[hash(snapshot.chain[-1].id) % _TURNS].turn())
            except OverloadedError:
                settled = unsettled(snapshot, "too many calls of the session wait for each other")
                decision_id, now = self._decision_id(request, caller, snapshot.now, None), perf_counter_ns()
                looked_up, times = CacheResult.NONE, (started, now, now)
                whole = (settled.ruling, settled, looked_up)
                return self._answer(snapshot, request, caller, parent, *whole, decision_id=decision_id, times=times)
            return self._decide_now(snapshot, request, facts, caller, parent, started, tries)

    def _decide_now(
        self,
        snapshot: Snapshot,
        request: CallRequest,
        facts: Mapping[str, Any],
        caller: Caller,
        parent: TraceParent,
        started: int,
        tries_left: int,
    ) -> tuple[Decision, Snapshot]:
        refused, seen = gate(snapshot, request.call), None
        gated = perf_counter_ns()
        if refused is None:
            ruling, looked_up, seen = self._ruling(snapshot, request, caller, facts)
        else:
            ruling, looked_up = refused.ruling, CacheResult.NONE
        # A deny by the gate, and a call that a person can allow, has an id of its own: a retry that passes later is
        # another decision.
        settled_here = refused is None and ruling.basis is not Basis.APPROVAL_REQUIRED
        decision_id = self._decision_id(request, caller, snapshot.now, ruling.outcome if settled_here else None)
        times = (started, gated, perf_counter_ns())
        try:
            settled = self._ledger.settle(snapshot, request, caller, ruling, decision_id, seen)
        except ConflictError:
            if seen is not None:
                # Those that wait for each other must not meet again.
                pause = min(_LONGEST_PAUSE, 0.001 * 2 ** (_TRIES_AT_COUNTS - tries_left))
                sleep(uniform(0.0, pause))  # noqa: S311 - it keeps no secret
            try:
                anew = self._snapshots.of_handle(request.call.session_handle, caller)
            except UnavailableError as error:
                settled = unsettled(snapshot, str(error))
            else:
                # The facts were typed by this bundle, and a batch is decided by one.
                if tries_left and anew.bundle.version == snapshot.bundle.version:
                    return self._decide_now(anew, request, facts, caller, parent, started, tries_left - 1)
                settled = unsettled(snapshot, "the session or the active bundle changes too fast")
        whole = (ruling, settled, looked_up)
        return self._answer(snapshot, request, caller, parent, *whole, decision_id=decision_id, times=times)

    def _answer(
        self,
        snapshot: Snapshot,
        request: CallRequest,
        caller: Caller,
        parent: TraceParent,
        ruling: Ruling,
        settled: Settled | None,
        looked_up: CacheResult,
        *,
        decision_id: str,
        times: tuple[int, int, int],
    ) -> tuple[Decision, Snapshot]:
        trace = self._trace_ids(parent, caller)
        use = settled.use if settled is not None else None
        # A try before this one has used the approval, and was told: it is one use, of one decision.
        retried = use is not None and use.decision_id != decision_id
        decision_id = use.decision_id if use is not None else decision_id
        decision = _decision(decision_id, ruling, settled, looked_up, snapshot, request, caller, times, trace=trace)
        answered = self._observer.decision(decision, parent)
        if settled is not None and not retried and (told := event_of(settled.access, answered)) is not None:
            self._observer.event(told)
        if answered.ruling is not ruling and request.request_id:
            self._retries.part(caller.id, request.request_id)
        if settled is not None and not answered.allowed:
            # It could not be recorded: what was not allowed is not done.
            self._ledger.undo(settled)
        return answered, settled.snapshot if settled else snapshot

    def _ruling(
        self, snapshot: Snapshot, request: CallRequest, caller: Caller, facts: Mapping[str, Any]
    ) -> tuple[Ruling, CacheResult, SeenCounts | None]:
        """Ask the cache, then the policies. INVARIANT: the gate has passed the call on the same snapshot.

        The cache is asked for a call with the same bytes, then for one in which the policies can read the same. Where
        policies see the targets of calls, it is asked only for the latter, which holds where their names come from.
        Where they see counts, which are returned too, it is not asked.
        """
        bundle, chain, now, at = snapshot.bundle, snapshot.chain, snapshot.now, snapshot.wall_at
        call, action = request.call, request.call.action
        tool, policies = bundle.catalogue.tools[action], bundle.slice(action)
        reading = policies.reading
        place = reading.place_in_time(at)
        by_call = (
            None if policies.sees_targets or policies.counted else call_key(bundle.version, chain, call, caller, place)
        )
        if by_call and reading.cacheable and (found := self._cache.get(by_call, now)) is not None:
            return found.ruling, CacheResult.HIT, None
        try:
            find = names_in_results(self._history, chain, call.session_handle)
            seen = call_facts(tool, call, caller.id, facts, self._limits, seen_targets(bundle, chain, tool, find))
        except (InvalidJSONError, InvalidArgumentsError) as error:
            return deny(Basis.INVALID_ARGUMENTS, str(error)), CacheResult.NONE, None
        if not reading.cacheable:
            return self._ruling_past_cache(snapshot, request, caller, seen, policies.counted)
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
        end = earliest_end(chain, now)
        self._cache.put(by_reading, general, end, now)
        if by_call:
            self._cache.put(by_call, ruling, end, now)
        return ruling, CacheResult.MISS, None

    def _ruling_past_cache(
        self, snapshot: Snapshot, request: CallRequest, caller: Caller, facts: Facts, names: CountedNames
    ) -> tuple[Ruling, CacheResult, SeenCounts | None]:
        ruling, seen = None, None
        if names:
            try:
                seen = self._ledger.counts(snapshot, request, caller, names)
            except (UnavailableError, OverloadedError) as error:
                return deny(Basis.LEDGER_UNAVAILABLE, str(error)), CacheResult.BYPASS, None
            facts, ruling = replace(facts, counted=seen.counted), seen.unknown
        tool = snapshot.bundle.catalogue.tools[request.call.action]
        ruling = ruling or judge_chain(snapshot.bundle, snapshot.chain, facts, snapshot.wall_at)
        return of_this_call(ruling, snapshot.chain, tool, facts), CacheResult.BYPASS, seen

    def _decision_id(self, request: CallRequest, caller: Caller, now: Instant, outcome: Outcome | None) -> str:
        fresh = self._new_id()
        if not request.request_id:
            return fresh
        return self._retries.claim(caller.id, request.request_id, request.call, fresh, outcome, now)


def _decision(
    decision_id: str,
    ruling: Ruling,
    settled: Settled | None,
    looked_up: CacheResult,
    snapshot: Snapshot,
    request: CallRequest,
    caller: Caller,
    times: tuple[int, int, int],
    *,
    trace: tuple[str, str],
) -> Decision:
    own = snapshot.chain[0] if snapshot.chain else None
    call = request.call
    tool = snapshot.bundle.catalogue.tools.get(call.action)
    started, gated, ended = times
    phases: tuple[tuple[str, float], ...] = (("gate", (gated - started) / 1000), ("policy", (ended - gated) / 1000))
    if settled is not None:
        ruled, ended = ended, perf_counter_ns()
        ruling, phases = settled.ruling, (*phases, ("ledger", (ended - ruled) / 1000))
    waits_for = settled.access if settled is not None else None
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
        catalogue_digest=tool.definition_digest if tool and tool.server == call.server else "",
        bundle_version=snapshot.bundle.version,
        cache_result=looked_up,
        decided_at=snapshot.wall_at,
        # From the clock's nanoseconds, since a sum of the phases would show spurious digits.
        duration_us=(ended - started) / 1000,
        reportable=ruling.outcome is Outcome.ALLOW and snapshot.bundle.takes_reports,
        labels_added=settled.labels_added if settled is not None else (),
        debits=settled.debits if settled is not None else (),
        access_request_id=waits_for.id if waits_for else "",
        access_ends_at=waits_for.deadline.wall_at if waits_for and not ruling.allowed else 0.0,
        counted_as=settled.counted_as if settled is not None else (),
        phases=phases,
        request_id=request.request_id,
        tool_call_id=request.tool_call_id,
        trace_id=trace[0],
        span_id=trace[1],
    )


def _no_trace(_: TraceParent, __: Caller) -> tuple[str, str]:
    return "", ""
