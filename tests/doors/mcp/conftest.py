"""One PDP for all tests of a module, each of which opens sessions of its own."""

from __future__ import annotations

import asyncio
import inspect
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


# One loop for all tests: gRPC's own thread still speaks to that of an earlier one when it is closed.
_RUNNER = asyncio.Runner()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    _RUNNER.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True
