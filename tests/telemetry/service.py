"""The whole service, assembled as in production and watched by a real receiver of OTLP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partialmethod
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from pdp.app.server import App
from pdp.cli.operate.init import prepare
from pdp.client import Client, ClientSession
from pdp.client.connection import Connection
from pdp.config.settings import MessageSettings, PolicySettings, ServerSettings, Settings, TelemetrySettings
from pdp.errors import BundleError
from pdp.telemetry import names
from pdp.telemetry.observer import Telemetry
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.inprocess import write_folder
from tests.machinery.ports import free_port
from tests.machinery.servers.running import PATIENCE
from tests.machinery.servers.transports import chosen

TRACE = "0af7651916cd43dd8448eb211c80319c"


PARENT = "b7ad6b7169203331"


TRACEPARENT = f"00-{TRACE}-{PARENT}-00"

# What it reports: it has a store of its own, and so neither leases nor changes that wait for them.
REPORTED = tuple(metric for metric in names.METRICS if metric not in (names.LEASE_AGE, names.FENCE_DURATION))

_POLICIES = """
@id("desk/read")
permit (principal, action in Action::"read_only", resource);
@id("desk/no-secrets")
forbid (principal, action in Action::"read_only", resource) when { context.input.what == "secret" };
@id("desk/broken")
forbid (principal, action == Action::"desk/count", resource) when { context.input.number + 9223372036854775807 > 0 };
"""
_DIRECTORY = """
users: {alice: {}}
agents: {coder: {ceiling: ["desk/*"]}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A running server with an approved session of the gateway's, and its policy folder."""

    app: App
    pep: Client
    approver: Client
    session: ClientSession
    policies: Path


@contextmanager
def serving(folder: Path, *, prometheus_address: str = "", listener: str = "", **variables: str) -> Iterator[Service]:
    """Serve with these `OTEL_*` variables; what is sent has arrived when the block ends."""
    tools = [
        tool("read", {"what": {"type": "string"}}, ["what"]),
        tool("count", {"what": {"type": "string"}, "number": {"type": "integer"}}, ["what", "number"]),
    ]
    files = bundle_files(
        policies={"desk": _POLICIES},
        tools={"desk": tools},
        overlays={"desk": "risk: read_only\n"},
        directory=_DIRECTORY,
    )
    write_folder(folder / "policies", files)
    settings = Settings(
        data_dir=str(folder / "data"),
        server=ServerSettings(address="127.0.0.1:0", listener=cast("Any", listener or chosen())),
        policies=PolicySettings(folder=str(folder / "policies"), watch=False),
        telemetry=TelemetrySettings(prometheus_address=prometheus_address),
        messages=MessageSettings(receivers_file=str(_receiver(folder))),
    )
    prepare(settings, development=True)
    with pytest.MonkeyPatch.context() as environment:
        for name, value in variables.items():
            environment.setenv(name, value)
        # On a busy machine, what waits at the end takes longer to be sent than the product gives it.
        environment.setattr(Telemetry, "shutdown", partialmethod(Telemetry.shutdown, timeout=PATIENCE))
        app = App(settings)
    app.start()
    tokens = settings.tokens_folder
    try:
        with (
            Client(app.address, token_file=tokens / "pep.token", timeout=60.0, data_dir=settings.data_dir) as pep,
            Client(app.address, token_file=tokens / "approver.token", data_dir=settings.data_dir) as approver,
        ):
            session = _approved(pep, approver)
            yield Service(app=app, pep=pep, approver=approver, session=session, policies=folder / "policies")
    finally:
        app.stop()


def _receiver(folder: Path) -> Path:
    """Write a file with a receiver of messages that is down."""
    url, receivers = folder / "receiver.url", folder / "receivers.yaml"
    url.write_text(f"http://127.0.0.1:{free_port()}/", encoding="utf-8")
    url.chmod(0o600)
    receivers.write_text(f"away: {{form: chat, url_file: {url}}}", encoding="utf-8")
    return receivers


def _approved(pep: Client, approver: Client) -> ClientSession:
    opened = pep.request_session(user="alice", agent="coder", purpose="telemetry", tools=("desk/*",))
    shown = opened.session
    approver.approve_session(shown.session_id, request_digest=shown.request_digest)
    return pep.attach(opened.session_handle, session_id=shown.session_id)


def everything(service: Service) -> None:
    """Have everything happen that is counted."""
    session = service.session
    assert session.authorize("desk", "read", {"what": "plan"})
    assert session.authorize("desk", "read", {"what": "plan"}).cache_result == "hit"
    assert session.authorize("desk", "read", {"what": "secret"}).basis == "forbid"
    assert session.authorize("desk", "count", {"what": "plan", "number": 1}).basis == "policy_error"
    refused(service, "approver")
    (service.policies / "desk.cedar").write_text("permit (", encoding="utf-8")
    with pytest.raises(BundleError):
        service.app.embedded.keeper.reload(by="test")


def refused(service: Service, token: str) -> None:
    """Send an empty request with a gateway's token, with another role's, or with none that is known."""
    data = service.policies.parent / "data"
    file = data / "tokens" / f"{token}.token"
    secret = file.read_text(encoding="ascii").strip() if file.exists() else "pdpt_unknown"
    metadata = (("authorization", f"Bearer {secret}"), ("traceparent", TRACEPARENT))
    with Connection.to(service.app.address, data_dir=data).open(grpc) as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary("/pdp.v1.AuthorizationService/Authorize")(b"", metadata=metadata, timeout=30.0)
