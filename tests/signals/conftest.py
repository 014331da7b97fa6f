"""One server for the tests of each file, and a receiver of signals for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.signals.world import Site, World, served, world


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Serve for all tests of a file."""
    with served() as found:
        yield found


@pytest.fixture
def here(site: Site, tmp_path: Path) -> Iterator[World]:
    """Provide a receiver."""
    with world(*site, tmp_path) as found:
        yield found
