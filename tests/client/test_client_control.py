"""What ends authority is asked at the control address first, and at the main one when that is of no use."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from pdp.client import AsyncClient, Client, PDPClientError
from pdp.client import control as way
from pdp.client.control import may_be_asked_elsewhere
from pdp.client.operations import (
    Method,
    Operation,
    check_bundle,
    deny_session,
    end_session,
    reload_bundle,
    revoke_sessions,
)
from pdp.model import Role
from pdp.server.rpcs import CONTROL, RPCS
from tests.machinery.servers.running import PATIENCE
from tests.machinery.servers.served import Served, served

Revoke = Callable[[Served, str, str], tuple[str, ...]]


@pytest.fixture(autouse=True)
def _reached_however_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have clients wait for the control address: on a busy machine the product's times can pass."""
    for name in ("REACH_SECONDS", "_ANSWER_SECONDS"):
        monkeypatch.setattr(way, name, PATIENCE)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Served]:
    """Return a server with a control address."""
    with served(tmp_path) as running:
        yield running


def revoke(service: Served, control: str, session_id: str) -> tuple[str, ...]:
    """Revoke a session with the client for threads."""
    with Client(service.app.address, control_address=control, **_options(service)) as client:
        return client.revoke_sessions(session_id=session_id, reason="enough")


def revoke_awaited(service: Served, control: str, session_id: str) -> tuple[str, ...]:
    """Revoke a session with the client for asyncio."""

    async def run() -> tuple[str, ...]:
        async with AsyncClient(service.app.address, control_address=control, **_options(service)) as client:
            return await client.revoke_sessions(session_id=session_id, reason="enough")

    return asyncio.run(run())


both = pytest.mark.parametrize("asked", [revoke, revoke_awaited], ids=["threads", "asyncio"])


@both
def test_it_is_asked_first(service: Served, asked: Revoke) -> None:
    """A server whose main address is gone still revokes."""
    service.app._servers[0].stop()

    revoked = asked(service, service.app.control_address, service.active.id)

    assert revoked == (service.active.id,)


@both
def test_without_a_socket_the_main_address_is_asked(service: Served, asked: Revoke) -> None:
    """A server that is reached from elsewhere, or an earlier one, has no socket here."""
    assert asked(service, f"unix:{service.settings.data_dir}/none.sock", service.active.id) == (service.active.id,)


@both
def test_a_silent_socket_does_not_hold_up(
    service: Served, asked: Revoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a process listens and does not answer, as a stopped one does, the main address is asked after a while."""
    monkeypatch.setattr(way, "REACH_SECONDS", 0.2)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent.sock"))
        silent.listen()

        assert asked(service, f"unix:{tmp_path}/silent.sock", service.active.id) == (service.active.id,)


@both
def test_a_dead_socket_does_not_hold_up(service: Served, asked: Revoke, tmp_path: Path) -> None:
    """A socket that a killed server has left behind is no way."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))

    assert asked(service, f"unix:{tmp_path}/dead.sock", service.active.id) == (service.active.id,)


def test_a_socket_where_others_can_put_one_is_not_used(
    service: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No token is sent to a socket that another user of the machine may have created."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(shared / "control.sock"))
        foreign.listen()
        foreign.settimeout(0.1)

        assert revoke(service, f"unix:{shared}/control.sock", service.active.id) == (service.active.id,)
        with pytest.raises(TimeoutError):
            foreign.accept()
    assert "the control address is not used: others can write to" in caplog.text


def test_calls_go_to_the_main_address(service: Served) -> None:
    """Whatever else the control address is, it is none for calls."""
    options = _options(service, Role.PEP)
    with Client(service.app.address, control_address=service.app.control_address, **options) as client:
        answer = client.authorize(service.active.handle, "notes", "read_note", {"name": "a"})
        listed = client.list_tools(service.active.handle)

    assert answer.allowed
    assert listed


def test_a_refusal_is_told(service: Served) -> None:
    """What the control address decides is not asked again elsewhere."""
    options = _options(service, Role.PEP)
    with (
        Client(service.app.address, control_address=service.app.control_address, **options) as client,
        pytest.raises(PDPClientError, match=r"may not call `pdp\.v1\.SessionService/RevokeSessions`"),
    ):
        client.revoke_sessions(session_id=service.active.id, reason="enough")


class Failed(grpc.RpcError):  # type: ignore[misc]  # gRPC has no types
    """A call that ended with a status."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        """Return the status."""
        return self._code


REVOKE = revoke_sessions(session_id="ses_a", user="", agent="", tenant="", of_tenant="", reason="x")
DENY = deny_session("ses_a", reason="x")
END = end_session("pdps_a")
RELOAD = reload_bundle()
CHECK = check_bundle({})


@pytest.mark.parametrize(
    ("operation", "code", "expected"),
    [
        (REVOKE, grpc.StatusCode.UNIMPLEMENTED, True),
        (DENY, grpc.StatusCode.RESOURCE_EXHAUSTED, True),
        (END, grpc.StatusCode.UNAUTHENTICATED, True),
        (REVOKE, grpc.StatusCode.DEADLINE_EXCEEDED, True),
        (REVOKE, grpc.StatusCode.UNAVAILABLE, True),
        (DENY, grpc.StatusCode.DEADLINE_EXCEEDED, True),
        (END, grpc.StatusCode.UNAVAILABLE, True),
        (CHECK, grpc.StatusCode.UNAVAILABLE, False),
        (RELOAD, grpc.StatusCode.UNAVAILABLE, True),
        (REVOKE, grpc.StatusCode.PERMISSION_DENIED, False),
        (REVOKE, grpc.StatusCode.NOT_FOUND, False),
    ],
)
def test_what_may_be_asked_elsewhere(operation: Operation[Any, Any], code: grpc.StatusCode, *, expected: bool) -> None:
    """What was not begun, and where nothing is known only what comes to the same when it is done twice."""
    assert may_be_asked_elsewhere(Failed(code), operation) is expected


def _options(service: Served, role: Role = Role.APPROVER) -> dict[str, Any]:
    token = (service.settings.tokens_folder / f"{role.value}.token").read_text(encoding="ascii").strip()
    return {"token": token, "data_dir": service.settings.data_dir}


def test_what_is_asked_there_is_what_is_served_there() -> None:
    """The client's list of what ends authority is the server's, but for probes."""
    served = {path for path, rpc in RPCS.items() if rpc.lane in CONTROL and rpc.service.startswith("pdp.")}

    assert served == {path for path in RPCS if Method(path=path, reply=Message).ends_authority}
