"""What a call takes of the budgets of its session and of all above it, and the deny when too little is left."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from pdp.decision.ruling import ancestor_deny, deny
from pdp.decision.snapshot import Snapshot
from pdp.foundation.jsontext import parse_object
from pdp.limits import Limits
from pdp.model import Basis, Caller, CallRequest, Ruling
from pdp.policy.budgets import MOST, Budget, budgets_of, units
from pdp.policy.tools.catalogue import Tool
from pdp.sessions.historycontract import SessionHistory
from pdp.sessions.values import Addend, Charge, Count, Debit, Used

_NEVER_USED = Used(0, 0)
NONE_SEEN: Mapping[tuple[str, str], Count] = MappingProxyType({})


class Owed(NamedTuple):
    """What a call takes of a budget; `place` is the index of its session in the chain."""

    place: int
    budget: Budget
    debit: Debit


def owes(snapshot: Snapshot, tool: Tool, budgets: Callable[[str], tuple[Budget, ...]]) -> bool:
    """Say whether an allowed call of a tool takes anything, of the budgets of its session or of those above it.

    `budgets` returns those of some terms.
    """
    # A comprehension would cost as much as the rest: this runs for each call.
    for session in snapshot.chain:
        for budget in budgets(session.terms_json):
            if budget.counts(tool):
                return True
    return False


def owed_by(
    snapshot: Snapshot,
    request: CallRequest,
    limits: Limits,
    budgets: Callable[[str], tuple[Budget, ...]] = budgets_of,
) -> tuple[Owed, ...]:
    """Return what an allowed call takes: first of the budgets of its session, then of those above it.

    `budgets` returns those of some terms.
    """
    return tuple(_owed(snapshot, request, limits, budgets))


def _owed(
    snapshot: Snapshot, request: CallRequest, limits: Limits, budgets: Callable[[str], tuple[Budget, ...]]
) -> Iterator[Owed]:
    tool = snapshot.bundle.catalogue.tools[request.call.action]
    summed: int | None = None
    for place, session in enumerate(snapshot.chain):
        for budget in budgets(session.terms_json):
            if not budget.counts(tool):
                continue
            if budget.summed and summed is None:
                # The arguments were checked when the call was allowed.
                summed = units(parse_object(request.call.arguments_json, limits)[tool.sums])
            debit = Debit(
                session_id=session.id,
                budget=budget.name,
                amount=summed if budget.summed and summed is not None else 1,
                most=budget.most,
                window=budget.window(snapshot.now.wall_at),
                ends_at=session.deadline.wall_at,
                slice=budget.most // parts if (parts := snapshot.bundle.budget_slices.get(budget.name)) else 0,
            )
            yield Owed(place, budget, debit)


def charge_of(
    owed: tuple[Owed, ...],
    snapshot: Snapshot,
    request: CallRequest,
    caller: Caller,
    seen: Mapping[tuple[str, str], Count] = NONE_SEEN,
) -> Charge:
    """Return the charge for what a call takes and is counted as; `seen` holds the counts that the policies saw."""
    names = snapshot.bundle.counted_as.get(request.call.action, ())
    return Charge(
        debits=tuple([one.debit for one in owed]),
        retry_digest=retry_digest(request, caller),
        now=snapshot.now,
        addends=tuple(
            [Addend(session.id, name, session.deadline.wall_at) for session in snapshot.chain for name in names]
        ),
        seen=seen,
        tree_id=snapshot.chain[-1].id,
    )


def uncountable(owed: tuple[Owed, ...], snapshot: Snapshot) -> Ruling | None:
    """Return the deny of a call whose amount cannot be added up; None for any other."""
    for one in owed:
        if not 0 <= one.debit.amount <= MOST:
            return _deny(one, snapshot, f"the amount of the call cannot be counted for the budget `{one.budget.name}`")
    return None


def exhausted(owed: tuple[Owed, ...], debit: Debit, snapshot: Snapshot) -> Ruling:
    """Return the deny of a call for which too little is left."""
    one = next(one for one in owed if one.debit is debit)
    return _deny(one, snapshot, f"too little is left of the budget `{one.budget.name}`")


def foreseen(snapshot: Snapshot, request: CallRequest, limits: Limits, history: SessionHistory) -> Ruling | None:
    """Return the deny that an allowed call would get now for its budgets; None when enough is left of each."""
    owed = owed_by(snapshot, request, limits)
    if not owed or (refused := uncountable(owed, snapshot)):
        return refused if owed else None
    known = {session.id: history.used(session.id) for session in snapshot.chain}
    for _, budget, debit in owed:
        if debit.amount > left(budget, known[debit.session_id].get(budget.name, _NEVER_USED), snapshot.now.wall_at):
            return exhausted(owed, debit, snapshot)
    return None


def left(budget: Budget, used: Used, wall_at: float) -> int:
    """Return what is left of a budget at a time in unix seconds."""
    return budget.most if used.window < budget.window(wall_at) else budget.most - used.used


def _deny(one: Owed, snapshot: Snapshot, detail: str) -> Ruling:
    session = snapshot.chain[one.place]
    denied = deny(Basis.BUDGET_EXHAUSTED, f"{detail} of session `{session.id}`{' above' if one.place else ''}")
    return ancestor_deny(session, denied) if one.place else denied


def retry_digest(request: CallRequest, caller: Caller) -> bytes:
    """Return what is the same for each retry of a call, and for no other call; empty when it cannot be retried."""
    if not request.request_id:
        return b""
    call = request.call
    texts = (
        *(caller.tenant, caller.kind, caller.id, request.request_id),
        *(call.session_handle, call.server, call.tool, call.definition_digest),
    )
    parts = [*(text.encode("utf-8", "surrogatepass") for text in texts), call.arguments_json, call.facts_json]
    # The lengths separate the parts.
    lengths = " ".join(str(len(part)) for part in parts).encode()
    return hashlib.sha256(b"\n".join((lengths, *parts))).digest()
