"""Floods against the server as it runs in production: calls go on, memory is bounded, and authority can be ended.

`PDP_FLOOD_SECONDS` is how long each flood lasts: 2 in small, 600 in `-m long`, where TLS and client certificates count
as well.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import signal
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pdp.client import AuthorizationStream, Client, ClientSession, PDPClientError
from pdp.client.health import is_serving
from pdp.limits import DEFAULT_LIMITS
from pdp.model import Role
from pdp.testing.inprocess import write_folder
from tests.machinery.credentials.authority import Authority
from tests.machinery.faults.rawhttp2 import Flood, HalfSent, begin, connect, reset
from tests.machinery.servers.ledger import NOTE
from tests.machinery.servers.notes import READ, notes_bundle
from tests.machinery.servers.server_process import PATIENCE, ServerProcess
from tests.machinery.servers.several import opened_by

_AUTHORIZE = "/pdp.v1.AuthorizationService/Authorize"
_AUTHORIZE_BATCH = "/pdp.v1.AuthorizationService/BatchAuthorize"
_AUTHORIZE_STREAM = "/pdp.v1.AuthorizationService/AuthorizeStream"
_CHECK = "/grpc.health.v1.Health/Check"
_CHECK_BUNDLE = "/pdp.v1.PolicyService/CheckBundle"
_GET_BUNDLE = "/pdp.v1.PolicyService/GetBundle"
_LIST_RECORDS = "/pdp.v1.AuditService/ListRecords"

# What one process may have of memory under any flood; each has about 100 MiB without one.
MOST_BYTES = 256 * 1024 * 1024
# The same under all attacks at once, from fifty connections.
MOST_BYTES_AT_ONCE = 320 * 1024 * 1024
# How many sessions are revoked during a flood, spread over it.
VICTIMS = 10
# How a stream ends on a connection of `limits.connection_age_seconds`.
AGED = "unavailable: max connection age"
# How gRPC drops a stream while too many calls wait for the server, and the pauses after which it is opened once more:
# those of the client library for a call that is dropped.
DROPPED = "cancelled: CANCELLED"
PAUSES = (0.05, 0.2, 0.8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """What is said again and again: by whom (None: without credentials), on how many connections.

    With `hold`, so many calls of each connection are begun and kept; with `half`, each sends a message that has so many
    bytes but for the last one, after a whole and empty message if `more`.
    """

    said: Callable[[int, str], bytes]
    role: Role | None = None
    connections: int = 1
    hold: int = 0
    half: int = 0
    more: bool = False


def half_sent(path: str, role: Role | None, size: int, *, more: bool = False) -> Attack:
    """Return the attack of messages that come but for their last byte."""
    return Attack(
        said=lambda stream, token: begin(stream, path, token), role=role, connections=4, hold=64, half=size, more=more
    )


# As much as one message may have, and what a bundle may have, which gRPC must not begin to receive.
_MESSAGE_BYTES, _BUNDLE_BYTES = DEFAULT_LIMITS.message_bytes, DEFAULT_LIMITS.bundle_bytes * 2
ATTACKS = {
    "empty calls": Attack(said=lambda stream, _: begin(stream, _AUTHORIZE, end=True)),
    "empty calls on eight connections": Attack(
        said=lambda stream, _: begin(stream, _AUTHORIZE, end=True), connections=8
    ),
    "resets": Attack(said=lambda stream, _: begin(stream, _AUTHORIZE) + reset(stream)),
    "probes that are begun": Attack(said=lambda stream, _: begin(stream, _CHECK), connections=4, hold=100),
    "calls that a gateway begins": Attack(
        said=lambda stream, token: begin(stream, _AUTHORIZE, token), role=Role.PEP, connections=20, hold=50
    ),
    "resets of a gateway": Attack(
        said=lambda stream, token: begin(stream, _AUTHORIZE, token) + reset(stream), role=Role.PEP, connections=4
    ),
    "questions that an auditor begins": Attack(
        said=lambda stream, token: begin(stream, _GET_BUNDLE if stream % 4 == 1 else _LIST_RECORDS, token),
        role=Role.AUDITOR,
        connections=4,
        hold=50,
    ),
    "half-sent messages of a gateway": half_sent(_AUTHORIZE, Role.PEP, _MESSAGE_BYTES),
    "half-sent messages of a gateway, of the size of a bundle": half_sent(_AUTHORIZE, Role.PEP, _BUNDLE_BYTES),
}
# One after the other against one server: these take what is the same for all of them.
HALF_SENT = {
    f"{path}, {size} bytes, more: {more}": half_sent(path, role, size, more=more)
    for path, role, more in (
        (_AUTHORIZE_BATCH, Role.PEP, False),
        (_AUTHORIZE_STREAM, Role.PEP, False),
        (_AUTHORIZE, Role.PEP, True),
        (_CHECK_BUNDLE, Role.AUTHOR, False),
        (_CHECK_BUNDLE, Role.AUTHOR, True),
        (_CHECK, None, False),
    )
    for size in (_MESSAGE_BYTES, _BUNDLE_BYTES)
}


@dataclass(frozen=True, slots=True)
class Way:
    """How the server is reached: by which settings it serves, and how a socket becomes a connection."""

    settings: dict[str, str] = field(default_factory=dict)
    client: dict[str, Any] = field(default_factory=dict)
    context: ssl.SSLContext | None = None

    def connect(self, address: str) -> socket.socket:
        """Open a connection as an attacker does."""
        plain = connect(address)
        return plain if self.context is None else self.context.wrap_socket(plain, server_hostname="localhost")


def plain_way(_: Path) -> Way:
    """Serve in plain text on loopback."""
    return Way({"server_plaintext": "true"}, {"plaintext": True})


def tls_way(folder: Path) -> Way:
    """Serve with the operator's certificate, as a server that others reach does."""
    return _with_certificates(folder, mutual=False)


def mutual_way(folder: Path) -> Way:
    """Serve callers with certificates alone."""
    return _with_certificates(folder, mutual=True)


def _with_certificates(folder: Path, *, mutual: bool) -> Way:
    authority = Authority()
    roots = folder / "roots.pem"
    roots.write_bytes(authority.roots)
    certificate, key = authority.server().write(folder, "server")
    context = ssl.create_default_context(cafile=str(roots))
    context.set_alpn_protocols(["h2"])
    settings = {"server_tls_certificate": str(certificate), "server_tls_key": str(key)}
    client: dict[str, Any] = {"tls": str(roots)}
    if mutual:
        presented = authority.caller("spiffe://example.org/anybody").write(folder, "caller")
        context.load_cert_chain(*presented)
        settings |= {"server_tls_client_roots": str(roots)}
        client |= {"tls_certificate": str(presented[0]), "tls_key": str(presented[1])}
    return Way({**settings, "server_address": "localhost:0"}, client, context)


@dataclass(slots=True)
class Honest:
    """A gateway, a stream and an admin that do their work, and what came of it."""

    answers: Counter[str] = field(default_factory=Counter)
    streamed: Counter[str] = field(default_factory=Counter)
    revoked: Counter[str] = field(default_factory=Counter)
    reopened: int = 0
    opened: AuthorizationStream | None = None
    streams: ExitStack = field(default_factory=ExitStack)

    def call(self, session: ClientSession) -> None:
        """Ask about a call."""
        answer = session.authorize("notes", READ, NOTE)
        self.answers[answer.error or answer.basis] += 1

    def stream(self, client: Client, handle: str) -> str:
        """Ask on the open stream, or on a new one when its connection was old enough; return what the answer says.

        One that gRPC has dropped is opened again, as often as the client library asks about a call again.
        """
        pauses = iter(PAUSES)
        while True:
            if self.opened is None:
                self.opened = self.streams.enter_context(client.stream())
            answer = self.opened.authorize(handle, "notes", READ, NOTE)
            pause = next(pauses, None) if answer.error == DROPPED else 0 if answer.error == AGED else None
            if pause is None:
                self.streamed[answer.error or answer.basis] += 1
                return answer.basis
            self.close()
            self.reopened += 1
            time.sleep(pause)

    def close(self) -> None:
        """Close the open stream."""
        self.opened = None
        self.streams.close()

    def revoke(self, admin: Client, session_id: str) -> None:
        """Revoke a session."""
        try:
            self.revoked["OK" if admin.revoke_sessions(session_id=session_id, reason="enough") else "none"] += 1
        except PDPClientError as error:
            self.revoked[str(error)] += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of honest work beside floods.

    `last` is what the stream was told after the last revocation, and `most` the most bytes that any process had.
    """

    honest: Honest
    last: str
    most: int
    floods: Mapping[str, Flood | HalfSent]

    def figures(self) -> str:
        """Return the figures of a long run, in lines."""
        of_floods = [f"{name}: {flood.sent} begun, {dict(flood.ended)}" for name, flood in self.floods.items()]
        return "\n".join(["", *of_floods, f"{self.most >> 20} MiB, {self.honest}"])


@dataclass(slots=True, kw_only=True)
class World:
    """A server with two workers and those who use it."""

    server: ServerProcess
    way: Way
    other: Client
    pep: Client
    approver: Client
    # By the control address, and by the main one.
    admins: tuple[Client, Client]

    def open(self) -> tuple[str, str]:
        """Return handle and id of an approved session, which the other gateway has opened."""
        opened = opened_by(self)  # type: ignore[arg-type]  # has what it needs
        return opened.session_handle, opened.session.session_id


def seconds() -> float:
    """Return how long a flood lasts in this run."""
    return float(os.environ.get("PDP_FLOOD_SECONDS", "2"))


@contextmanager
def world(folder: Path, way: Way) -> Iterator[World]:
    """Serve with two workers, and a second gateway: the first one attacks."""
    overlay = {"tools/notes.yaml": f"tools: {{{READ}: {{risk: read_only}}, write_note: {{risk: mutating}}}}\n".encode()}
    write_folder(folder / "policies", notes_bundle() | overlay)
    token = "pdpt_" + secrets.token_urlsafe(32)
    with ExitStack() as opened:
        server = opened.enter_context(ServerProcess(folder, server_workers="2", **way.settings))
        callers = folder / "data" / "callers.yaml"
        digest = hashlib.sha256(token.encode()).hexdigest()
        with callers.open("a") as file:
            file.write(f"other:\n  token_sha256: '{digest}'\n  roles: [pep]\n")
        server.send(signal.SIGHUP)

        def client(role: Role, **more: Any) -> Client:
            return opened.enter_context(server.client(role, **way.client, **more))

        options: dict[str, Any] = {
            "timeout": PATIENCE,
            "management_timeout": PATIENCE,
            "data_dir": folder / "data",
            **way.client,
        }
        other = opened.enter_context(Client(server.address, token=token, **options))
        control = control_of(server)
        # Otherwise the client would go to the main address without a word.
        assert is_serving(other._connection.at(control), timeout=PATIENCE)
        made = World(
            server=server,
            way=way,
            other=other,
            pep=other,
            approver=client(Role.APPROVER),
            admins=(client(Role.ADMIN, control_address=control), client(Role.ADMIN)),
        )
        deadline = time.monotonic() + PATIENCE
        while other.authorize("pdps_none", "notes", READ, NOTE).error and time.monotonic() < deadline:
            time.sleep(0.1)
        yield made


def control_of(server: ServerProcess) -> str:
    """Return the control address of a server, as its log has it."""
    found: list[str] = re.findall(r"requests that end authority are also served at `(.*)`", server.log.read_text())
    return found[-1]


def children(process: int) -> list[int]:
    """Return the processes that a process has started."""
    text = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii")
    return [int(child) for child in text.split()]


def resident(process: int) -> int:
    """Return how many bytes of memory a process has; 0 when it has ended."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def flood_of(attack: Attack, there: World) -> Flood | HalfSent:
    """Return the flood that an attack is."""
    token = there.server.token(attack.role) if attack.role else ""

    def connected() -> socket.socket:
        return there.way.connect(there.server.address)

    def said(stream: int) -> bytes:
        return attack.said(stream, token)

    connections, hold = attack.connections, attack.hold
    if not attack.half:
        return Flood(connected, said, connections=connections, hold=hold)
    before = b"\0" * 5 if attack.more else b""
    return HalfSent(connected, said, size=attack.half, connections=connections, calls=hold, before=before)


def attack_floor(name: str) -> int:
    """Return how many calls a flood begins at least, so that there was one."""
    attack = ATTACKS[name]
    return attack.connections * attack.hold // 2 or 500


def flooded(there: World, *names: str) -> Outcome:
    """Run honest work beside attacks, all of them at once, and a little more when they are over.

    They go on until each has begun the calls that make it a flood: on a busy machine time passes without them.
    """
    honest, most = Honest(), 0
    with ExitStack() as attacks:
        watched, watched_id = there.open()
        session = there.other.attach(watched, session_id=watched_id)
        victims = [there.open()[1] for _ in range(VICTIMS + 1)]
        processes = children(there.server.pid)
        floods = {name: flood_of(ATTACKS[name], there) for name in names}
        for flood in floods.values():
            attacks.enter_context(flood)
        end = time.monotonic() + seconds()
        while (left := end - time.monotonic()) > 0 or any(
            flood.sent < attack_floor(name) for name, flood in floods.items()
        ):
            assert left > -PATIENCE, {name: flood.sent for name, flood in floods.items()}
            honest.call(session)
            honest.stream(there.other, watched)
            # Spread over the flood; the last one is for afterwards.
            if len(victims) - 1 > left / seconds() * VICTIMS:
                honest.revoke(there.admins[len(victims) % 2], victims.pop())
            most = max(most, *map(resident, processes))
            time.sleep(min(0.2, seconds() / 20))
        honest.revoke(there.admins[0], watched_id)
        last = honest.stream(there.other, watched)
        attacks.close()
        honest.close()
        honest.revoke(there.admins[1], victims.pop())
        assert children(there.server.pid) == processes, there.server.log.read_text()
    return Outcome(honest=honest, last=last, most=most, floods=floods)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Serve in plain text for all attacks, one after the other: what one leaves behind counts for the next."""
    folder = tmp_path_factory.mktemp("plain")
    with world(folder, plain_way(folder)) as there:
        yield there


@pytest.mark.parametrize("name", ATTACKS)
def test_authority_ends_while_the_server_is_flooded(plain: World, name: str) -> None:
    """Every call and every revocation goes on, the session's stream is denied, and no process grows beyond a bound."""
    outcome = flooded(plain, name)

    assert_unharmed(outcome, MOST_BYTES)


def assert_unharmed(outcome: Outcome, most: int) -> None:
    """Assert that all honest work was done, and that no process has more than so many bytes of memory."""
    honest = outcome.honest

    assert set(honest.answers) == {"permit"}
    assert set(honest.streamed) == {"permit", "session_revoked"}
    assert set(honest.revoked) == {"OK"}
    assert outcome.last == "session_revoked"
    assert outcome.most < most


def test_half_sent_messages_take_little_memory(plain: World) -> None:
    """Whatever the RPC, and whoever sends: calls and revocations go on, and no process grows beyond the bound."""
    honest, most = Honest(), dict[str, int]()
    handle, session_id = plain.open()
    session = plain.other.attach(handle, session_id=session_id)
    processes = children(plain.server.pid)
    for name, attack in HALF_SENT.items():
        victim = plain.open()[1]
        with flood_of(attack, plain):
            end = time.monotonic() + seconds() / 2
            while time.monotonic() < end:
                honest.call(session)
                most[name] = max(most.get(name, 0), *map(resident, processes))
                time.sleep(0.05)
            honest.revoke(plain.admins[len(most) % 2], victim)
    assert children(plain.server.pid) == processes, plain.server.log.read_text()

    assert set(honest.answers) == {"permit"}
    assert set(honest.revoked) == {"OK"}
    assert {name: size >> 20 for name, size in most.items() if size > MOST_BYTES} == {}


def test_authority_ends_while_a_server_with_tls_is_flooded(tmp_path: Path) -> None:
    """With the operator's certificate the control address is a second port, and the same holds."""
    with world(tmp_path, tls_way(tmp_path)) as there:
        outcome = flooded(there, "empty calls on eight connections")

    assert_unharmed(outcome, MOST_BYTES)


def test_authority_ends_while_a_worker_is_stopped(tmp_path: Path) -> None:
    """Whichever worker is stopped, a revocation is acknowledged at once, and the other worker denies.

    The supervisor is stopped as well, so that on a busy machine it replaces no worker meanwhile.
    """
    with world(tmp_path, plain_way(tmp_path)) as there, ExitStack() as opened:
        handle, session_id = there.open()
        clients = [opened.enter_context(there.server.client(Role.PEP, **there.way.client)) for _ in range(20)]
        before = {one.authorize(handle, "notes", READ, NOTE).basis for one in clients}
        workers = children(there.server.pid)[:2]
        there.server.send(signal.SIGSTOP)
        os.kill(workers[0], signal.SIGSTOP)
        there.admins[0].revoke_sessions(session_id=session_id, reason="enough")
        with ThreadPoolExecutor(max_workers=len(clients)) as threads:
            asked = [threads.submit(one.authorize, handle, "notes", READ, NOTE) for one in clients]
            first = next(as_completed(asked)).result().basis
            # Otherwise those that ask the stopped one wait until it is replaced.
            os.kill(workers[0], signal.SIGKILL)
            after = {one.result().basis for one in asked}

    assert before == {"permit"}
    assert first == "session_revoked"
    assert after <= {"session_revoked", "error"}


@pytest.fixture
def full_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each flood last ten minutes, or `PDP_FLOOD_SECONDS`."""
    monkeypatch.setenv("PDP_FLOOD_SECONDS", os.environ.get("PDP_FLOOD_SECONDS", "600"))


@pytest.mark.long
@pytest.mark.usefixtures("full_size")
@pytest.mark.parametrize("way", [plain_way, tls_way, mutual_way], ids=["plain", "tls", "mtls"])
@pytest.mark.parametrize("name", ATTACKS)
def test_authority_ends_at_full_size(
    tmp_path: Path, name: str, way: Callable[[Path], Way], capsys: pytest.CaptureFixture[str]
) -> None:
    """The same for ten minutes each, with TLS and client certificates; figures are printed."""
    with world(tmp_path, way(tmp_path)) as there:
        outcome = flooded(there, name)

    with capsys.disabled():
        print(outcome.figures())  # noqa: T201 - the figures of a long run
    assert_unharmed(outcome, MOST_BYTES)


@pytest.mark.long
@pytest.mark.usefixtures("full_size")
@pytest.mark.parametrize("way", [tls_way, mutual_way], ids=["tls", "mtls"])
def test_authority_ends_under_all_attacks_at_once(
    tmp_path: Path, way: Callable[[Path], Way], capsys: pytest.CaptureFixture[str]
) -> None:
    """All attacks at the same time for ten minutes, with TLS and client certificates; figures are printed."""
    with world(tmp_path, way(tmp_path)) as there:
        outcome = flooded(there, *ATTACKS)

    with capsys.disabled():
        print(outcome.figures())  # noqa: T201 - the figures of a long run
    assert_unharmed(outcome, MOST_BYTES_AT_ONCE)
