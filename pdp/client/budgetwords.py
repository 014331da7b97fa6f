"""A budget of a session in words for people."""

from __future__ import annotations

from pdp.v1.session_pb2 import Budget


def left_text(budget: Budget) -> str:
    """Return what is left of a budget; and, when other servers hold some of it, how much was spent and how much not."""
    text = f"{budget.left} of {budget.most}"
    # `0` or `0.00`, and nothing by a server that knows no slices.
    if not budget.held.strip("0."):
        return text
    return f"{text}; {budget.spent} spent, {budget.held} held in slices by other servers"
