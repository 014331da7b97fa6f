"""The ruling about a call that the gate has passed: as it is remembered, or as the policies are asked for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from pdp.decision.cache import DecisionCache, Key, call_key, read_key
from pdp.decision.counts import SeenCounts
from pdp.decision.ledger import Ledger
from pdp.decision.ruling import call_facts, deny, judge_chain, of_this_call, seen_targets
from pdp.decision.snapshot import Snapshot
from pdp.decision.values import names_in_results
from pdp.errors import InvalidArgumentsError, InvalidJSONError, OverloadedError, UnavailableError
from pdp.foundation.jsontext import digest
from pdp.limits import Limits
from pdp.model import Basis, CacheResult, Call, Caller, CallRequest, Matter, Ruling, TraceParent
from pdp.policy.plan import Plan
from pdp.policy.question import Facts
from pdp.policy.tools.catalogue import Tool
from pdp.sessions.historycontract import SessionHistory
from pdp.sessions.lifecycle import earliest_end


class Asked(NamedTuple):
    """A call as it is decided, with the facts that its PEP vouches for. `started` is in nanoseconds.

    `waits` says whether the decision may wait: for the store, for other calls, or for policies that take long.
    """

    request: CallRequest
    facts: Mapping[str, Any]
    caller: Caller
    parent: TraceParent
    started: int
    waits: bool = True


class Found(NamedTuple):
    """A ruling, whether it was remembered, and the counts that the policies saw.

    `matter` is what the decision is about, where that was remembered with the ruling.
    """

    ruling: Ruling
    looked_up: CacheResult
    seen: SeenCounts | None = None
    matter: Matter | None = None


class Question(NamedTuple):
    """What the policies are to be asked about a call.

    Their ruling is remembered under `key`; None when it may not be.
    """

    snapshot: Snapshot
    plan: Plan
    asked: Asked
    facts: Facts
    key: Key | None


class Judge:
    """Finds the rulings about calls. INVARIANT: the gate has passed each on the same snapshot. Safe for threads."""

    def __init__(self, *, cache: DecisionCache, history: SessionHistory, ledger: Ledger, limits: Limits) -> None:
        self._cache = cache
        self._history = history
        self._ledger = ledger
        self._limits = limits

    def look_up(self, snapshot: Snapshot, plan: Plan, asked: Asked) -> Found | Question | None:
        """Ask the cache; return what to ask the policies if it has no ruling.

        The cache is asked for a call with the same bytes, then for one in which the policies can read the same. Where
        policies see the targets of calls, it is asked only for the latter, which holds where their names come from.
        Where they see counts, which are returned too, it is not asked. None for a call that may not wait, unless its
        ruling is remembered, or found quickly.
        """
        bundle, chain, now = snapshot.bundle, snapshot.chain, snapshot.now
        call, caller, tool = asked.request.call, asked.caller, plan.tool
        place = plan.policies.reading.place_in_time(snapshot.wall_at)
        by_call = call_key(bundle.version, chain, call, caller, place) if plan.by_call else None
        if by_call and (found := self._cache.get(by_call, now)) is not None:
            return Found(found.ruling, CacheResult.HIT, None, found.matter)
        if not (asked.waits or plan.types_quickly(call.arguments_json)):
            return None
        try:
            find = names_in_results(self._history, chain, call.session_handle)
            targets = seen_targets(bundle, chain, tool, find)
            facts = call_facts(tool, call, caller.id, asked.facts, self._limits, targets)
        except (InvalidJSONError, InvalidArgumentsError) as error:
            return Found(deny(Basis.INVALID_ARGUMENTS, str(error)), CacheResult.NONE)
        by_reading = None
        if plan.policies.reading.cacheable:
            read = plan.policies.reading.part(facts.resource, facts.context, facts.targets)
            by_reading = read_key(bundle.version, chain, call, read, place)
            if (found := self._cache.get(by_reading, now)) is not None:
                ruling = of_this_call(found.ruling, chain, tool, facts)
                if not by_call:
                    return Found(ruling, CacheResult.HIT)
                matter = matter_of(snapshot, tool, call, caller)
                self._cache.put(by_call, ruling, found.end, now, matter)
                return Found(ruling, CacheResult.HIT, matter=matter)
        quickly = asked.waits or plan.judges_quickly(sessions=len(chain))
        return Question(snapshot, plan, asked, facts, by_reading) if quickly else None

    def rule(self, question: Question, *, again: bool = False) -> Found:
        """Return the ruling on a question; with `again`, look first whether it has been remembered since."""
        return (self._remembered(question) if again else None) or self._judged(question)

    def _remembered(self, question: Question) -> Found | None:
        snapshot, plan, _, facts, key = question
        found = self._cache.get(key, snapshot.now) if key else None
        return (
            None
            if found is None
            else Found(of_this_call(found.ruling, snapshot.chain, plan.tool, facts), CacheResult.HIT)
        )

    def _judged(self, question: Question) -> Found:
        """Ask the policies, and remember their ruling."""
        snapshot, plan, _, facts, key = question
        if key is None:
            return self._judged_past_cache(question)
        chain, now = snapshot.chain, snapshot.now
        general = judge_chain(snapshot.bundle, chain, facts, snapshot.wall_at)
        ruling = of_this_call(general, chain, plan.tool, facts)
        if Basis.POLICY_ERROR in (ruling.basis, ruling.ancestor_basis) or ruling.basis is Basis.APPROVAL_REQUIRED:
            return Found(ruling, CacheResult.BYPASS)
        # Most calls are never repeated to the byte: those that are get a key of their own with their first repetition.
        self._cache.put(key, general, earliest_end(chain, now), now)
        return Found(ruling, CacheResult.MISS)

    def _judged_past_cache(self, question: Question) -> Found:
        snapshot, plan, asked, facts, _ = question
        ruling, seen = None, None
        if names := plan.policies.counted:
            try:
                seen = self._ledger.counts(snapshot, asked.request, asked.caller, names)
            except (UnavailableError, OverloadedError) as error:
                return Found(deny(Basis.LEDGER_UNAVAILABLE, str(error)), CacheResult.BYPASS)
            facts, ruling = replace(facts, counted=seen.counted), seen.unknown
        ruling = ruling or judge_chain(snapshot.bundle, snapshot.chain, facts, snapshot.wall_at)
        return Found(of_this_call(ruling, snapshot.chain, plan.tool, facts), CacheResult.BYPASS, seen)


def matter_of(snapshot: Snapshot, tool: Tool | None, call: Call, caller: Caller) -> Matter:
    """Return what a decision is about. INVARIANT: `call_key` determines all of it for a call that passed the gate."""
    own = snapshot.chain[0] if snapshot.chain else None
    return Matter(
        session_id=own.id if own else "",
        session_epoch=own.epoch if own else 0,
        ancestor_ids=own.ancestor_ids if own else (),
        user=own.user if own else "",
        agent=own.agent if own else "",
        # The auditor of the caller's tenant sees a call with an unknown or foreign handle.
        tenant=own.tenant if own else caller.tenant,
        environment=own.environment if own else "",
        opened_by=own.opened_by if own else "",
        server=call.server,
        tool=call.tool,
        arguments_digest=digest(call.arguments_json),
        catalogue_digest=tool.definition_digest if tool else "",
        bundle_version=snapshot.bundle.version,
    )
