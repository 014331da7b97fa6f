"""The whole server as in production, with sessions in every state that matters when something breaks."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self
from unittest.mock import patch

import apsw
import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from pdp.app.server import App
from pdp.cli.operate.init import prepare
from pdp.client import Client, ClientSession, PDPClientError
from pdp.client.connection import Connection
from pdp.config.settings import PolicySettings, RecordSettings, ServerSettings, Settings
from pdp.limits import DEFAULT_LIMITS, Limits
from pdp.model import Role
from pdp.record.keys import PUBLIC_KEY_FILE, PublicKeys
from pdp.record.log import Durability
from pdp.record.verify import verify
from pdp.testing.clock import FakeClock
from pdp.testing.inprocess import write_folder
from pdp.v1.session_pb2 import SessionState
from tests.machinery.servers.ledger import NOTE
from tests.machinery.servers.notes import READ, notes_bundle

# How often the server tries to write its store.
_BEAT_SECONDS = 0.05
# Bounds waits that only a broken server makes long.
PATIENCE = 30.0
# How long impatient callers wait: long enough for an answer that a busy machine can give.
_IMPATIENCE = 4.0
_ROLES = (Role.PEP, Role.APPROVER)
_HEALTH = ("", "pdp.record", "pdp.store")


class Seen(NamedTuple):
    """What a gateway, an approver and a probe see: `as before`, or what is answered instead."""

    calls: str
    changes: str
    health: tuple[str, ...]


WELL = Seen("as before", "as before", ("SERVING",) * 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A running server with a session that is active and one that was revoked.

    `seconds` is how long callers and probes wait for an answer.
    """

    app: App
    settings: Settings
    clock: FakeClock
    pep: Client
    approver: Client
    active: ClientSession
    revoked: ClientSession
    seconds: float = PATIENCE

    def open(self) -> ClientSession:
        """Open another session."""
        return approved(self.pep, self.approver)

    def call(self, session: ClientSession) -> str:
        """Make a call that the policies permit; return what its answer rests on, or the status."""
        answer = session.authorize("notes", READ, NOTE)
        return f"`{answer.error.partition(':')[0].upper()}`" if answer.error else answer.basis

    def revoke(self, session: ClientSession) -> str:
        """Revoke a session; return `OK` or the status."""
        return _outcome(lambda: self.approver.revoke_sessions(session_id=session.id, reason="enough"))

    def request(self) -> str:
        """Ask for another session; return `OK` or the status."""
        asked: dict[str, Any] = {"user": "alice", "agent": "coder", "purpose": "keep notes", "tools": ("notes/*",)}
        return _outcome(lambda: self.pep.request_session(**asked))

    def state(self, session: ClientSession) -> str:
        """Return the state of a session."""
        state = self.approver.get_session(session.id).state
        return SessionState.Name(state).removeprefix("SESSION_STATE_").lower()

    def channel(self) -> grpc.Channel:
        """Return a bare channel to the server."""
        return Connection.to(self.app.address, tls=roots(self.settings)).open(grpc)

    def health(self, *services: str) -> tuple[str, ...]:
        """Return the health of services, by default of the server, of its record and of its store."""
        with self.channel() as channel:
            stub = HealthStub(channel)
            return tuple(_health(stub, name, self.seconds) for name in services or _HEALTH)

    @contextmanager
    def impatient(self) -> Iterator[Self]:
        """Yield the same server with callers and probes that wait for four seconds only."""
        with ExitStack() as opened:
            clients = (client(self.app, self.settings, role, _IMPATIENCE) for role in _ROLES)
            pep, approver = map(opened.enter_context, clients)
            active, revoked = (pep.attach(one.handle, session_id=one.id) for one in (self.active, self.revoked))
            yield replace(self, seconds=_IMPATIENCE, pep=pep, approver=approver, active=active, revoked=revoked)

    def seen(self, session: ClientSession) -> Seen:
        """Return what is seen while `session` is revoked."""
        called, ended, began = self.call(self.active), self.revoke(session), self.request()
        ends, begins = (("as before" if one == "OK" else one) for one in (ended, began))
        return Seen(
            calls="as before" if called == "permit" else f"`{called.strip('`')}`",
            changes=ends if ends == begins else f"they end {ends}; none is opened: {begins}",
            health=self.health(),
        )


def settings_in(folder: Path, *, durability: Durability = "written", limits: Limits = DEFAULT_LIMITS) -> Settings:
    """Return the settings of a server in a folder: its `policies`, its `record`, and all else in `data`."""
    return Settings(
        data_dir=str(folder / "data"),
        server=ServerSettings(address="127.0.0.1:0"),
        policies=PolicySettings(folder=str(folder / "policies"), watch=False),
        record=RecordSettings(folder=str(folder / "record"), durability=durability, checkpoint_seconds=_BEAT_SECONDS),
        limits=limits,
    )


@contextmanager
def served(
    folder: Path,
    *,
    durability: Durability = "written",
    limits: Limits = DEFAULT_LIMITS,
    busy_seconds: float = PATIENCE,
    before: Served | None = None,
) -> Iterator[Served]:
    """Serve in a folder until the `with` block ends; after another one, go on with what is there.

    `busy_seconds` is how long the store waits for others that write: longer than any disk takes for a write.
    """
    settings, clock = settings_in(folder, durability=durability, limits=limits), FakeClock()
    if before is None:
        write_folder(folder / "policies", notes_bundle())
    prepare(settings, development=True)
    shutil.copy(folder / "data" / "tls" / "ca.pem", roots(settings))
    with ExitStack() as opened:
        with (
            patch("pdp.app.server._HEARTBEAT_SECONDS", _BEAT_SECONDS),
            patch("pdp.app.stores._BUSY_SECONDS", busy_seconds),
        ):
            app = App(settings, clock=clock)
        app.start()
        opened.callback(app.stop)
        pep, approver = (opened.enter_context(client(app, settings, role, PATIENCE)) for role in _ROLES)
        if before is None:
            active, revoked = approved(pep, approver), approved(pep, approver)
            approver.revoke_sessions(session_id=revoked.id, reason="enough")
        else:
            active, revoked = (pep.attach(one.handle, session_id=one.id) for one in (before.active, before.revoked))
        yield Served(
            app=app, settings=settings, clock=clock, pep=pep, approver=approver, active=active, revoked=revoked
        )


def client(app: App, settings: Settings, role: Role, seconds: float) -> Client:
    """Return a client of a role that waits so long."""
    # A file is read again now and then, and may be what is gone.
    token = (settings.tokens_folder / f"{role.value}.token").read_text(encoding="ascii").strip()
    return Client(app.address, token=token, timeout=seconds, management_timeout=seconds, tls=roots(settings))


def roots(settings: Settings) -> Path:
    """Return what the server is known by: a copy, for what is kept in the data folder may be gone."""
    return Path(settings.data_dir).with_name("ca.pem")


def _outcome(work: Callable[[], object]) -> str:
    try:
        work()
    except PDPClientError as error:
        return f"`{error.code.name}`" if error.code else str(error)
    return "OK"


def _health(stub: HealthStub, service: str, seconds: float) -> str:
    try:
        answer = stub.Check(HealthCheckRequest(service=service), timeout=seconds)
    except grpc.RpcError as error:
        return str(error.code().name)
    return str(HealthCheckResponse.ServingStatus.Name(answer.status))


def approved(pep: Client, approver: Client) -> ClientSession:
    """Open a session."""
    opened = pep.request_session(user="alice", agent="coder", purpose="keep notes", tools=("notes/*",))
    approver.approve_session(opened.session.session_id, request_digest=opened.session.request_digest)
    return pep.attach(opened.session_handle, session_id=opened.session.session_id)


def damage(service: Served) -> list[str]:
    """Return what is wrong with the store and with the record."""
    with closing(apsw.Connection(str(service.settings.sessions_file))) as connection:
        found = [str(line) for (line,) in connection.execute("PRAGMA integrity_check") if line != "ok"]
    keys = PublicKeys.load([Path(service.settings.data_dir) / PUBLIC_KEY_FILE])
    return found + [str(finding) for finding in verify(service.settings.record_folder, keys).findings]
