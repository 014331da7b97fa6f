"""A server whose calls wait for people, and what they do about it."""

from __future__ import annotations

from typing import Any

import grpc

from pdp.model import AT_EACH_CALL, Caller, Role
from pdp.sessions.access import AccessRequest
from pdp.testing.inprocess import RunningServer
from pdp.v1.access_pb2 import ApproveCallRequest, GetAccessRequestResponse
from pdp.v1.session_pb2 import RequestSessionResponse
from tests.machinery.servers.rawmessages import BUNDLE, PATIENCE
from tests.machinery.servers.waitingcalls import waiting
from tests.machinery.ways.notation import changed, files_of

PEP, APPROVER = frozenset({Role.PEP}), frozenset({Role.APPROVER})
# As in `callers.yaml`: nobody there says when a person authenticated, but for development callers, who are present.
CALLERS = (
    Caller(id="gateway", kind="token", roles=PEP),
    Caller(id="sidecar", kind="token", roles=PEP),
    Caller(id="spare-gateway", kind="token", roles=PEP),
    Caller(id="foreign-gateway", kind="token", roles=PEP, tenant="elsewhere"),
    Caller(id="lead", kind="token", roles=APPROVER, authenticated_at=AT_EACH_CALL),
    Caller(id="ada", kind="token", roles=APPROVER, authenticated_at=AT_EACH_CALL),
    Caller(id="bob", kind="token", roles=APPROVER, authenticated_at=AT_EACH_CALL),
    Caller(id="coder", kind="token", roles=APPROVER, authenticated_at=AT_EACH_CALL),
    Caller(id="both", kind="token", roles=APPROVER | {Role.AUDITOR}, authenticated_at=AT_EACH_CALL),
    Caller(id="auditor", kind="token", roles=frozenset({Role.AUDITOR})),
    Caller(id="admin", kind="token", roles=frozenset({Role.ADMIN})),
    Caller(id="foreign-lead", kind="token", roles=APPROVER, tenant="elsewhere", authenticated_at=AT_EACH_CALL),
    Caller(id="foreign-admin", kind="token", roles=frozenset({Role.ADMIN}), tenant="elsewhere"),
)
LEADS = {name: {"groups": ["leads"]} for name in ("coder", "both")}
FILES = files_of(changed(BUNDLE, {"directory": {"users": LEADS}}))
SECRET = b'{"repo":"web","note":"the-secret-of-the-arguments"}'


class Desk:
    """A running server, and sessions whose calls wait for a person."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server

    def opened(
        self, *, by: str = "gateway", tools: tuple[str, ...] = ("git/*",), **more: Any
    ) -> RequestSessionResponse:
        """Open a session of ada and the coder, which the lead approves."""
        opened = self.server.client(by).request_session(
            user="ada", agent="coder", purpose="to wait", tools=tools, **more
        )
        shown = opened.session
        self.server.client("lead").approve_session(shown.session_id, request_digest=shown.request_digest)
        return opened

    def session(self, *, by: str = "gateway", tools: tuple[str, ...] = ("git/*",)) -> str:
        """Return the id of an active session of ada and the coder."""
        return self.opened(by=by, tools=tools).session.session_id

    def wait(self, session_id: str = "", *, by: str = "gateway", **more: Any) -> AccessRequest:
        """Have a call wait, by default in a session of its own."""
        session_id = session_id or self.session(by=by)
        return waiting(self.server.embedded, self.server.clock, session_id, by=by, **more)

    def shown(self, request: AccessRequest, to: str = "lead") -> GetAccessRequestResponse:
        """Return what somebody is shown."""
        return self.server.client(to).get_access_request(request.id)

    def approve(self, request: AccessRequest, *, by: str = "lead", digest: str = "", calls: int = 0) -> str:
        """Approve what the lead is shown; return `OK` or the status and its message."""
        message = ApproveCallRequest(
            access_request_id=request.id, request_digest=digest or self.shown(request).request_digest, calls=calls
        )
        return self.told("ApproveCall", message, by)

    def told(self, method: str, message: Any, by: str) -> str:
        """Call an RPC of the service; return `OK`, or the status with its message."""
        with grpc.insecure_channel(self.server.address) as channel:
            call = channel.unary_unary(f"/pdp.v1.AccessService/{method}")
            metadata = (("authorization", f"Bearer {self.server.token(by)}"),)
            try:
                call(message.SerializeToString(), metadata=metadata, timeout=PATIENCE)
            except grpc.RpcError as error:
                return f"{error.code().name}: {error.details()}"
        return "OK"

    def state(self, request: AccessRequest) -> int:
        """Return the present state."""
        return int(self.shown(request).access_request.state)

    def records(self, kind: str) -> list[dict[str, Any]]:
        """Return the records of a kind."""
        return [one for one in self.server.evidence.records if one["kind"] == kind]
