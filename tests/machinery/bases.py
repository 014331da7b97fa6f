"""Where each basis comes from that no check of the gate denies by: the one table of bases for tests."""

from __future__ import annotations

from typing import Final

from pdp.model import Basis

POLICIES: Final = frozenset({Basis.PERMIT, Basis.FORBID, Basis.DEFAULT_DENY, Basis.POLICY_ERROR})
AUTHORIZER: Final = frozenset(
    {Basis.INVALID_ARGUMENTS, Basis.ANCESTOR_DENIED, Basis.BUDGET_EXHAUSTED, Basis.APPROVAL_REQUIRED}
)
# No case shows them.
UNSHOWN: Final = frozenset({Basis.RECORD_UNAVAILABLE, Basis.LEDGER_UNAVAILABLE})
ELSEWHERE: Final = POLICIES | AUTHORIZER | UNSHOWN
