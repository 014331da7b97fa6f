"""The service that the failure tables are held against, and how they speak to it: in raw messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from pdp.policy.contents import version_of
from pdp.sessions.memory import MemorySessionStore
from pdp.sessions.store import SessionStore
from pdp.testing.decisions import a_decision
from pdp.testing.inprocess import RunningServer, running_server
from pdp.v1.authorization_pb2 import AuthorizeStreamResponse
from tests.machinery.rpcs.asking import DIGEST, a_call
from tests.machinery.rpcs.services import SERVICES
from tests.machinery.rpcs.table import OWN
from tests.machinery.servers.waitingcalls import waiting
from tests.machinery.ways.notation import changed, files_of, load_bundle
from tests.machinery.ways.ways import CALLERS

# Bounds a wait that only a broken server makes long.
PATIENCE = 60.0

UNKNOWN_HANDLE = "pdps_" + "u" * 43
UNKNOWN_ID = "ses_" + "u" * 26
UNKNOWN_ACCESS = "acc_" + "u" * 26

BUNDLE = changed(
    load_bundle("office"),
    {
        "directory": {"users": {"foreign-lead": {"groups": ["leads"]}}},
        "policies": {
            "calls": """
              @id("calls/leads")
              permit (principal in UserGroup::"leads", action == Action::"pdp/approve_call", resource);
            """
        },
        "tools": {"clock": {"ring": {"risk": "mutating", "parameters": {"score?": "anything"}}}},
    },
)
FILES = files_of(BUNDLE)

# Every RPC of the API as it is described, so that a new one cannot be forgotten.
METHODS: Mapping[str, MethodDescriptor] = {method.name: method for service in SERVICES for method in service.methods}


class TroubledStore:
    """A real store that can be given trouble: `before` is told the name of each method before it runs.

    `after` may change what a method returns. By default there is no trouble.
    """

    def __init__(self, real: SessionStore) -> None:
        self._real = real
        self.before: Callable[[str], None] = lambda _: None
        self.after: Callable[[str, Any], Any] = lambda _, found: found

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._real, name)

        def troubled(*what: Any, **more: Any) -> Any:
            self.before(name)
            return self.after(name, method(*what, **more))

        return troubled


class Service:
    """A running server, and a channel that sends it whatever bytes a test likes."""

    def __init__(self, server: RunningServer, channel: grpc.Channel) -> None:
        self.server = server
        self._channel = channel

    @property
    def store(self) -> TroubledStore:
        """Return the store that can be given trouble."""
        return cast("TroubledStore", self.server.embedded.sessions)

    def send(self, method: str, message: Message | bytes, *, caller: str | None = "", token: str = "") -> Any:
        """Call an RPC and return its answer, of a stream the first one. Raise `grpc.RpcError`.

        `caller` is by default one that may call this RPC, and None for nobody; `token` is sent instead of theirs.
        """
        described = METHODS[method]
        path = f"/{described.containing_service.full_name}/{method}"
        wire = message if isinstance(message, bytes) else message.SerializeToString()
        token = token or (self.server.token(caller or usual_caller(method)) if caller is not None else "")
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        if described.server_streaming:
            exchange = described.client_streaming
            call = (self._channel.stream_stream if exchange else self._channel.unary_stream)(path)
            answers = call(iter([wire]) if exchange else wire, metadata=metadata, timeout=PATIENCE)
            answer = next(answers)
            if not exchange:
                answers.cancel()
        else:
            answer = self._channel.unary_unary(path)(wire, metadata=metadata, timeout=PATIENCE)
        return GetMessageClass(described.output_type).FromString(answer)

    def refused(self, method: str, message: Message | bytes, **more: Any) -> grpc.RpcError:
        """Call an RPC that must be refused, and return the error."""
        with pytest.raises(grpc.RpcError) as caught:
            self.send(method, message, **more)
        return caught.value

    def status(self, method: str, message: Message | bytes, **more: Any) -> str:
        """Call an RPC and return the name of its status, of a stream that of the one call on it."""
        try:
            found = self.send(method, message, **more)
        except grpc.RpcError as error:
            return str(error.code().name)
        if isinstance(found, AuthorizeStreamResponse) and found.HasField("error"):
            return next(str(code.name) for code in grpc.StatusCode if code.value[0] == found.error.code)
        return "OK"

    def open(self, *, by: str = "gateway", lead: str = "lead", **more: Any) -> Opened:
        """Ask for a session, of ada and the coder where nothing else is said."""
        wanted = {"user": "ada", "agent": "coder", "purpose": "to fail", "tools": ["git/*", "clock/*"], **more}
        opened = self.server.client(by).request_session(**wanted)
        return Opened(self, lead, opened.session_handle, opened.session.session_id, opened.session.request_digest)

    @property
    def refusals(self) -> list[dict[str, Any]]:
        """Return the record of each request that was refused so far."""
        return [record for record in self.server.evidence.records if record["kind"] == "request.refused"]


class Opened:
    """A session that was asked for."""

    def __init__(self, service: Service, lead: str, handle: str, session_id: str, digest: str) -> None:
        self._service = service
        self._lead = lead
        self.handle = handle
        self.id = session_id
        self.digest = digest
        self._decision_id = self._access_request_id = ""
        self.bundle_version = version_of(FILES)

    @property
    def decision_id(self) -> str:
        """Return the id of the decision about the one call that was asked about in it."""
        if not self._decision_id:
            self._decision_id = self._service.send("Authorize", a_call(self.handle)).decision.decision_id
        return self._decision_id

    @property
    def outcome_token(self) -> str:
        """Return a token as the gateway would get it with an allow of a call in the session, whatever its state is."""
        server = self._service.server
        allowed = a_decision(session_id=self.id, decided_at=server.clock.now().wall_at, caller=CALLERS["gateway"])
        return server.embedded.outcomes.token(replace(allowed, id=f"dec_{self.id}", reportable=True))

    @property
    def access_request_id(self) -> str:
        """Return the id of an access request that the gateway of the session has opened."""
        server = self._service.server
        if not self._access_request_id and self.id != UNKNOWN_ID:
            opener = server.embedded.sessions.get(self.id)[0].opened_by
            self._access_request_id = waiting(server.embedded, server.clock, self.id, by=opener).id
        return self._access_request_id or UNKNOWN_ACCESS

    @property
    def access_digest(self) -> str:
        """Return the digest of what an approver is shown; any for one that does not wait."""
        if self.id == UNKNOWN_ID:
            return self.digest
        approver = self._service.server.client(self._lead)
        return approver.get_access_request(self.access_request_id).request_digest or DIGEST

    @property
    def access_session_id(self) -> str:
        """Return the public id, once there is such a request."""
        return self.id if self.access_request_id else ""

    def approved(self) -> Opened:
        """Have the session approved."""
        self._service.server.client(self._lead).approve_session(self.id, request_digest=self.digest)
        return self


@contextmanager
def serving(**options: Any) -> Iterator[Service]:
    """Serve the bundle to everybody of the cases; `options` are those of `running_server`.

    The store is one in memory that can be given trouble, if none is given.
    """
    options = {"store": TroubledStore(MemorySessionStore()), **options}
    with running_server(FILES, callers=tuple(CALLERS.values()), **options) as server:
        channel = grpc.insecure_channel(server.address)
        try:
            yield Service(server, channel)
        finally:
            channel.close()


def usual_caller(method: str) -> str:
    """Return a caller who may call an RPC."""
    role = next(iter(OWN[method].roles))
    return {"pep": "gateway", "approver": "lead"}.get(role, role)
