"""The server that the cases of doors are played against."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from pdp.testing.inprocess import RunningServer, running_server
from tests.doors.desk import files

# The agent frameworks are in an environment of their own, in which `make doors` runs their tests.
collect_ignore = [] if find_spec("langchain") else ["adapters"]


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    """Return a server with one rule for each tool of the desk."""
    with running_server(files()) as server:
        yield server
