"""Two tenants on one server over TLS: in one everybody has a certificate, in the other a JSON Web Token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from pdp.app.embedded import Embedded
from pdp.app.server import App
from pdp.cli.operate.init import prepare
from pdp.config.settings import JWTSettings, PolicySettings, ServerSettings, Settings
from pdp.model import Role
from pdp.policy.contents import version_of
from pdp.server.rpcs import RPCS
from pdp.serving.rpc import Shape
from pdp.testing.clock import FakeClock
from pdp.testing.inprocess import write_folder
from pdp.v1.access_pb2 import GetAccessRequestRequest
from pdp.v1.session_pb2 import ApproveSessionRequest, RequestSessionRequest
from tests.machinery.credentials.authority import Authority
from tests.machinery.credentials.issuer import AUDIENCE, ISSUER, Issuer
from tests.machinery.rpcs.asking import a_call
from tests.machinery.rpcs.services import SERVICES
from tests.machinery.servers.rawmessages import BUNDLE, UNKNOWN_ACCESS, UNKNOWN_HANDLE, UNKNOWN_ID
from tests.machinery.servers.waitingcalls import waiting
from tests.machinery.ways.notation import changed, files_of

PATIENCE = 60.0

CERTIFIED, TOKENED = "certified", "tokened"
TENANTS = (CERTIFIED, TOKENED)
# Opens sessions that are none of `pep`, in each tenant.
SIBLING = "sibling"
# A gateway whose entry a test gives lists, in each tenant.
NARROW = "narrow"

_STANDARD = tuple(
    service for module in (health_pb2, reflection_pb2) for service in module.DESCRIPTOR.services_by_name.values()
)
METHODS: Mapping[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method for service in (*SERVICES, *_STANDARD) for method in service.methods
}
# Of the other shapes a call has one message here, and one answer.
_STREAMS = {Shape.EXCHANGE: "stream_stream", Shape.FEED: "unary_stream", Shape.WATCH: "unary_stream"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of an RPC: an answer, or the whole status of a refusal."""

    message: Any = None
    code: grpc.StatusCode = grpc.StatusCode.OK
    details: str = ""
    trailing: tuple[tuple[str, str | bytes], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A session that an RPC is about."""

    handle: str = UNKNOWN_HANDLE
    id: str = UNKNOWN_ID
    digest: str = "sha256:" + "0" * 64
    decision_id: str = "dec_" + "u" * 26
    outcome_token: str = "pdpo_" + "u" * 200
    access_request_id: str = UNKNOWN_ACCESS
    access_digest: str = "sha256:" + "0" * 64

    @property
    def access_session_id(self) -> str:
        """Return the public id."""
        return self.id

    bundle_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """A caller: the channel of its certificate, and its token if that is what it is known by."""

    channel: grpc.Channel
    token: str = ""

    def ask(self, path: str, message: Message) -> Answer:
        """Call an RPC, and return the answer or refusal; of a stream, the first."""
        shape, wire = RPCS[path].shape, message.SerializeToString()
        call = getattr(self.channel, _STREAMS.get(shape, "unary_unary"))(path)
        metadata = (("authorization", f"Bearer {self.token}"),) if self.token else ()
        sent = iter([wire]) if shape is Shape.EXCHANGE else wire
        try:
            found = call(sent, metadata=metadata, timeout=PATIENCE)
            if shape in _STREAMS:
                stream, found = found, next(found)
                stream.cancel()
        except grpc.RpcError as error:
            return Answer(code=error.code(), details=error.details(), trailing=tuple(error.trailing_metadata() or ()))
        return Answer(message=GetMessageClass(METHODS[path].output_type).FromString(found))

    def must(self, path: str, message: Message) -> Any:
        """Call an RPC that must be answered."""
        answer = self.ask(path, message)
        assert answer.code is grpc.StatusCode.OK, answer
        return answer.message


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The server's callers by tenant and name; each tenant has one for each role, `sibling` and `narrow`.

    `nobody` holds, for each tenant, a stranger with a good credential of its kind that makes no caller. `narrow` gives
    the gateway of that name in a tenant the lists for whom it may ask, from now on.
    """

    actors: Mapping[tuple[str, str], Actor]
    nobody: Mapping[str, Actor]
    bundle_version: str
    embedded: Embedded
    clock: FakeClock
    narrow: Callable[[str, Mapping[str, list[str]]], None]

    def actor(self, tenant: str, name: str) -> Actor:
        """Return a caller of a tenant, by the name of its role."""
        return self.actors[tenant, name]

    def waiting(self, tenant: str, by: str) -> Subject:
        """Return a session that a gateway of a tenant asked for, and that waits for approval."""
        wanted = RequestSessionRequest(
            user="ada", agent="coder", purpose="to be seen", tool_patterns=["git/*"], may_delegate=True
        )
        made = self.actor(tenant, by).must("/pdp.v1.SessionService/RequestSession", wanted)
        session = made.session
        return Subject(
            handle=made.session_handle,
            id=session.session_id,
            digest=session.request_digest,
            bundle_version=self.bundle_version,
        )

    def active(self, tenant: str, by: str) -> Subject:
        """Return an active session of a gateway, about which one call was decided."""
        subject = self.waiting(tenant, by)
        approval = ApproveSessionRequest(session_id=subject.id, request_digest=subject.digest)
        self.actor(tenant, Role.APPROVER.value).must("/pdp.v1.SessionService/ApproveSession", approval)
        asked = self.actor(tenant, by).must("/pdp.v1.AuthorizationService/Authorize", a_call(subject.handle))
        made = asked.decision
        return replace(subject, decision_id=made.decision_id, outcome_token=made.outcome_token)

    def asked(self, tenant: str, by: str) -> Subject:
        """Return an active session of a gateway, of which a call waits for a person."""
        subject = self.active(tenant, by)
        opened = waiting(self.embedded, self.clock, subject.id, by=_caller_id(tenant, by))
        shown = self.actor(tenant, Role.APPROVER.value).must(
            "/pdp.v1.AccessService/GetAccessRequest", GetAccessRequestRequest(access_request_id=opened.id)
        )
        return replace(subject, access_request_id=opened.id, access_digest=shown.request_digest)


@contextmanager
def two_tenants(folder: Path) -> Iterator[World]:
    """Serve with mutual TLS, an issuer and reflection, to two tenants with callers of every role."""
    authority, issuer = Authority(), Issuer()
    tls = authority.files(folder)
    keys = folder / "keys.json"
    keys.write_bytes(issuer.jwks())
    names = (*(role.value for role in Role), SIBLING, NARROW)
    approvers = {_caller_id(tenant, "approver"): {"groups": ["leads"]} for tenant in TENANTS}
    files = files_of(changed(BUNDLE, {"directory": {"users": approvers}}))
    write_folder(folder / "policies", files)
    settings = Settings(
        data_dir=str(folder / "data"),
        server=ServerSettings(
            address="localhost:0",
            reflection=True,
            tls_certificate=str(tls.certificate),
            tls_key=str(tls.key),
            tls_client_roots=str(tls.client_roots),
        ),
        jwt=JWTSettings(issuer=ISSUER, audience=AUDIENCE, keys_file=str(keys)),
        policies=PolicySettings(folder=str(folder / "policies"), watch=False),
    )
    prepare(settings)
    lines = {(tenant, name): _caller_line(tenant, name) for tenant in TENANTS for name in names}
    settings.callers_file.write_text("\n".join(lines.values()))
    clock = FakeClock()
    app = App(settings, clock=clock)
    app.start()
    with ExitStack() as ending:
        ending.callback(app.stop)

        def channel(uri: str) -> grpc.Channel:
            trusting = authority.caller(uri).credentials(authority.roots)
            return ending.enter_context(grpc.secure_channel(app.address, trusting))

        # Whoever has a token needs a certificate as well, of anybody.
        anybody = channel("spiffe://example.org/console")

        def actor(tenant: str, name: str) -> Actor:
            if _by_certificate(tenant, name):
                return Actor(channel=channel(_spiffe_id(tenant, name)))
            return Actor(channel=anybody, token=issuer.token(sub=_caller_id(tenant, name)))

        actors = {(tenant, name): actor(tenant, name) for tenant in TENANTS for name in names}
        nobody = {CERTIFIED: Actor(channel=anybody), TOKENED: Actor(channel=anybody, token=issuer.token(sub="nobody"))}

        def narrow(tenant: str, lists: Mapping[str, list[str]]) -> None:
            changed_line = {(tenant, NARROW): _caller_line(tenant, NARROW, lists)}
            settings.callers_file.write_text("\n".join((lines | changed_line).values()))
            app.reload_callers()

        yield World(
            actors=actors,
            nobody=nobody,
            bundle_version=version_of(files),
            embedded=app.embedded,
            clock=clock,
            narrow=narrow,
        )


def _by_certificate(tenant: str, name: str) -> bool:
    # A certificate names a program, and an approver is a person.
    return tenant == CERTIFIED and name != Role.APPROVER.value


def _caller_id(tenant: str, name: str) -> str:
    return f"{tenant}-{name}"


def _spiffe_id(tenant: str, name: str) -> str:
    return f"spiffe://example.org/{tenant}/{name}"


def _caller_line(tenant: str, name: str, lists: Mapping[str, list[str]] = MappingProxyType({})) -> str:
    role = Role.PEP.value if name in (SIBLING, NARROW) else name
    known = (
        f"spiffe_id: '{_spiffe_id(tenant, name)}'"
        if _by_certificate(tenant, name)
        else f"jwt_subject: {_caller_id(tenant, name)}"
    )
    listed = "".join(f", {one}: [{', '.join(ids)}]" for one, ids in lists.items())
    return f"{_caller_id(tenant, name)}: {{{known}, roles: [{role}], tenant: {tenant}{listed}}}"
