"""What people read of a budget."""

from __future__ import annotations

import pytest

from pdp.client.budgetwords import left_text
from pdp.v1.session_pb2 import Budget


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (Budget(most="20", left="13", spent="3", held="4"), "13 of 20; 3 spent, 4 held in slices by other servers"),
        (Budget(most="20.0000", left="17.0000", spent="3.0000", held="0.0000"), "17.0000 of 20.0000"),
        (Budget(most="20", left="17"), "17 of 20"),
    ],
)
def test_what_others_hold_is_told_from_what_is_spent(budget: Budget, expected: str) -> None:
    """Where they hold something; an earlier server says nothing of it."""
    assert expected == left_text(budget)
