"""Lints, slices and what is remembered never contradict the engine; and a wrong one would be noticed."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Any
from unittest.mock import patch

import pytest

from pdp.foundation.threads import on_large_stack
from tests.machinery.seeds import fresh_seed
from tests.machinery.witness import contradictions, world_read_once

# The mistakes below are all found in the first 105; the sets that show one before others do are looked at first.
SETS = 120
SHOWING = (6, 9, 10, 23, 27, 29, 70, 104)
LONG_SETS = 20_000


def test_claims_hold_on_random_sets() -> None:
    """What never matches is in no reason and no error, what is shadowed changes nothing, slices answer as the whole.

    And two calls that differ only in what no policy reads get one answer.
    """
    counts = hold(SETS)

    assert counts["never"] > SETS / 10
    assert counts["shadowed"] > SETS / 10
    assert counts["allowed"] > SETS
    assert counts["failed"] > SETS / 20
    assert counts["twins"] > SETS
    assert counts["twins_in_time"] > SETS / 5


@pytest.mark.long
def test_claims_hold_on_many_random_sets() -> None:
    """The same on many more sets, and from a fresh seed."""
    assert hold(LONG_SETS, first=fresh_seed())["sets"] == LONG_SETS


# What to replace by what; each is a mistake that would let a lint or a slice claim too much.
DEFECTS: list[tuple[str, Any]] = [
    ("pdp.policy.lint.truth._Known._known_below", lambda *_: False),
    ("pdp.policy.lint.truth._Known._resource_below", lambda *_: False),
    ("pdp.policy.lint.truth._Known.has", lambda *_: False),
    ("pdp.policy.lint.truth._within", lambda *_: False),
    ("pdp.policy.lint.match.cannot_fail", lambda _: True),
    ("pdp.policy.lint.match._covers", lambda above, policy: set(above.keys) <= set(policy.keys)),
    (
        "pdp.policy.lint.match._covers",
        lambda above, policy: above.effect == policy.effect and set(above.keys) <= set(policy.keys),
    ),
    ("pdp.policy.analysis.moments", lambda _: []),
    ("pdp.policy.moments.bisect_right", bisect_left),
    ("pdp.policy.reading.Reading.place_in_time", lambda *_: ()),
    ("pdp.policy.reading._INPUT", "context.input.n"),
    ("pdp.policy.reading._OF_THE_SESSION", frozenset({"context.agent", "context.session", "labels", "context.caller"})),
    ("pdp.policy.child.compile.action_scope", lambda tree: [tree["action"].get("entity", {}).get("id", "alpha/put")]),
]


@pytest.mark.parametrize(("place", "mistake"), DEFECTS, ids=[f"{n}-{place}" for n, (place, _) in enumerate(DEFECTS)])
def test_wrong_claim_is_noticed(place: str, mistake: object) -> None:
    """With a mistake put into a lint, slicing or what is remembered, a random set contradicts it."""
    numbers = (*SHOWING, *range(SETS))
    with world_read_once(), patch(place, mistake):
        found = on_large_stack(lambda: next((n for n in numbers if contradictions(n, Counter())), None))

    assert found is not None


def hold(sets: int, first: int = 0) -> Counter[str]:
    """Check so many sets, and return what was counted."""
    print(f"seeds {first} to {first + sets - 1}")  # noqa: T201 - a failure is to be found again
    counts: Counter[str] = Counter()
    with world_read_once():
        wrong = on_large_stack(lambda: [text for n in range(first, first + sets) for text in contradictions(n, counts)])
    print(dict(counts))  # noqa: T201 - what the proof covered

    assert [] == wrong

    return counts
