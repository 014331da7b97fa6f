"""Hold an explanation against the decision that it explains."""

from __future__ import annotations

from pdp.decision.explanation import Explanation, SessionExplanation
from pdp.decision.ruling import lifted
from pdp.model import Basis, Decision, Ruling
from pdp.policy.conditions import Value


def assert_explains(explanation: Explanation, decision: Decision) -> None:
    """Check that an explanation says what was decided, and that no condition's value contradicts it."""
    if explanation.ruling.basis is Basis.APPROVAL_REQUIRED:
        _assert_asks(explanation.ruling, decision.ruling)
    else:
        assert decision.ruling == explanation.ruling
    assert explanation.summary.startswith("allowed: " if explanation.ruling.allowed else "denied: ")
    assert explanation.summary.isprintable()
    for one in explanation.sessions:
        _assert_consistent(one)


def _assert_asks(explained: Ruling, decided: Ruling) -> None:
    """Check the decision about a call that a person can allow: an explanation does not say whether one has."""
    if decided.allowed:
        assert lifted(explained) == decided
    elif decided.basis is Basis.FORBID:
        assert explained.policies == decided.policies
        assert explained.advice == decided.advice[1:]
    elif decided.basis is not Basis.BUDGET_EXHAUSTED:
        assert explained == decided


def _assert_consistent(one: SessionExplanation) -> None:
    ruling = one.ruling
    for result in one.policies:
        first = next((part.value for part in result.parts if part.value is not Value.TRUE), Value.TRUE)
        assert result.value is first, result.policy.id
    matched = {result.policy.id: result.policy.effect for result in one.policies if result.value is Value.TRUE}
    erring = [result.policy.id for result in one.policies if result.value is Value.ERROR]
    if ruling.basis is Basis.POLICY_ERROR:
        assert sorted(erring) == list(ruling.errors)
        return
    assert [] == erring
    forbids = sorted(name for name, effect in matched.items() if effect == "forbid")
    permits = sorted(name for name, effect in matched.items() if effect == "permit")
    assert (forbids or permits) == list(ruling.policies)
    forbidden = Basis.APPROVAL_REQUIRED if ruling.asks else Basis.FORBID
    assert ruling.basis is (forbidden if forbids else Basis.PERMIT if permits else Basis.DEFAULT_DENY)
