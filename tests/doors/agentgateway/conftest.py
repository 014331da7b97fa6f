"""The door of agentgateway before the server of the desk."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from pdp.testing.inprocess import RunningServer
from tests.doors.agentgateway.desk import DeskTarget
from tests.doors.agentgateway.gateway import Gateway, door_of
from tests.doors.conformance import opened


@pytest.fixture(scope="session")
def desk_door(server: RunningServer) -> Iterator[str]:
    """Return the address of the door before the server of the desk."""
    with door_of(server) as address:
        yield address


@pytest.fixture
def handle(server: RunningServer) -> str:
    """Return the handle of a session at the desk. Other tests move the clock of its server: none is for them all."""
    return opened(server)[1]


@pytest.fixture
def desk() -> DeskTarget:
    """Return what is behind the gateway."""
    return DeskTarget()


@pytest.fixture
def gateway(
    server: RunningServer,
    desk_door: str,
    desk: DeskTarget,
    handle: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> Iterator[Gateway]:
    """Return a gateway before the desk, and look that no secret is in any output."""
    caplog.set_level(logging.DEBUG)
    with Gateway(desk_door, {"desk": desk}) as gateway:
        yield gateway
    out = "".join([caplog.text, *capfd.readouterr(), *gateway.shown, str(desk.got)])
    for secret in (handle, handle[6:], server.token("pep")):
        assert secret not in out
