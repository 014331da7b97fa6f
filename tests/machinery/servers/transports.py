"""On which transports the tests of servers run: some on both each time, and all of them on the one that is asked for.

`TEST_TRANSPORT=loop pytest tests/server` runs every server of these tests, in process or not, on the loop.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

import pytest

from pdp.config.settings import ServerSettings
from pdp.server.service import PDPServer
from pdp.serving.transports import GRPC, LOOP
from pdp.testing.inprocess import running_server

TESTS: Final = Path(__file__).parents[2]
VARIABLE: Final = "TEST_TRANSPORT"

# Tests of what a transport does itself, and quick. They run on both each time.
ON_BOTH: Final = frozenset(
    {
        "identity/test_authentication.py",
        "identity/test_mutual_tls.py",
        "server/test_metadata.py",
        "server/test_rpcs.py",
        "server/test_streams.py",
        "serving/test_boundary.py",
        "serving/test_half_open.py",
        "serving/test_listener.py",
        "serving/test_tls_reload.py",
        "serving/test_transports.py",
        "serving/test_uploads.py",
    }
)


def chosen() -> str:
    """Return the transport of servers that no test chooses one for."""
    return os.environ.get(VARIABLE, GRPC)


def environment() -> dict[str, str]:
    """Return the setting of servers in processes of their own."""
    return {} if chosen() == GRPC else {"PDP_SERVER__LISTENER": chosen()}


def choose() -> None:
    """Make the chosen transport the default of servers in this process."""
    settings, server, here = (cast("Any", one) for one in (ServerSettings.__init__, PDPServer.__init__, running_server))
    settings.__kwdefaults__["listener"] = chosen()
    server.__kwdefaults__["transport"] = here.__wrapped__.__kwdefaults__["transport"] = chosen()


def parameters(file: Path) -> Sequence[Any]:
    """Return the transports of a file's tests, as parameters of `pytest`."""
    # The names of tests stay as they are: pages name them.
    first = pytest.param(chosen(), id=pytest.HIDDEN_PARAM)
    if file.relative_to(TESTS).as_posix() not in ON_BOTH or chosen() != GRPC:
        return [first]
    missing = importlib.util.find_spec("ngh2") is None and os.environ.get("CI") != "true"
    return [first, pytest.param(LOOP, marks=pytest.mark.skipif(missing, reason="`ngh2` is not installed: run `make`"))]
