"""JSON Web Tokens at the whole server, on its settings and over TLS: who gets in, and what changes while it runs."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeAlias

import grpc
import pytest
from google.protobuf.message import Message

from pdp.app.server import App
from pdp.cli.operate.init import prepare
from pdp.client import Client, InvalidRequestError, PermissionDeniedError
from pdp.clock import utc_text
from pdp.config.settings import CallerSettings, JWTSettings, PolicySettings, ServerSettings, Settings
from pdp.errors import ConfigurationError
from pdp.testing.clock import FakeClock
from pdp.v1.session_pb2 import SESSION_STATE_ACTIVE, ApproveSessionRequest, ListSessionsRequest
from tests.identity.tokencorpus import CORPUS
from tests.machinery.credentials.authority import Authority
from tests.machinery.credentials.issuer import AUDIENCE, ISSUER, Issuer
from tests.machinery.servers.notes import notes_bundle

PATIENCE = 60.0
LIST = "/pdp.v1.SessionService/ListSessions"
APPROVE = "/pdp.v1.SessionService/ApproveSession"
Code: TypeAlias = grpc.StatusCode


@dataclass(frozen=True)
class Served:
    """A server that believes an issuer, a channel to it, and the files that say whom it believes."""

    address: str
    roots: bytes
    channel: grpc.Channel
    issuer: Issuer
    clock: FakeClock
    keys_file: Path
    denied_file: Path
    settings: Settings

    def client(self, token: str) -> Client:
        """Return a client that presents a token."""
        roots = self.keys_file.with_name("roots.pem")
        return Client(self.address, token=token, tls=roots, timeout=PATIENCE, management_timeout=PATIENCE)

    def code(self, token: bytes, path: str = LIST, message: Message | None = None) -> Code:
        """Return how an RPC with a token ends, by default a listing of sessions."""
        call = self.channel.unary_unary(path)
        try:
            call(
                (message or ListSessionsRequest()).SerializeToString(),
                metadata=(("authorization", f"Bearer {token.decode('latin-1')}"),),
                timeout=PATIENCE,
            )
        except grpc.RpcError as error:
            code: Code = error.code()
            return code
        return Code.OK

    def comes_to(self, token: str, code: Code) -> None:
        """Ask until a listing ends with a code; the test's own time-out ends this otherwise."""
        while self.code(token.encode()) is not code:
            pass


@contextmanager
def serve(folder: Path, issuer: Issuer, keys_url: str = "") -> Iterator[Served]:
    """Serve with callers known by JSON Web Tokens."""
    authority, clock = Authority(), FakeClock()
    certificate, key = authority.server().write(folder, "server")
    (folder / "roots.pem").write_bytes(authority.roots)
    keys, denied = folder / "keys.json", folder / "denied.yaml"
    keys.write_bytes(issuer.jwks())
    denied.write_text("")
    for name, content in notes_bundle().items():
        path = folder / "policies" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    settings = Settings(
        data_dir=str(folder / "data"),
        server=ServerSettings(address="localhost:0", tls_certificate=str(certificate), tls_key=str(key)),
        callers=CallerSettings(denied_file=str(denied)),
        jwt=JWTSettings(
            issuer=ISSUER,
            audience=AUDIENCE,
            keys_url=keys_url,
            keys_file="" if keys_url else str(keys),
            console_client="console",
        ),
        policies=PolicySettings(folder=str(folder / "policies"), watch=False),
    )
    prepare(settings)
    with settings.callers_file.open("a", encoding="utf-8") as file:
        file.write("alice: {jwt_subject: 'alice@example.org', roles: [approver, auditor]}\n")
    app = App(settings, clock=clock)
    app.start()
    try:
        trusting = grpc.ssl_channel_credentials(authority.roots)
        with grpc.secure_channel(app.address, trusting) as channel:
            yield Served(app.address, authority.roots, channel, issuer, clock, keys, denied, settings)
    finally:
        app.stop()


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    """Return the issuer that is believed."""
    return Issuer()


@pytest.fixture
def served(tmp_path: Path, issuer: Issuer) -> Iterator[Served]:
    """Serve with keys from a file."""
    with serve(tmp_path, issuer) as served:
        yield served


def test_a_person_approves_by_a_web_token(served: Served) -> None:
    """A gateway with a token asks, a person with a JSON Web Token approves, and the record names the person."""
    gateway = (served.settings.tokens_folder / "pep.token").read_text().strip()
    with closing(served.client(gateway)) as pep, closing(served.client(served.issuer.token())) as person:
        asked = pep.request_session(user="alice", agent="coder", purpose="read", tools=["notes/*"])
        shown = person.get_session(asked.session.session_id)
        person.approve_session(shown.session_id, request_digest=shown.request_digest)
        answer = pep.authorize(asked.session_handle, "notes", "read_note", {"name": "x"})

    assert answer.allowed
    assert '"alice"' in "".join(path.read_text() for path in sorted(served.settings.record_folder.rglob("*.jsonl")))


@pytest.mark.parametrize(
    ("seconds", "code"),
    [(0.0, Code.OK), (300.0, Code.OK), (301.0, Code.PERMISSION_DENIED), (None, Code.PERMISSION_DENIED)],
)
def test_a_person_who_is_gone_approves_nothing_that_cannot_be_undone(
    served: Served, seconds: float | None, code: Code
) -> None:  # fmt: skip
    """Destructive tools want an approver who authenticated in the last five minutes, whatever the token's end."""
    now = served.clock.now().wall_at
    without = ("auth_time",) if seconds is None else ()
    token = served.issuer.token(iat=now - 1, auth_time=now - (seconds or 0.0), without=without)
    gateway = (served.settings.tokens_folder / "pep.token").read_text().strip()
    with closing(served.client(gateway)) as pep:
        asked = pep.request_session(user="alice", agent="coder", purpose="write", tools=["notes/*"]).session
    approval = ApproveSessionRequest(session_id=asked.session_id, request_digest=asked.request_digest)

    assert code is served.code(token.encode(), APPROVE, approval)


def test_a_new_log_in_lets_a_person_approve_by_its_id_token(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    """A wrong ID token is named as the wrong field, a right one approves, and neither is written down."""
    now = served.clock.now().wall_at
    gateway = (served.settings.tokens_folder / "pep.token").read_text().strip()
    head, past = {"typ": "JWT"}, now - 3000
    other, right = (
        served.issuer.token(header=head, aud=audience, iat=now, auth_time=now) for audience in ("other", "console")
    )
    with closing(served.client(gateway)) as pep, closing(served.client(served.issuer.token(auth_time=past))) as person:
        asked = pep.request_session(user="alice", agent="coder", purpose="write", tools=["notes/*"]).session
        approve = partial(person.approve_session, asked.session_id, request_digest=asked.request_digest)
        with pytest.raises(PermissionDeniedError):
            approve()
        with pytest.raises(
            InvalidRequestError, match="`pdp-id-token`: the ID token is not accepted: it is for another"
        ):
            approve(id_token=other)
        approved = approve(id_token=right)
    written = [path.read_text() for path in sorted(served.settings.record_folder.rglob("*.jsonl"))]

    assert SESSION_STATE_ACTIVE == approved.state
    assert utc_text(now) in "".join(written)
    assert not any(token.rpartition(".")[2] in text for token in (other, right) for text in (caplog.text, *written))


def test_a_server_that_others_can_reach_refuses_callers_for_development(served: Served) -> None:
    """With a certificate a server starts with no caller that was made for trying things out."""
    text = served.settings.callers_file.read_text()
    served.settings.callers_file.write_text(text + "trial: {jwt_subject: trial, roles: [pep], development: true}\n")

    with pytest.raises(ConfigurationError, match="`trial` is for development, and others can reach this server"):
        App(served.settings)


def test_a_token_for_somebody_who_is_not_there_approves_nothing(served: Served) -> None:
    """With an actor it lists, for it is of an auditor still, and may not approve."""
    acting = served.issuer.token(act={"sub": "agent"})
    approval = ApproveSessionRequest(session_id="ses_", request_digest="sha256:")

    found = (served.code(acting.encode()), served.code(acting.encode(), APPROVE, approval))

    assert (Code.OK, Code.PERMISSION_DENIED) == found


def test_every_wrong_token_is_refused_over_tls(served: Served) -> None:
    """The whole corpus at a real server: none gets in, and a good one still does."""
    # The first unknown key has the keys read again, and the caller told to come back.
    assert Code.UNAVAILABLE is served.code(served.issuer.token(header={"kid": "unknown"}).encode())
    answers: dict[str, Code | None] = {}
    for name, (make, _) in CORPUS.items():
        token = make(served.issuer)
        # What HTTP/2 itself does not carry comes to no server.
        answers[name] = served.code(token.encode()) if token.isascii() and token.isprintable() else None

    assert {Code.UNAUTHENTICATED} == {code for code in answers.values() if code is not None}
    assert len([code for code in answers.values() if code]) > 200
    assert Code.OK is served.code(served.issuer.token().encode())


def test_a_web_token_ends_while_the_server_runs(served: Served) -> None:
    """A token that was accepted is refused from its end on."""
    token = served.issuer.token(exp=int(served.clock.now().wall_at) + 60).encode()
    before = served.code(token)
    served.clock.advance(60.0)

    assert (Code.OK, Code.UNAUTHENTICATED) == (before, served.code(token))


@pytest.mark.parametrize("entry", ["callers: [alice]", "jwt_ids: [token-1]"])
def test_what_is_denied_is_refused_from_then_on(served: Served, entry: str) -> None:
    """A caller or a token that comes to stand on the deny-list is refused without a restart."""
    token = served.issuer.token()
    before = served.code(token.encode())
    other = served.denied_file.with_name("other.yaml")
    other.write_text(entry)
    os.replace(other, served.denied_file)  # noqa: PTH105 - in one step, as an operator would

    assert Code.OK is before
    served.comes_to(token, Code.UNAUTHENTICATED)


def test_keys_are_rotated_in_the_file(served: Served) -> None:
    """A new set of keys counts without a restart: tokens of the old key are refused, those of the new one not."""
    later = Issuer()
    other = served.keys_file.with_name("other.json")
    other.write_bytes(later.jwks())
    os.replace(other, served.keys_file)  # noqa: PTH105 - in one step, as an operator would

    served.comes_to(served.issuer.token(), Code.UNAUTHENTICATED)
    assert Code.OK is served.code(later.token().encode())


def test_keys_come_from_a_url(tmp_path: Path, issuer: Issuer) -> None:
    """With `jwt.keys_url` the keys are the issuer's; an unknown key has them read again."""
    published = [issuer.jwks("ES256")]

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(published[-1])))
            self.end_headers()
            self.wfile.write(published[-1])

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as page:
        threading.Thread(target=page.serve_forever, daemon=True).start()
        with serve(tmp_path, issuer, f"http://127.0.0.1:{page.server_port}/keys") as served:
            before = served.code(issuer.token("RS256").encode())
            published.append(issuer.jwks())
            served.clock.advance(11.0)
            served.comes_to(issuer.token("RS256"), Code.OK)
            other = served.code(issuer.token().encode())
        page.shutdown()

    assert before in {Code.UNAUTHENTICATED, Code.UNAVAILABLE}
    assert Code.OK is other
