"""A budget of a session in words for people."""

from __future__ import annotations

from decimal import Decimal

from pdp.v1.session_pb2 import Budget


def left_text(budget: Budget) -> str:
    """Return what is left of a budget; and, when other servers hold some of it, how much was spent and how much not."""
    text = f"{budget.left} of {budget.most}"
    # A server of before slices says nothing of them.
    if not Decimal(budget.held or "0"):
        return text
    return f"{text}; {budget.spent} spent, {budget.held} held in slices by other servers"
