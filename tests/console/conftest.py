"""The server and the console that the tests of the console share."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from pdp.testing.inprocess import RunningServer, running_server
from tests.console.desk import CALLERS, Browser, Covered, World, console, files

# The browser's driver is in an environment of its own, in which `make people` runs these.
collect_ignore = [] if find_spec("selenium") else ["people"]


@pytest.fixture(scope="package")
def covered() -> Covered:
    """Return what says what answers about the record lack."""
    return Covered(None)


@pytest.fixture(scope="package")
def server(covered: Covered) -> Iterator[RunningServer]:
    """Return a server for all of them."""
    with running_server(files(), callers=CALLERS, coverage=covered) as running:
        yield running


@pytest.fixture(scope="package")
def world(server: RunningServer) -> Iterator[World]:
    """Return the console of an approver on their machine."""
    with console(server) as opened:
        yield opened


@pytest.fixture
def person(world: World) -> Browser:
    """Return the browser of the approver."""
    return world.person()
