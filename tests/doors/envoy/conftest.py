"""The door of Envoy before the server of the desk."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from pdp.testing.inprocess import RunningServer
from tests.doors.envoy.asker import Asker, door, opened


@pytest.fixture(scope="session")
def desk_door(server: RunningServer) -> Iterator[str]:
    """Return the address of the door before the server of the desk."""
    with door(server) as asker:
        yield asker.address


@pytest.fixture
def envoy(
    server: RunningServer, desk_door: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Iterator[Asker]:
    """Return what asks in a session of its own at the desk, and look that no secret of it is in any output."""
    caplog.set_level(logging.DEBUG)
    _, handle = opened(server)
    with Asker(desk_door, handle, {"server": "desk"}) as asker:
        yield asker
    out = "".join([caplog.text, *capfd.readouterr(), *asker.shown])
    for secret in (handle, handle[6:], server.token("pep")):
        assert secret not in out
