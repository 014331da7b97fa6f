"""The table of what `make proofs` runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import PROOFS


def test_every_proof_of_the_table_exists(project_root: Path) -> None:
    """What was moved is not forgotten in the table, where it would be run as a test."""
    assert [] == [name for name in PROOFS if not (project_root / "tests" / name).exists()]


def test_this_is_no_proof(request: pytest.FixtureRequest) -> None:
    """What is not in the table is run by `make test`."""
    assert request.node.get_closest_marker("proof") is None
