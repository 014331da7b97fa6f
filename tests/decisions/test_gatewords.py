"""What is said of a call that the gate refuses."""

from __future__ import annotations

import pytest

from pdp.clock import Instant
from pdp.decision.gate import Snapshot, deny
from pdp.decision.gatewords import gate_words
from pdp.model import Basis, Call
from pdp.testing.stores.samples import make_session

CALL = Call(session_handle="h", server="files", tool="read")
NOW = Instant(wall_at=1000.0, boot_at=100.0, boot_id="boot-1")
NOT_OF_THE_GATE = {
    *(Basis.PERMIT, Basis.FORBID, Basis.DEFAULT_DENY, Basis.POLICY_ERROR, Basis.INVALID_ARGUMENTS),
    *(Basis.ANCESTOR_DENIED, Basis.APPROVAL_REQUIRED, Basis.BUDGET_EXHAUSTED, Basis.RECORD_UNAVAILABLE),
}


@pytest.mark.parametrize("basis", sorted(NOT_OF_THE_GATE, key=str), ids=str)
def test_a_basis_that_is_none_of_the_gates_has_no_words_of_the_gate(basis: Basis) -> None:
    """To say that a session was revoked in 1970 would be worse than to fail."""
    snapshot = Snapshot(bundle=None, chain=(make_session("own"),), now=NOW, wall_at=NOW.wall_at)  # type: ignore[arg-type]  # not looked at

    with pytest.raises(AssertionError, match=basis.value):
        gate_words(snapshot, CALL, deny(basis))
