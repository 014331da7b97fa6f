"""Nothing secret leaves the PDP: unique texts in every field of every RPC, and where each of them is found again."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from pdp.app.server import App
from pdp.cli.operate.init import prepare
from pdp.client import CallTokenRequest, Client
from pdp.client.connection import Connection
from pdp.clock import SystemClock
from pdp.config.settings import CallTokenSettings, PolicySettings, ServerSettings, SessionSettings, Settings
from pdp.model import Role
from pdp.policy.contents import version_of
from pdp.server.rpcs import ACCESS, OLD_REFLECTION, REFLECTION, RPCS
from pdp.serving.health import HEALTH
from pdp.serving.rpc import RPC, Shape
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.testing.bundles import bundle_files, tool, with_terms
from pdp.testing.inprocess import write_folder
from pdp.testing.otlp import OTLPReceiver
from pdp.v1 import authorization_pb2 as calls
from pdp.v1.session_pb2 import RequestSessionRequest
from tests.machinery.rpcs.row import LOGS, RECORD, STORE, TRACES
from tests.machinery.rpcs.table import OWN
from tests.machinery.servers.waitingcalls import waiting
from tests.record.canaries import new_canary, plant, plantings, texts_of

PATIENCE = 60.0
AUDIENCE = "https://git.example"

# A permit, a rule that overflows for large numbers, and a fact that the gateway may state.
FILES = bundle_files(
    policies={
        "git": """
@id("git/all") permit (principal, action, resource);
@id("git/few") forbid (principal, action == Action::"git/log", resource)
when { context.input has count && context.input.count * 4 > 4000000000000000000 };
"""
    },
    tools={
        "git": [tool("log", {"repo": {"type": "string"}, "team": {"type": "string"}, "count": {"type": "integer"}})]
    },
    overlays={"git": f"audiences: [{AUDIENCE}]\ntools: {{log: {{risk: mutating}}}}"},
    directory="users: {ada: {}}\nagents: {coder: {ceiling: [git/*]}}",
    manifest="name: canaries\nlabels: {harmless: {meaning: none}, untrusted: {meaning: none}}\n"
    "caller_facts: {properties: {team: {type: string}, count: {type: integer}}}\n",
    schema=with_terms("team?: String, count?: Long"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A session of the test's own."""

    id: str
    handle: str
    digest: str
    decision_id: str = "dec_" + "a" * 26
    outcome_token: str = "pdpo_" + "a" * 200
    access_request_id: str = "acc_" + "a" * 26
    access_digest: str = "sha256:" + "0" * 64
    bundle_version: str = version_of(FILES)

    @property
    def access_session_id(self) -> str:
        """Return the public id."""
        return self.id


LOST = Opened(id="ses_" + "a" * 26, handle="pdps_" + "a" * 43, digest="sha256:" + "0" * 64)
_SIGNALS: Mapping[type, str] = {
    ExportTraceServiceRequest: "traces",
    ExportMetricsServiceRequest: "metrics",
    ExportLogsServiceRequest: "otlp logs",
}


@dataclass(slots=True, kw_only=True)
class Found:
    """What was sent, and everything in which it could be found again, by place."""

    sent: list[tuple[str, str, str]] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)
    places: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    errors: dict[str, bytes] = field(default_factory=dict)
    plain: dict[str, bytes] = field(default_factory=dict)

    def where(self, canary: str) -> set[str]:
        """Return the places that hold a text."""
        text = canary.encode()
        places = {place for place, contents in self.places.items() if any(text in content for content in contents)}
        return places | ({"error"} if text in self.errors.get(canary, b"") else set())


class _Speaker:
    """Speaks to the server in raw messages, as whoever may call an RPC."""

    def __init__(
        self, channel: grpc.Channel, app: App, settings: Settings, pep: Client, approver: Client, found: Found
    ) -> None:
        self._channel, self._embedded, self._found = channel, app.embedded, found
        self._pep, self._approver = pep, approver
        self._tokens = {
            role: (settings.tokens_folder / f"{role.value}.token").read_text("ascii").strip() for role in Role
        }
        found.secrets |= {f"token of {role.value}": token for role, token in self._tokens.items()}

    def open(self, rpc: RPC) -> Opened:
        """Return a new session for an RPC: one that waits or is active, and where it is asked for, has a call wait."""
        approved = not OWN[rpc.method].waits
        opened = self._pep.request_session(user="ada", agent="coder", purpose="notes", tools=("git/*",))
        if approved:
            self._approver.approve_session(opened.session.session_id, request_digest=opened.session.request_digest)
        wanted = (CallTokenRequest(audience=AUDIENCE),)
        answer = self._pep.authorize(opened.session_handle, "git", "log", {"repo": "web"}, call_tokens=wanted)
        one = Opened(
            id=opened.session.session_id,
            handle=opened.session_handle,
            digest=opened.session.request_digest,
            decision_id=answer.decision_id,
            outcome_token=answer.outcome_token or LOST.outcome_token,
        )
        if rpc.service == ACCESS:
            waits = waiting(self._embedded, SystemClock(), one.id, by="pep")
            shown = self._approver.get_access_request(waits.id)
            one = replace(one, access_request_id=waits.id, access_digest=shown.request_digest)
        if answer.call_tokens:
            self._found.secrets[f"call token of {one.id}"] = answer.call_tokens[0].token
        if answer.outcome_token:
            self._found.secrets[f"outcome token of {one.id}"] = answer.outcome_token
        self._found.secrets[f"handle of {one.id}"] = one.handle
        return one

    def send(self, path: str, rpc: RPC, wire: bytes, *, token: str = "", more: tuple[tuple[str, str], ...] = ()) -> Any:
        """Call an RPC; return its error, or None."""
        role = Role(next(iter(OWN[rpc.method].roles)))
        metadata = (("authorization", f"Bearer {token or self._tokens[role]}"), *more)
        try:
            if rpc.shape in (Shape.FEED, Shape.WATCH):
                feed = self._channel.unary_stream(path)(wire, metadata=metadata, timeout=PATIENCE)
                next(feed)
                feed.cancel()
            elif rpc.shape is not Shape.EXCHANGE:
                self._channel.unary_unary(path)(wire, metadata=metadata, timeout=PATIENCE)
            else:
                answers = self._channel.stream_stream(path)(iter([wire]), metadata=metadata, timeout=PATIENCE)
                answer = calls.AuthorizeStreamResponse.FromString(next(answers))
                return answer.error if answer.HasField("error") else None
        except grpc.RpcError as error:
            return error
        return None


# They look a session up by its handle.
_HANDLED = {
    name
    for name, row in OWN.items()
    if any(path[-1] == "session_handle" for path in texts_of(row.ask(LOST).DESCRIPTOR))
}


def _asked(rpc: RPC, session: Opened) -> Message:
    message = OWN[rpc.method].ask(session)
    if isinstance(message, RequestSessionRequest):
        # One of its own, to which a gateway may state attributes.
        message.ClearField("parent_session_handle")
    return message


def _told(error: Any) -> bytes:
    if error is None:
        return b""
    if isinstance(error, grpc.RpcError):
        return f"{error.details()} {error.trailing_metadata()}".encode()
    return str(error).encode()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Send a canary in each field of each RPC and in each header, and return where all of them were found."""
    folder, found = tmp_path_factory.mktemp("canaries"), Found()
    logged: list[bytes] = []
    with OTLPReceiver() as receiver, _logging(logged), pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        settings = _settings(folder)
        with _speaking(settings, found) as speaker:
            for path, rpc in RPCS.items():
                if rpc.service not in (HEALTH, REFLECTION, OLD_REFLECTION):
                    _send_all(speaker, path, rpc, found)
                    _send_headers(speaker, path, rpc, found)
            # The wrong way: nobody meant this to happen, and the message goes to the server's log.
            environment.setattr(SQLiteSessionStore, "view", _broken)
            for path, rpc in RPCS.items():
                if rpc.method in _HANDLED:
                    _send_all(speaker, path, rpc, found, session=LOST)
    for request in receiver.requests:
        found.places[_SIGNALS[type(request)]].append(request.SerializeToString())
    found.places["server log"] += logged
    data = Path(settings.data_dir)
    for file in data.rglob("*"):
        if file.is_file() and settings.tokens_folder not in file.parents:
            parts = file.relative_to(data).parts
            place = "record" if parts[0] == "record" else "store" if "sqlite" in file.name else "files"
            found.places[place].append(file.read_bytes())
    return found


def _settings(folder: Path) -> Settings:
    write_folder(folder / "policies", FILES)
    settings = Settings(
        data_dir=str(folder / "data"),
        server=ServerSettings(address="127.0.0.1:0"),
        policies=PolicySettings(folder=str(folder / "policies"), watch=False),
        sessions=SessionSettings(trusted_attributes=("team",)),
        call_tokens=CallTokenSettings(issuer="https://pdp.example"),
    )
    prepare(settings, development=True)
    return settings


@contextmanager
def _speaking(settings: Settings, found: Found) -> Iterator[_Speaker]:
    app = App(settings)
    app.start()
    tokens = settings.tokens_folder
    try:
        with (
            Client(app.address, token_file=tokens / "pep.token", timeout=PATIENCE, data_dir=settings.data_dir) as pep,
            Client(
                app.address,
                token_file=tokens / "approver.token",
                management_timeout=PATIENCE,
                data_dir=settings.data_dir,
            ) as approver,
            Connection.to(app.address, data_dir=settings.data_dir).open(grpc) as channel,
        ):
            yield _Speaker(channel, app, settings, pep, approver, found)
    finally:
        app.stop()


@contextmanager
def _logging(logged: list[bytes]) -> Iterator[None]:
    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged.append(logging.Formatter().format(record).encode())

    keeper, root = Keeper(), logging.getLogger()
    before = root.level
    root.addHandler(keeper)
    root.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.removeHandler(keeper)
        root.setLevel(before)


def _broken(*_: object, **__: object) -> None:
    raise RuntimeError("broken on purpose")


def _send_all(speaker: _Speaker, path: str, rpc: RPC, found: Found, *, session: Opened | None = None) -> None:
    row, lost = OWN[rpc.method], session is not None
    session = session or speaker.open(rpc)
    if not lost:
        found.plain[rpc.method] = _told(speaker.send(path, rpc, _asked(rpc, session).SerializeToString()))
    for place, shape in plantings(_asked(rpc, session).DESCRIPTOR):
        if row.spends and not lost:
            session = speaker.open(rpc)
        one = plant(_asked(rpc, session), place, shape)
        wire = one.message.SerializeToString()
        found.sent.append((rpc.method, one.path, one.canary))
        found.errors[one.canary] = _told(speaker.send(path, rpc, wire))
        # The same bytes, cut: what cannot be read is not shown either.
        found.errors[one.canary] += _told(speaker.send(path, rpc, wire[:-1]))


def _send_headers(speaker: _Speaker, path: str, rpc: RPC, found: Found) -> None:
    wire = _asked(rpc, speaker.open(rpc)).SerializeToString()
    for name in ("traceparent", "tracestate", "x-anything", "authorization"):
        canary = new_canary()
        found.sent.append((rpc.method, f"header {name}", canary))
        for sent in (wire, b"\xff"):
            if name == "authorization":
                told = speaker.send(path, rpc, sent, token=canary)
            else:
                told = speaker.send(path, rpc, sent, more=((name, canary),))
            found.errors[canary] = found.errors.get(canary, b"") + _told(told)


def test_every_rpc_has_a_message() -> None:
    """A new RPC cannot be left out: all that are not standard ones get canaries."""
    assert {rpc.method for rpc in RPCS.values() if rpc.service not in (HEALTH, REFLECTION, OLD_REFLECTION)} == set(OWN)


def test_the_messages_are_answered(found: Found) -> None:
    """Without a canary each message is answered, so that a canary gets as far as it can."""
    answered = {name: not told for name, told in found.plain.items()}

    assert answered == {name: row.status == "OK" for name, row in OWN.items()}


def test_the_places_were_looked_at(found: Found) -> None:
    """Records, traces, metrics, logs, the store and other files were all there to be searched, and searched rightly."""
    texts = {place: b"".join(contents) for place, contents in found.places.items()}

    assert {place for place, text in texts.items() if text} == {
        RECORD,
        TRACES,
        "metrics",
        LOGS,
        STORE,
        "files",
        "server log",
    }
    assert b"pdp.decisions" in texts["metrics"]
    assert b"broken on purpose" in texts["server log"]


def test_the_failures_were_reached(found: Found) -> None:
    """Canaries went through each way in which a call can fail, down to an error of the engine and of the store."""
    text = b"".join(found.places[RECORD])

    for basis in ("permit", "policy_error", "invalid_arguments", "unknown_tool", "session_not_found", "tool_changed"):
        assert f'"basis":"{basis}"'.encode() in text, basis
    assert b'"status":"INTERNAL"' in text


def test_nothing_is_found_where_it_may_not_be(found: Found) -> None:
    """Of all that was sent, only the fields named above are found again, and only in the places named there."""
    seen: dict[tuple[str, str], set[str]] = defaultdict(set)
    for method, path, canary in found.sent:
        seen[method, path] |= found.where(canary)

    assert {key: places for key, places in seen.items() if places} == {
        (method, path): set(places) for method, row in OWN.items() for path, places in row.seen_again.items()
    }


def test_no_handle_and_no_token_is_found(found: Found) -> None:
    """The handle of no session and the token of no caller stands anywhere but in the file that is meant for it."""
    assert len(found.secrets) > 50
    assert [name for name, secret in found.secrets.items() if found.where(secret)] == []
