"""A broker that listens, with a real server behind it that issues call tokens, and says whether they still count."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

import grpc
import pytest

from pdp.broker.serving import assembled
from pdp.broker.settings import TLSSettings
from pdp.broker.store.checkouts import CheckoutStore
from pdp.broker.v1 import broker_pb2, broker_pb2_grpc
from pdp.calltokens.claims import Presenter
from pdp.client import CallTokenRequest
from pdp.doors.mcp.clientcertificate import ClientCertificate
from pdp.doors.mcp.upstream import Upstream as DoorUpstream
from pdp.errors import ConfigurationError
from pdp.model import TraceParent
from pdp.observer import CallOutcome, DoorCall
from pdp.serving.weblistener import SocketListener
from pdp.testing.inprocess import RunningServer, running_server
from tests.broker.listening import listening, settings_of
from tests.broker.notes import AUDIENCE, CALLERS, FILES, ISSUER, RULES, opened_session
from tests.broker.worlds import SECRET, Memory, Noting, Upstream, connection_to, upstream_here
from tests.machinery.credentials.authority import Authority, Identity
from tests.machinery.servers.patientbroker import patient
from tests.machinery.servers.running import PATIENCE

MCP = """
remote:
  kind: github
  proxy:
    methods: [POST]
    paths: [/mcp]
    mcp: {connection: github-1, presenters: [THUMBPRINT]}
"""
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Watching:
    """Notes what is observed."""

    def __init__(self) -> None:
        self.calls: list[DoorCall] = []

    def began(self, parent: TraceParent) -> TraceParent:
        """Return the place below a span of its own."""
        return replace(parent, traceparent=f"{parent.traceparent[:36]}00f067aa0ba902b7-01")

    def over(self, call: DoorCall) -> None:
        """Note a call."""
        self.calls.append(call)

    def refused(self, _: object) -> None:
        """Note nothing."""

    def watch_sessions(self, _: object) -> None:
        """Report nothing."""

    def watch_checkouts(self, count: Callable[[], Mapping[str, int]]) -> None:
        """Keep what counts."""
        self.checkouts = count


@dataclass
class Site:
    """A broker that listens, and all around it."""

    server: RunningServer
    upstream: Upstream
    record: Noting
    watching: Watching
    addresses: list[str]
    gateway: Identity
    roots: bytes
    folder: Path

    def token(self, presenter: Presenter, path: str = "n", server: str = "notes") -> tuple[str, str]:
        """Open a session and ask for a call; return the id of the session, and the call token."""
        session_id, handle = opened_session(self.server, f"{server}/*")
        wanted = CallTokenRequest(audience=AUDIENCE, certificate_thumbprint=presenter.certificate)
        client = self.server.client("gateway")
        answer = client.authorize(handle, server, "read", {"path": path}, call_tokens=(wanted,))
        return session_id, answer.call_tokens[0].token

    def call(
        self, token: str, path: str = "n", by: Identity | None = None, options: tuple[tuple[str, int], ...] = ()
    ) -> Any:
        """Call over gRPC with a certificate, by default that of the gateway."""
        port = self.addresses[0].rpartition(":")[2]
        credentials = (by or self.gateway).credentials(self.roots)
        request = broker_pb2.CallRequest(
            call_token=token, server="notes", tool="read", arguments_json=json.dumps({"path": path}).encode()
        )
        with grpc.secure_channel(f"localhost:{port}", credentials, options) as channel:
            stub = broker_pb2_grpc.BrokerServiceStub(channel)  # type: ignore[no-untyped-call]  # generated
            return stub.Call(request, timeout=PATIENCE, metadata=(("traceparent", TRACE),))

    def status(self, token: str, **more: Any) -> tuple[str, str]:
        """Call, and return status and text of the refusal."""
        with pytest.raises(grpc.RpcError) as refused:
            self.call(token, **more)
        return refused.value.code().name, refused.value.details()

    def get(self, token: str, by: Identity | None = None) -> tuple[int, bytes]:
        """Send a request over HTTP with a certificate, by default that of the gateway."""
        context = ssl.create_default_context(cadata=self.roots.decode())
        # The authority of the tests leaves out what Python 3.13 asks for.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if by is not None:
            context.load_cert_chain(*by.write(self.folder, "client"))
        port = int(self.addresses[1].rpartition(":")[2])
        connection = http.client.HTTPSConnection("localhost", port, timeout=PATIENCE, context=context)
        try:
            connection.request("GET", "/notes/v1/x", headers={"pdp-call-token": token, "Authorization": "Bearer mine"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def presenter_of(identity: Identity) -> Presenter:
    """Return who presents by a certificate."""
    return Presenter.of_certificate(ssl.PEM_cert_to_DER_cert(identity.certificate.decode()))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Serve to all tests of this module; each opens sessions of its own."""
    folder, authority, record, watching = tmp_path_factory.mktemp("broker"), Authority(), Noting(), Watching()
    files = authority.files(folder)
    assert files.client_roots
    tls = TLSSettings(key=files.key, certificate=files.certificate, client_roots=files.client_roots)
    gateway = authority.caller("spiffe://example.org/gateway")
    rules = f"{RULES}{MCP.replace('THUMBPRINT', presenter_of(gateway).certificate)}"
    with running_server(FILES, callers=CALLERS, call_token_issuer=ISSUER) as server, upstream_here() as upstream:
        memory = Memory([connection_to(upstream, tenant="default", compartment="")])
        settings = settings_of(
            folder,
            server.address,
            server.token("broker"),
            tls=tls,
            calls="localhost:0",
            http="127.0.0.1:0",
            rules=rules,
        )

        def now() -> float:
            return server.clock.now().wall_at

        with (
            closing(CheckoutStore(folder / "store" / "broker.sqlite")) as checkouts,
            patient(),
            assembled(settings, memory, checkouts, record, wall=now) as made,
            listening(settings, made, watching) as addresses,
        ):
            # What was used before the memory of uses began is not known.
            server.clock.advance(6)
            yield Site(server, upstream, record, watching, addresses, gateway, authority.roots, folder)


def test_a_call_that_was_allowed_is_made_with_the_secret(site: Site) -> None:
    """The caller gets the answer, and the upstream the secret, in the trace of the caller."""
    site.upstream.got.clear()
    session_id, token = site.token(presenter_of(site.gateway), path="a b")

    answer = site.call(token, path="a b")

    ((method, path, headers, _),) = site.upstream.got
    assert (200, b'{"done":true}') == (answer.status, answer.body)
    assert ("GET", "/v1/a%20b", f"Bearer {SECRET.decode()}") == (method, path, headers["authorization"])
    assert TRACE[:35] == headers["traceparent"][:35]
    seen = site.watching.calls[-1]
    assert (CallOutcome.ALLOW, session_id, "alice", "read") == (seen.outcome, seen.session_id, seen.user, seen.tool)
    assert TRACE[3:35] == seen.trace_id
    assert session_id == site.record.events[-1].session_id


def test_a_client_must_be_told_to_take_a_large_answer(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what the page says it does; without, the call was made, and the client looks as if it had been refused."""
    monkeypatch.setattr(site.upstream, "pieces", lambda: iter([b"x" * 1024 * 1024] * 16))
    site.upstream.got.clear()
    tokens = [site.token(presenter_of(site.gateway))[1] for _ in range(2)]

    code, problem = site.status(tokens[0])
    answer = site.call(tokens[1], options=(("grpc.max_receive_message_length", 17 * 1024 * 1024),))

    assert ("RESOURCE_EXHAUSTED", True) == (code, "larger than max" in problem)
    assert (16 * 1024 * 1024, 2) == (len(answer.body), len(site.upstream.got))


def test_a_request_over_http_is_known_by_its_certificate(site: Site) -> None:
    """The same token by another certificate is refused, and without any there is no connection."""
    other = Authority().caller("spiffe://example.org/gateway")
    same_authority = site.gateway
    _, token = site.token(presenter_of(same_authority))

    with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
        site.get(token)
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
        site.get(token, by=other)

    assert (200, b'{"done":true}') == site.get(token, by=same_authority)
    assert 403 == site.get(token, by=same_authority)[0]


def test_a_stolen_token_is_refused(site: Site) -> None:
    """Another gateway of the same authority has another certificate."""
    _, token = site.token(Presenter(certificate="d" * 43))

    assert ("PERMISSION_DENIED", "call token refused: bound to another certificate or key") == site.status(token)


def test_a_session_that_is_revoked_between_allow_and_use_opens_nothing(site: Site) -> None:
    """The broker asks the server before each use."""
    session_id, token = site.token(presenter_of(site.gateway))
    site.server.client("lead").revoke_sessions(session_id=session_id, reason="over")
    site.upstream.got.clear()

    code, text = site.status(token)

    assert "PERMISSION_DENIED" == code
    assert text.startswith("call token refused: ")
    assert [] == site.upstream.got
    assert "revoked" == site.record.events[-1].facts["reason"]


@contextmanager
def revoked(site: Site, session_id: str) -> Iterator[None]:
    """Revoke a session."""
    site.server.client("lead").revoke_sessions(session_id=session_id, reason="over")
    yield


@contextmanager
def frozen(site: Site, _: str) -> Iterator[None]:
    """Freeze its tenant while the block runs."""
    freeze = site.server.client("lead").set_freeze(tenant="default", reason="acts strangely")
    yield
    site.server.embedded.sessions.change_freeze(freeze.freeze_id, lambda _: None, wall_at=0.0)


@pytest.mark.parametrize("ended", [revoked, frozen])
def test_a_stream_ends_with_its_session_and_with_a_freeze(
    site: Site, ended: Callable[[Site, str], AbstractContextManager[None]]
) -> None:
    """The feed of sessions tells the broker; who reads it sees that it is not whole."""
    session_id, token = site.token(presenter_of(site.gateway))
    before, begun, left = site.upstream.pieces, threading.Event(), threading.Event()

    def stream() -> Iterator[bytes]:
        yield b"x"
        begun.set()
        left.wait(PATIENCE)

    site.upstream.pieces = stream
    try:
        with ThreadPoolExecutor(1) as threads:
            asking = threads.submit(site.get, token, site.gateway)
            assert begun.wait(PATIENCE)
            with ended(site, session_id):
                try:
                    status = asking.result(PATIENCE)[0]
                except (http.client.HTTPException, OSError):
                    # It had begun.
                    status = HTTPStatus.BAD_GATEWAY
    finally:
        left.set()
        site.upstream.pieces = before

    assert HTTPStatus.BAD_GATEWAY == status
    assert "the session has ended, or is frozen" in site.record.events[-1].facts["problem"]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"path": "m"}, "PERMISSION_DENIED"),
        ({"path": ".."}, "INVALID_ARGUMENT"),
    ],
)
def test_other_arguments_are_refused(site: Site, request_: dict[str, str], code: str) -> None:
    """Those that the token is not for, and those that make no request."""
    _, token = site.token(presenter_of(site.gateway))

    assert code == site.status(token, **request_)[0]


def test_a_server_that_swallows_questions_makes_a_refusal(site: Site, tmp_path: Path, monkeypatch: Any) -> None:
    """Nothing is opened while nobody says whether the token still counts; over a Unix socket, too."""
    monkeypatch.setattr("pdp.broker.serving._CHECK_SECONDS", 0.3)
    _, token = site.token(Presenter())
    with socket.create_server(("127.0.0.1", 0)) as silent, upstream_here() as upstream:
        memory, record = Memory([connection_to(upstream, tenant="default", compartment="")]), Noting()
        port, calls = silent.getsockname()[1], f"unix:{tmp_path}/calls.sock"
        settings = settings_of(tmp_path, f"127.0.0.1:{port}", "x" * 43, calls=calls, http=f"unix:{tmp_path}/http.sock")
        with (
            closing(CheckoutStore(tmp_path / "store" / "broker.sqlite")) as checkouts,
            assembled(settings, memory, checkouts, record, wall=lambda: 0.0) as made,
            listening(settings, made),
        ):
            channel = grpc.insecure_channel(calls)
            stub = broker_pb2_grpc.BrokerServiceStub(channel)  # type: ignore[no-untyped-call]  # generated
            request = broker_pb2.CallRequest(call_token=token, server="notes", tool="read", arguments_json=b"{}")
            request.arguments_json = b'{"path":"n"}'
            with channel, pytest.raises(grpc.RpcError) as refused:
                stub.Call(request, timeout=PATIENCE)

    assert grpc.StatusCode.UNAVAILABLE is refused.value.code()
    assert ([], []) == (memory.opened, upstream.got)


def test_sockets_are_for_their_user_alone_and_removed_at_the_end(tmp_path: Path) -> None:
    """One that a dead process has left is replaced, and one that is served is not taken away."""
    path = tmp_path / "http.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with SocketListener(path):
        assert 0o600 == path.stat().st_mode & 0o777
        with pytest.raises(ConfigurationError, match="cannot listen"):
            SocketListener(path)

    assert not path.exists()


def test_a_door_reaches_a_server_of_mcp_through_the_broker(site: Site) -> None:
    """`pdp mcp` presents its certificate: what greets passes for it, and each call with its call token."""
    before = site.upstream.headers
    site.upstream.headers = [("Content-Type", "application/json"), ("Mcp-Session-Id", "s1")]
    site.upstream.got.clear()
    site.record.events.clear()
    chain, key = site.gateway.write(site.folder, "door")
    roots = site.folder / "roots.pem"
    params = {"name": "read", "arguments": {"path": "n"}}
    _, token = site.token(presenter_of(site.gateway), server="remote")

    async def exchanged() -> list[tuple[int, str, bytes]]:
        port, found = site.addresses[1].rpartition(":")[2], []
        door = DoorUpstream(
            f"https://localhost:{port}/remote/mcp", ca_file=roots, certificate=ClientCertificate(chain=chain, key=key)
        )
        async with door:
            for method, said, header in (
                ("initialize", {}, {}),
                ("tools/call", params, {"pdp-call-token": token, "mcp-session-id": "s1"}),
                ("tools/call", params, {"mcp-session-id": "s1"}),
                ("prompts/get", {}, {"mcp-session-id": "s1"}),
            ):
                body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": said}).encode()
                async with door.exchange("POST", header, body) as answer:
                    found.append((answer.status, answer.headers.get("mcp-session-id", ""), await answer.body()))
        return found

    try:
        greeted, called, bare, other = asyncio.run(exchanged())
    finally:
        site.upstream.headers = before

    assert (200, "s1", b'{"done":true}') == greeted == called
    assert [403, 403] == [bare[0], other[0]]
    assert ["/mcp", "/mcp"] == [path for _, path, _, _ in site.upstream.got]
    assert ["connection.used", "calltoken.used"] == [kind for kind in site.record.kinds if kind.endswith(".used")]
