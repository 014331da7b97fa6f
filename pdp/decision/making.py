"""Make the value of a decision from what was found about its call."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter_ns

from pdp.decision.judging import Asked
from pdp.decision.ledger import Settled
from pdp.decision.snapshot import Snapshot
from pdp.model import CacheResult, Decision, Matter, Ruling


def decision_of(
    ids: tuple[str, str, str],
    ruling: Ruling,
    looked_up: CacheResult,
    matter: Matter,
    snapshot: Snapshot,
    asked: Asked,
    times: tuple[int, int, int],
    *,
    recurs: bool = False,
) -> Decision:
    """Return a decision that the ledger has not seen.

    `ids` are its own, that of its trace and that of its span; `times` say in nanoseconds when it began, when the gate
    had passed it, and when its ruling was there.
    """
    request, caller = asked.request, asked.caller
    decision_id, trace_id, span_id = ids
    started, gated, ended = times
    return Decision(
        id=decision_id,
        matter=matter,
        ruling=ruling,
        definition_digest=request.call.definition_digest,
        caller=caller,
        cache_result=looked_up,
        decided_at=snapshot.wall_at,
        # From the clock's nanoseconds, since a sum of the phases would show spurious digits.
        duration_us=(ended - started) / 1000,
        reportable=snapshot.bundle.takes_reports and ruling.allowed and caller.sees_results,
        recurs=recurs,
        phases=(("gate", (gated - started) / 1000), ("policy", (ended - gated) / 1000)),
        request_id=request.request_id,
        tool_call_id=request.tool_call_id,
        trace_id=trace_id,
        span_id=span_id,
    )


def with_settled(decision: Decision, settled: Settled, times: tuple[int, int, int]) -> Decision:
    """Return a decision with what the ledger made of it. `times` are those of `decision_of`."""
    (started, _, ruled), ended = times, perf_counter_ns()
    ruling, access = settled.ruling, settled.access
    return replace(
        decision,
        id=settled.use.decision_id if settled.use is not None else decision.id,
        ruling=ruling,
        duration_us=(ended - started) / 1000,
        reportable=settled.snapshot.bundle.takes_reports and ruling.allowed and decision.caller.sees_results,
        recurs=decision.recurs and ruling is decision.ruling,
        labels_added=settled.labels_added,
        debits=settled.debits,
        access_request_id=access.id if access else "",
        access_ends_at=access.deadline.wall_at if access and not ruling.allowed else 0.0,
        counted_as=settled.counted_as,
        phases=(*decision.phases, ("ledger", (ended - ruled) / 1000)),
    )
