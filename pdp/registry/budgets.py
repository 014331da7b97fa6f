"""What is left of the budgets of a session, for those who look at it."""

from __future__ import annotations

from dataclasses import dataclass

from pdp.clock import Instant
from pdp.decision.budgets import left
from pdp.model import Session
from pdp.policy.budgets import Budget, budgets_of
from pdp.sessions.historycontract import SessionHistory
from pdp.sessions.values import Used


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetState:
    """One budget of a session by the name of its term: `most` in all, and what it is made up of, as texts of numbers.

    So much was `spent`, and is `left` for calls at this server. What other servers have `held` in slices they may have
    spent since.
    """

    name: str
    most: str
    left: str
    spent: str
    held: str


def budget_states(session: Session, history: SessionHistory, now: Instant) -> tuple[BudgetState, ...]:
    """Return the budgets of a session, sorted by name. Raise `UnavailableError` when it is not known what is left."""
    budgets = budgets_of(session.terms_json)
    known = history.used(session.id) if budgets else {}
    return tuple(_state(one, known.get(one.name, Used(0, 0)), now) for one in budgets)


def _state(budget: Budget, used: Used, now: Instant) -> BudgetState:
    remaining = left(budget, used, now.wall_at)
    held = 0 if used.window < budget.window(now.wall_at) else used.held
    counted = budget.most, remaining, budget.most - remaining - held, held
    most, left_text, spent, held_text = (str(budget.value(one)) for one in counted)
    return BudgetState(name=budget.name, most=most, left=left_text, spent=spent, held=held_text)
