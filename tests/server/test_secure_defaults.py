"""What holds when nobody configured anything, and what no configuration lifts."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import grpc
import pytest

from pdp.app.embedded import Embedded, open_embedded
from pdp.app.server import App
from pdp.cli.operate.init import prepare
from pdp.client import Client
from pdp.config.reading import describe, load
from pdp.config.settings import PolicySettings, ServerSettings, Settings
from pdp.errors import ConfigurationError, PermissionDeniedError
from pdp.model import AT_EACH_CALL, Call, Caller, CallRequest, Role
from pdp.registry.words import SessionRequest
from pdp.serving.listener import Listener
from pdp.testing.bundles import bundle_files, compile_here, tool
from pdp.testing.inprocess import write_folder

PEP = Caller(id="pep", kind="embedded", roles=frozenset({Role.PEP}))
APPROVER = Caller(id="approver", kind="embedded", roles=frozenset({Role.APPROVER}), authenticated_at=AT_EACH_CALL)
WANTED = SessionRequest(user="ada", agent="coder", purpose="Try", tool_patterns=("files/*",))
DIRECTORY = 'users: {ada: {}}\nagents: {coder: {ceiling: ["files/*"]}}\n'
OTHERS = "0.0.0.0:50151"


def files_with(**more: Any) -> dict[str, bytes]:
    """Return a bundle with one tool, and the policies that are given."""
    tools, overlays = {"files": [tool("read")]}, {"files": "risk: read_only"}
    return bundle_files(**{"policies": {}, "tools": tools, "overlays": overlays, "directory": DIRECTORY, **more})


def opened(folder: Path, files: dict[str, bytes]) -> Embedded:
    """Return a PDP on a bundle."""
    write_folder(folder, files)
    return open_embedded(folder, compile_files=compile_here)


def test_an_empty_policy_set_denies_everything(tmp_path: Path) -> None:
    """Without a single policy nobody gets a session, and with one that anybody may have no call is allowed."""
    without, with_sessions = opened(tmp_path / "a", files_with(sessions="")), opened(tmp_path / "b", files_with())
    view, handle = with_sessions.registrar.request(WANTED, PEP)
    with_sessions.registrar.approve(view.session.id, request_digest=view.request_digest, grants=(), caller=APPROVER)

    decision = with_sessions.authorizer.authorize(
        CallRequest(call=Call(session_handle=handle, server="files", tool="read")), PEP
    )
    with pytest.raises(PermissionDeniedError, match="default_deny"):
        without.registrar.request(WANTED, PEP)

    assert (False, "default_deny") == (decision.allowed, decision.ruling.basis.value)


def test_without_configuration_nobody_beyond_this_machine_can_call() -> None:
    """The default listener is loopback, with a certificate of its own, without reflection."""
    settings = load(environ={})

    assert Settings() == settings
    assert Listener(address=settings.server.address, plaintext=True).tls is None
    assert settings.makes_certificate
    assert not settings.server.reflection
    assert settings.only_this_machine


def choices() -> Iterator[tuple[str, str]]:
    """Yield every setting that is a choice, with each thing that can be chosen."""
    for row in describe():
        if row.default in ("true", "false"):
            yield from ((row.name, text) for text in ("true", "false"))
    for section, values in vars_of(Settings()).items():
        for name, kind in get_type_hints(type(values)).items() if is_dataclass(values) else ():
            if get_origin(kind) is Literal:
                yield from ((f"{section}.{name}", text) for text in get_args(kind))


def vars_of(settings: Settings) -> dict[str, object]:
    """Return the sections of settings by name."""
    return {field.name: getattr(settings, field.name) for field in fields(settings)}


@pytest.mark.parametrize(("name", "text"), list(choices()))
def test_no_setting_lets_others_in_without_tls(name: str, text: str) -> None:
    """Whatever is chosen, an address that others can reach is refused without key and certificate."""
    with pytest.raises(ConfigurationError, match="can be reached by others and needs TLS"):
        load(environ={}, flags={name: text, "server.address": OTHERS})


def test_a_socket_is_for_its_owner_and_wants_a_token(tmp_path: Path) -> None:
    """The whole server on a Unix socket: mode 0600, and whoever can open it needs a credential all the same."""
    write_folder(tmp_path / "policies", files_with())
    socket = tmp_path / "pdp.sock"
    settings = Settings(
        data_dir=str(tmp_path / "data"),
        server=ServerSettings(address=f"unix:{socket}"),
        policies=PolicySettings(folder=str(tmp_path / "policies"), watch=False),
    )
    prepare(settings, development=True)
    app = App(settings)
    app.start()
    try:
        mode = stat.S_IMODE(socket.stat().st_mode)
        with grpc.insecure_channel(f"unix:{socket}") as channel, pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/pdp.v1.SessionService/ListSessions")(b"", timeout=60.0)
        with Client(f"unix:{socket}", token_file=settings.tokens_folder / "approver.token") as approver:
            listed = list(approver.list_sessions())
    finally:
        app.stop()

    assert (0o600, grpc.StatusCode.UNAUTHENTICATED) == (mode, caught.value.code())
    assert [] == listed
