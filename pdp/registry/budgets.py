"""What is left of the budgets of a session, for those who look at it."""

from __future__ import annotations

from dataclasses import dataclass

from pdp.clock import Instant
from pdp.decision.budgets import left
from pdp.model import Session
from pdp.policy.budgets import budgets_of
from pdp.sessions.store import SessionHistory
from pdp.sessions.values import Used


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetState:
    """One budget of a session by the name of its term: `most` in all, and what is `left`, as texts of numbers."""

    name: str
    most: str
    left: str


def budget_states(session: Session, history: SessionHistory, now: Instant) -> tuple[BudgetState, ...]:
    """Return the budgets of a session, sorted by name. Raise `UnavailableError` when it is not known what is left."""
    budgets = budgets_of(session.terms_json)
    known = history.used(session.id) if budgets else {}
    return tuple(
        BudgetState(
            name=one.name,
            most=str(one.value(one.most)),
            left=str(one.value(left(one, known.get(one.name, Used(0, 0)), now.wall_at))),
        )
        for one in budgets
    )
