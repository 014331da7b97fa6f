"""The decision: may this agent, for this user, in this approved session, call this tool with these arguments now?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from random import uniform
from time import perf_counter_ns, sleep
from typing import NamedTuple

from pdp.clock import Instant
from pdp.decision.accessevents import event_of
from pdp.decision.cache import DecisionCache, RequestMemory
from pdp.decision.gate import gate
from pdp.decision.gatewords import Refusal
from pdp.decision.judging import Asked, Found, Judge, Question, matter_of
from pdp.decision.ledger import Ledger, Settled, unsettled
from pdp.decision.making import decision_of, with_settled
from pdp.decision.ruling import caller_facts, deny
from pdp.decision.snapshot import Snapshot, Snapshots
from pdp.decision.visibility import ToolListing, tool_listing
from pdp.errors import (
    ConflictError,
    InvalidRequestError,
    OverloadedError,
    RequestIdConflictError,
    UnavailableError,
    UnknownRevisionError,
)
from pdp.foundation.ids import decision_ids
from pdp.limits import DEFAULT_LIMITS, Limits
from pdp.model import Basis, CacheResult, Call, Caller, CallRequest, Decision, Outcome, Ruling, TraceParent
from pdp.observer import Recorder, TraceIds
from pdp.policy.bundle import Bundle
from pdp.policy.plan import Plan
from pdp.sessions.historycontract import SessionHistory
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


class Decided(NamedTuple):
    """A decision that is not recorded yet, what the ledger wrote for it, and the snapshot with what the call changed.

    `ruling` and `claimed_id` are those before the ledger.
    """

    decision: Decision
    ruling: Ruling
    claimed_id: str
    settled: Settled | None
    snapshot: Snapshot
    asked: Asked


class Passed(NamedTuple):
    """A call that the gate has passed: its ruling, or what the policies are to be asked about it.

    `settles` says whether the ledger settles it if it is allowed. `gated` and `looked_up` say when that was known, in
    nanoseconds.
    """

    snapshot: Snapshot
    asked: Asked
    plan: Plan
    settles: bool
    found: Found | Question
    gated: int
    looked_up: int


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
        observer: Recorder,
        trace_ids: TraceIds | None = None,
        cache: DecisionCache | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._snapshots = snapshots
        self._ledger = ledger
        self._observer = observer
        self._trace_ids = trace_ids or _no_trace
        remembers = cache if cache is not None else DecisionCache()
        self._judge = Judge(cache=remembers, history=history, ledger=ledger, limits=limits)
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
        decision, _ = self._answer(snapshot, Asked(request, facts, caller, request.parent or parent, started))
        return decision

    def try_now(
        self,
        calls: Iterable[tuple[CallRequest, Caller, TraceParent]],
        *,
        reportable_at_once: Callable[[Bundle], bool] = lambda _: True,
    ) -> Iterator[Passed]:
        """Begin to decide about calls as `authorize` does, up to the first for which something has to be waited for.

        Only remembered rulings and quick questions to the policies are answered: nothing that asks the store, changes
        something, or waits for other calls, and nothing that could be reported if `reportable_at_once` says no of its
        bundle. See `decide_now`. INVARIANT: all calls have come before the first is begun.
        """
        if not self._observer.takes_at_once:
            return
        known = self._snapshots.known()
        for request, caller, parent in calls:
            started = perf_counter_ns()
            snapshot = known(request, caller)
            if snapshot is None:
                return
            bundle = snapshot.bundle
            # Before the decision, which would be remembered and made again.
            if bundle.takes_reports and caller.sees_results and not reportable_at_once(bundle):
                return
            facts = caller_facts(bundle, request.call, self._limits)
            asked = Asked(request, facts, caller, request.parent or parent, started, waits=False)
            passed = self._passed(snapshot, asked)
            if not isinstance(passed, Passed):
                return
            yield passed

    def decide_now(self, passed: Sequence[Passed], *, in_order: bool = False) -> list[Decided | None]:
        """Decide about calls that `try_now` has begun; None for each that has to wait or must be refused after all.

        If they are `in_order`, return the decisions before the first of these: nothing is done for the calls after it.

        The policies are asked about all before any decision is made: the engine does not fit into the processor's
        nearest caches together with the rest. A decision counts once it is recorded: see `record`.
        """
        ruled = list[tuple[Found, int]]()
        for one in passed:
            # Another call of the same turn may have asked what this one asks.
            ruled.append(self._ruled(one, again=bool(ruled)))
            if in_order and ruled[-1][0].ruling.asks:
                break
        made = list[Decided | None]()
        for one, (found, at) in zip(passed, ruled, strict=not in_order):
            made.append(self._made_now(one, found, at))
            if in_order and made[-1] is None:
                return made[:-1]
        return made

    def record(self, decided: Sequence[Decided]) -> Sequence[Decision] | None:
        """Record what `decide_now` has decided, all together, and return the decisions as they are recorded.

        None, and none of them counts, when that has to be waited for.
        """
        answered = self._observer.decisions([(one.decision, one.asked.parent) for one in decided])
        if answered is not None:
            for one, decision in zip(decided, answered, strict=True):
                self._part_from_retries(one, decision)
        return answered

    def batch(
        self, requests: Sequence[CallRequest], caller: Caller, *, parent: TraceParent = NO_PARENT
    ) -> tuple[Decision, ...]:
        """Decide about several calls on one snapshot, in order. Raises what `authorize` raises.

        Each call sees what the calls before it changed. What changes nothing is recorded together, before anything that
        comes after it.
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
        decisions, unrecorded, ids = list[Decision](), list[Decided](), set[str]()
        try:
            for request, stated in zip(requests, facts, strict=True):
                if request.request_id in ids:
                    # A retry: whether it shares the id of an earlier decision depends on the record of that.
                    decisions += self._recorded_together(unrecorded)
                elif request.request_id:
                    ids.add(request.request_id)
                snapshot = snapshots[request.call.session_handle]
                asked = Asked(request, stated, caller, request.parent or parent, started)
                decided = self._decide(snapshot, asked)
                if decided is not None and decided.settled is None:
                    unrecorded.append(decided)
                    after = decided.snapshot
                else:
                    decisions += self._recorded_together(unrecorded)
                    decision, after = self._answered(decided, snapshot, asked)
                    decisions.append(decision)
                if after is not snapshot:
                    # Other sessions of the batch can have the same ancestors.
                    snapshots = {handle: one.after(after) for handle, one in snapshots.items()}
                started = perf_counter_ns()
        finally:
            # Also when a call refuses the batch: those before it were decided.
            decisions += self._recorded_together(unrecorded)
        return tuple(decisions)

    def list_tools(self, session_handle: str, caller: Caller, *, with_readings: bool = False) -> ToolListing:
        """Return for each tool of the catalogue whether the session could be allowed to call it.

        Raise `NotFoundError` for an unknown handle, `WrongStateError` when the session is not active.
        """
        snapshot = self._snapshots.of_handle(session_handle, caller)
        return tool_listing(snapshot, caller, with_readings=with_readings)

    # The path of a decision: snapshot, gate, look up, judge, remember, settle, record.
    # `_passed` goes up to the look-up, `_ruled` judges and remembers, and `_made` does the rest.

    def _decide(self, snapshot: Snapshot, asked: Asked, tries_left: int | None = None) -> Decided | None:
        """Return the decision, which is not recorded yet, and the snapshot with what the call changed.

        `tries_left` says how often the call can be decided again; None while it has not had its turn. None for a call
        that must have its turn first, and for one that may not wait, but would have to.
        """
        passed = self._passed(snapshot, asked, tries_left)
        return self._made(passed, *self._ruled(passed), tries_left) if isinstance(passed, Passed) else passed

    def _passed(self, snapshot: Snapshot, asked: Asked, tries_left: int | None = None) -> Passed | Decided | None:
        """Have the gate pass a call, and look its ruling up; or return what `_decide` returns for it."""
        tool = gate(snapshot, asked.request.call, asked.caller.bounds)
        gated = perf_counter_ns()
        if isinstance(tool, Refusal):
            return self._refused(snapshot, asked, tool.ruling, gated) if asked.waits else None
        plan = snapshot.bundle.plan(tool)
        settles = self._ledger.settles(snapshot, plan)
        if (plan.in_turn and tries_left is None) or (settles and not asked.waits):
            return None
        found = self._judge.look_up(snapshot, plan, asked)
        return None if found is None else Passed(snapshot, asked, plan, settles, found, gated, perf_counter_ns())

    def _ruled(self, passed: Passed, *, again: bool = False) -> tuple[Found, int]:
        """Return the ruling of a call, and when it was there, in nanoseconds, without the time given to other calls.

        `again` says that it may have been remembered since.
        """
        if isinstance(passed.found, Found):
            return passed.found, passed.looked_up
        began = perf_counter_ns()
        found = self._judge.rule(passed.found, again=again)
        return found, passed.looked_up + perf_counter_ns() - began

    def _made_now(self, passed: Passed, found: Found, ruled: int) -> Decided | None:
        if found.ruling.asks:
            return None
        try:
            return self._made(passed, found, ruled)
        except RequestIdConflictError:
            # A mistake of one caller must not send the calls of others to the threads.
            return None

    def _made(self, passed: Passed, found: Found, ruled: int, tries_left: int | None = None) -> Decided | None:
        """Make the decision about a call from its ruling, which was there at a time in nanoseconds."""
        snapshot, asked, plan = passed.snapshot, passed.asked, passed.plan
        request, caller = asked.request, asked.caller
        ruling, looked_up, seen, matter = found
        # A call that a person can allow has an id of its own: a retry that is allowed later is another decision.
        decision_id = self._decision_id(request, caller, snapshot.now, None if ruling.asks else ruling.outcome)
        times, settled = (asked.started, passed.gated, ruled), None
        if passed.settles or ruling.asks:
            left = _TRIES_AGAIN if tries_left is None else tries_left
            try:
                settled = self._ledger.settle(snapshot, request, caller, ruling, decision_id, seen)
            except ConflictError:
                anew = self._anew(snapshot, request, caller, left, pause=seen is not None)
                if isinstance(anew, Snapshot):
                    return self._decide(anew, asked, left - 1)
                settled = anew
        ids = (decision_id, *self._trace_ids(asked.parent, caller))
        recurs = matter is not None
        matter = matter or matter_of(snapshot, plan.tool, request.call, caller)
        decision = decision_of(ids, ruling, looked_up, matter, snapshot, asked, times, recurs=recurs)
        if settled is None:
            return Decided(decision, ruling, decision.id, None, snapshot, asked)
        whole = with_settled(decision, settled, times)
        return Decided(whole, ruling, decision.id, settled, settled.snapshot, asked)

    def _refused(self, snapshot: Snapshot, asked: Asked, ruling: Ruling, gated: int) -> Decided:
        """Deny a call about which no policy is asked.

        The deny has an id of its own: a retry that passes later is another decision.
        """
        request, caller = asked.request, asked.caller
        tool = snapshot.bundle.catalogue.tool(request.call.server, request.call.tool)
        ids = (self._decision_id(request, caller, snapshot.now, None), *self._trace_ids(asked.parent, caller))
        times = (asked.started, gated, perf_counter_ns())
        matter = matter_of(snapshot, tool, request.call, caller)
        decision = decision_of(ids, ruling, CacheResult.NONE, matter, snapshot, asked, times)
        return Decided(decision, ruling, decision.id, None, snapshot, asked)

    def _answer(self, snapshot: Snapshot, asked: Asked) -> tuple[Decision, Snapshot]:
        """Decide about a call, in its turn if it must have one; return the recorded decision and the snapshot after."""
        return self._answered(self._decide(snapshot, asked), snapshot, asked)

    def _answered(self, decided: Decided | None, snapshot: Snapshot, asked: Asked) -> tuple[Decision, Snapshot]:
        """Record what `_decide` returned for a call, or decide about it in its turn; return what `_answer` does."""
        return self._recorded(decided) if decided is not None else self._answer_in_turn(snapshot, asked)

    def _answer_in_turn(self, snapshot: Snapshot, asked: Asked) -> tuple[Decision, Snapshot]:
        """Decide about a call after those of its tree that came before: else the first changes the counts of all."""
        tries = _TRIES_AT_COUNTS if _sees_counts(snapshot, asked.request.call) else _TRIES_AGAIN
        with ExitStack() as turn:
            try:
                turn.enter_context(self._turns[hash(snapshot.chain[-1].id) % _TURNS].turn())
            except OverloadedError:
                ruling = deny(Basis.LEDGER_UNAVAILABLE, "too many calls of the session wait for each other")
                return self._recorded(self._refused(snapshot, asked, ruling, perf_counter_ns()))
            decided = self._decide(snapshot, asked, tries)
            if decided is None:
                raise AssertionError("a call that has its turn is decided")
            return self._recorded(decided)

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

    def _recorded(self, decided: Decided) -> tuple[Decision, Snapshot]:
        """Record a decision; return it as it is recorded, and the snapshot with what the call changed."""
        answered, settled = self._observer.decision(decided.decision, decided.asked.parent), decided.settled
        self._part_from_retries(decided, answered)
        if settled is None:
            return answered, decided.snapshot
        # A try before this one has used the approval, and was told: it is one use, of one decision.
        retried = decided.decision.id != decided.claimed_id
        if not retried and (event := event_of(settled.access, answered)) is not None:
            self._observer.event(event)
        if not answered.allowed:
            # It could not be recorded: what was not allowed is not done.
            self._ledger.undo(settled)
        return answered, decided.snapshot

    def _recorded_together(self, unrecorded: list[Decided]) -> Sequence[Decision]:
        """Record decisions about calls that have changed nothing, in one write if possible, and empty the list."""
        decided, unrecorded[:] = tuple(unrecorded), ()
        recorded = self.record(decided) if decided else ()
        return [self._recorded(one)[0] for one in decided] if recorded is None else recorded

    def _part_from_retries(self, decided: Decided, answered: Decision) -> None:
        """Let no retry share the id of a decision that became another one after its ruling."""
        request = decided.asked.request
        if answered.ruling is not decided.ruling and request.request_id:
            self._retries.part(decided.asked.caller, request.request_id)

    def _decision_id(self, request: CallRequest, caller: Caller, now: Instant, outcome: Outcome | None) -> str:
        fresh = self._new_id()
        if not request.request_id:
            return fresh
        return self._retries.claim(caller, request.request_id, request.call, fresh, outcome, now)


def _sees_counts(snapshot: Snapshot, call: Call) -> bool:
    """Say whether policies see what the counts of a call are."""
    tool = snapshot.bundle.catalogue.tool(call.server, call.tool)
    return tool is not None and bool(snapshot.bundle.plan(tool).policies.counted)


def _no_trace(_: TraceParent, __: Caller) -> tuple[str, str]:
    return "", ""
