"""What a deny says: what to do, for every basis, and nothing that an agent must not read."""

from __future__ import annotations

import pytest

from pdp.decision.advice import ADVICE, advice
from pdp.model import Basis, Outcome, Ruling


def test_every_basis_has_its_advice() -> None:
    """Each deny says what to do, in one line."""
    assert set(Basis) == ADVICE.keys()
    assert [basis for basis, text in ADVICE.items() if not text.isprintable() or not text] == [Basis.PERMIT]


def test_an_allow_has_no_advice() -> None:
    """What may go ahead needs none."""
    assert advice(Ruling(outcome=Outcome.ALLOW, basis=Basis.PERMIT)) == ()


@pytest.mark.parametrize("basis", sorted(set(Basis) - {Basis.PERMIT, Basis.INVALID_ARGUMENTS}, key=str))
def test_a_deny_repeats_nothing_of_the_policies(basis: Basis) -> None:
    """Policy ids, details and other sessions stay out of what an agent reads."""
    ruling = Ruling(
        outcome=Outcome.DENY,
        basis=basis,
        policies=("secret/policy",),
        errors=("secret/policy",),
        detail="secret",
        ancestor_id="ses_secret",
        ancestor_basis=Basis.FORBID,
    )

    assert advice(ruling) == (ADVICE[basis],)
    assert "secret" not in ADVICE[basis]


def test_arguments_that_do_not_fit_are_named() -> None:
    """Beside the advice stands which argument is wrong and by which rule."""
    ruling = Ruling(outcome=Outcome.DENY, basis=Basis.INVALID_ARGUMENTS, detail="`$.a`: is required")

    assert advice(ruling) == (ADVICE[Basis.INVALID_ARGUMENTS], "`$.a`: is required")


def test_what_the_forbids_say_comes_after_our_own_line() -> None:
    """An author knows what else the agent can do."""
    ruling = Ruling(outcome=Outcome.DENY, basis=Basis.FORBID, advice=("Ask the owner.", "Or read it."))

    assert advice(ruling) == (ADVICE[Basis.FORBID], "Ask the owner.", "Or read it.")
