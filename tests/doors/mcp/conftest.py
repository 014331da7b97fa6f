"""One PDP for all tests of a module, each of which opens sessions of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pdp.testing.inprocess import RunningServer, running_server
from tests.doors.mcp.conversation import ERAS, FILES
from tests.doors.mcp.webworld import desk_bundle


@pytest.fixture(scope="module")
def pdp() -> Iterator[RunningServer]:
    """Return a PDP whose catalogue knows the small tool server as `files`."""
    with running_server(FILES) as server:
        yield server


@pytest.fixture(scope="module")
def desk_pdp() -> Iterator[RunningServer]:
    """Return a PDP whose catalogue knows the server over HTTP as `desk`."""
    with running_server(desk_bundle()) as server:
        yield server


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> str:
    """Return each era of MCP."""
    found: str = request.param
    return found


@pytest.fixture
def anyio_backend() -> str:
    """Run tests that are coroutines on asyncio."""
    return "asyncio"
