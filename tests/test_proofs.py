"""What `make proofs` runs, and `make test` does not."""

from __future__ import annotations

import pytest


def test_this_is_no_proof(request: pytest.FixtureRequest) -> None:
    """What is not in `tests/proofs` is run by `make test`."""
    assert request.node.get_closest_marker("proof") is None
