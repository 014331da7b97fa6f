"""One server with the scenario of the certification, and the door before it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from pdp.testing.inprocess import RunningServer, running_server
from tests.doors.authzen.gateway import Gateway, door, opened, record_files


@pytest.fixture(scope="session")
def records() -> Iterator[RunningServer]:
    """Return a server that decides as the scenario of the certification asks for."""
    with running_server(record_files()) as server:
        yield server


@pytest.fixture(scope="session")
def harness(records: RunningServer) -> Iterator[Gateway]:
    """Return what asks as the certification does, in two sessions that were approved before."""
    handles = {user: opened(records, "record/*", user)[1] for user in ("alice", "bob")}
    bound = ", ".join(f"{user}={handle}" for user, handle in handles.items())
    with door(
        records, bound, objects={"record": ("id", "status", "soft")}, facts=("role",), base="https://pdp.example.org"
    ) as gateway:
        yield gateway


@pytest.fixture(scope="session")
def desk_door(server: RunningServer) -> Iterator[str]:
    """Return the URL of the door before the server of the desk."""
    with door(server) as gateway:
        yield gateway.url


@pytest.fixture
def gateway(
    server: RunningServer, desk_door: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Iterator[Gateway]:
    """Return a gateway in a session of its own at the desk, and look that no secret of it is in any output."""
    caplog.set_level(logging.DEBUG)
    _, handle = opened(server, "desk/*")
    with Gateway(desk_door, server.token("pep"), handle) as gateway:
        yield gateway
    out = "".join([caplog.text, *capfd.readouterr(), *gateway.shown])
    for secret in (handle, handle[6:], gateway.token):
        assert secret not in out
