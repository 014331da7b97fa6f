"""The console that the tests in a real browser share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pdp.testing.inprocess import RunningServer
from tests.console.desk import World, console


@pytest.fixture(scope="module")
def world(server: RunningServer) -> Iterator[World]:
    """Return the console of a person who may open every page."""
    with console(server, "overseer") as opened:
        yield opened
