"""Clients of other languages against the loop: each makes the same calls, and reads the same answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo  # type: ignore[import-untyped]  # its stubs come without a py.typed marker
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # its stubs come without a py.typed marker
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from pdp.app.server import App
from pdp.cli.operate.init import prepare
from pdp.client import Client
from pdp.config.settings import Settings
from pdp.model import Role
from pdp.serving.transports import LOOP
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.inprocess import write_folder
from pdp.v1.authorization_pb2 import (
    AuthorizeRequest,
    AuthorizeResponse,
    AuthorizeStreamRequest,
    AuthorizeStreamResponse,
)
from pdp.v1.decision_pb2 import Call, Decision, Outcome
from pdp.v1.session_pb2 import RevokeSessionsRequest, WatchSessionsRequest, WatchSessionsResponse
from tests.machinery.credentials.authority import Authority
from tests.machinery.servers.notes import DIRECTORY, EVERYTHING, NO_WRITING, READ, WRITE
from tests.machinery.servers.served import approved, settings_in
from tests.serving.languages.speaking import LANGUAGES, Answered, Asked, Place

AUTHORIZE, STREAM, WATCH, REVOKE, HEALTH, REFLECTION = (
    "/pdp.v1.AuthorizationService/Authorize",
    "/pdp.v1.AuthorizationService/AuthorizeStream",
    "/pdp.v1.SessionService/WatchSessions",
    "/pdp.v1.SessionService/RevokeSessions",
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)
PATIENCE = 30.0
# Debian has Netty 4.1.48, which finds no ALPN in a JDK that is newer than itself.
WITHOUT_TLS = frozenset({"Java"})
LARGE = 300_000
# Tools that do no harm: their approver need not have authenticated just now, as no token here says.
BUNDLE = bundle_files(
    policies={"notes": EVERYTHING, "guardrails": NO_WRITING.format(name="no-writing")},
    tools={"notes": [tool(name, {"name": {"type": "string"}}, ["name"]) for name in (READ, WRITE)]},
    overlays={"notes": "risk: read_only"},
    directory=DIRECTORY,
)
# Calls at once beside the others, fewer than a caller has room for.
MANY = 30

pytestmark = pytest.mark.long


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A server on the loop, what its callers need, and the handle of a session."""

    place: Place
    settings: Settings
    handle: str = ""

    def token(self, role: Role) -> str:
        """Return the token of a caller."""
        return (self.settings.tokens_folder / f"{role.value}.token").read_text(encoding="ascii").strip()

    def metadata(self, role: Role = Role.PEP) -> Mapping[str, str]:
        """Return the metadata of a caller."""
        return {"authorization": f"Bearer {self.token(role)}"}

    def client(self, role: Role) -> Client:
        """Return our own client of a caller."""
        return Client(
            self.place.target,
            token=self.token(role),
            timeout=PATIENCE,
            plaintext=not self.place.roots,
            tls=self.place.roots or False,
            tls_certificate=self.place.certificate or None,
            tls_key=self.place.key or None,
        )

    def question(self, tool: str = READ, *, more: int = 0) -> AuthorizeRequest:
        """Return a question about a call; `more` are bytes of its arguments."""
        arguments = b'{"name":"%s"}' % (b"x" * (more or 1))
        call = Call(session_handle=self.handle, server="notes", tool=tool, arguments_json=arguments)
        return AuthorizeRequest(call=call)


@pytest.fixture(scope="module", params=["clear", "TLS", "mutual TLS"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Return a server as in production, without TLS, with it, or with certificates of its callers too."""
    folder, authority = tmp_path_factory.mktemp("languages"), Authority()
    files, caller = authority.files(folder), authority.caller("spiffe://example.org/gateway").write(folder, "caller")
    settings, place = settings_in(folder), Place(target="")
    server = replace(settings.server, address="localhost:0", listener=LOOP, reflection=True, workers=1, plaintext=True)
    if request.param != "clear":
        server = replace(server, plaintext=False, tls_certificate=str(files.certificate), tls_key=str(files.key))
        place = replace(place, roots=str(files.client_roots))
    if request.param == "mutual TLS":
        server = replace(server, tls_client_roots=str(files.client_roots))
        place = replace(place, certificate=str(caller[0]), key=str(caller[1]))
    settings = replace(settings, server=server)
    write_folder(folder / "policies", BUNDLE)
    prepare(settings, development=True)
    callers = settings.callers_file
    callers.write_text(callers.read_text(encoding="utf-8").replace("development: true", ""), encoding="utf-8")
    with ExitStack() as opened:
        app = App(settings)
        app.start()
        opened.callback(app.stop)
        world = World(place=replace(place, target=app.address), settings=settings)
        pep, approver = (opened.enter_context(world.client(role)) for role in (Role.PEP, Role.APPROVER))
        yield replace(world, handle=approved(pep, approver).handle)


def asked(world: World) -> Mapping[str, Asked]:
    """Return the calls that every language makes."""
    pep, streamed = world.metadata(), [AuthorizeStreamRequest(request=world.question(tool)) for tool in (READ, WRITE)]
    allow = Asked(path=AUTHORIZE, messages=[world.question()], metadata=pep)
    heartbeats = WatchSessionsRequest()
    heartbeats.heartbeat.seconds = 1
    return {
        "allow": allow,
        "deny": replace(allow, messages=[world.question(WRITE)]),
        "stream": Asked(path=STREAM, messages=streamed * 5, metadata=pep),
        "health": Asked(path=HEALTH, messages=[HealthCheckRequest()], metadata={}),
        "reflection": Asked(path=REFLECTION, messages=[ServerReflectionRequest(list_services="")], metadata=pep),
        "another role": Asked(path=REVOKE, messages=[RevokeSessionsRequest(user="alice", reason="r")], metadata=pep),
        "nobody": replace(allow, metadata={}),
        "no method": replace(allow, path="/pdp.v1.AuthorizationService/authorize"),
        "too large": replace(allow, messages=[world.question(more=LARGE)]),
        "left": Asked(path=WATCH, messages=[heartbeats], metadata=pep, most=1),
        "late": Asked(path=WATCH, messages=[heartbeats], metadata=pep, milliseconds=1500),
        **{f"one of many: {number}": allow for number in range(MANY)},
    }


def _outcome(decision: Decision) -> str:
    return Outcome.Name(decision.outcome).removeprefix("OUTCOME_").lower()


def content(path: str, messages: Sequence[bytes]) -> Sequence[str]:
    """Return what messages say, in words."""
    if path == AUTHORIZE:
        return [_outcome(AuthorizeResponse.FromString(wire).decision) for wire in messages]
    if path == STREAM:
        return [_outcome(AuthorizeStreamResponse.FromString(wire).decision) for wire in messages]
    if path == HEALTH:
        return [
            HealthCheckResponse.ServingStatus.Name(HealthCheckResponse.FromString(wire).status) for wire in messages
        ]
    if path == REFLECTION:
        services = ServerReflectionResponse.FromString(messages[0]).list_services_response.service
        return [one.name for one in services if one.name.endswith("AuthorizationService")]
    return ["a revision" for wire in messages if WatchSessionsResponse.FromString(wire).revision]


def reason(answered: Answered) -> str:
    """Return the reason in the details of a status."""
    status, found = Status.FromString(answered.details), ErrorInfo()
    for one in status.details:
        one.Unpack(found)
    return str(found.reason)


EXPECTED: Mapping[str, tuple[str, Sequence[str], str]] = {
    "allow": ("OK", ["allow"], ""),
    "deny": ("OK", ["deny"], ""),
    "stream": ("OK", ["allow", "deny"] * 5, ""),
    "health": ("OK", ["SERVING"], ""),
    "reflection": ("OK", ["pdp.v1.AuthorizationService"], ""),
    "another role": ("PERMISSION_DENIED", [], "PERMISSION_DENIED"),
    "nobody": ("UNAUTHENTICATED", [], "UNAUTHENTICATED"),
    "no method": ("UNIMPLEMENTED", [], ""),
    "too large": ("RESOURCE_EXHAUSTED", [], ""),
    "left": ("CANCELLED", ["a revision"], ""),
    "late": ("DEADLINE_EXCEEDED", [], ""),
    **{f"one of many: {number}": ("OK", ["allow"], "") for number in range(MANY)},
}
CODES = {int(code.value[0]): code.name for code in grpc.StatusCode}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_client_of_another_language(world: World, language: str) -> None:
    """Unary calls, streams, deadlines, refusals with their details: all at once, on as many connections as it opens."""
    if world.place.roots and language in WITHOUT_TLS:
        pytest.skip(f"the library of {language} that Debian has cannot use its TLS for HTTP/2")
    calls = asked(world)
    answers = dict(zip(calls, LANGUAGES[language](world.place, [*calls.values()]), strict=True))
    seen = {
        name: (CODES[one.code], [*content(calls[name].path, one.messages)][:10], reason(one))
        for name, one in answers.items()
    }
    # How many came in time says how busy the machine is.
    seen["late"][1].clear()

    assert seen == EXPECTED
    assert (
        f"larger than max ({len(calls['too large'].messages[0].SerializeToString())} vs." in answers["too large"].text
    )
    assert "Method not found!" == answers["no method"].text
