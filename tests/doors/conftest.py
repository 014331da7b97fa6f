"""The server that the cases of doors are played against."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from pdp.testing.inprocess import RunningServer, running_server
from pdp.testing.otlp import OTLPReceiver
from tests.doors.desk import files

# The agent frameworks are in environments of their own, in which `make doors` and `make doors-long` run their tests.
_FRAMEWORKS = {"adapters": "langchain", "apart": "strands", "guarded": "crewai"}
collect_ignore = [folder for folder, framework in _FRAMEWORKS.items() if not find_spec(framework)]


@pytest.fixture(scope="session")
def receiver() -> Iterator[OTLPReceiver]:
    """Return a receiver of OpenTelemetry, to which all commands send."""
    with OTLPReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    """Return a server with one rule for each tool of the desk."""
    with running_server(files()) as server:
        yield server
