"""What tests of the server share: a running server with a channel to it, and an observer that keeps what it is told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # its stubs come without a py.typed marker
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # its stubs come without a py.typed marker

from pdp.model import Decision, TraceParent
from pdp.observer import Event
from pdp.server.service import PDPServer
from pdp.serving.grpctransport import GRPCTransport
from pdp.testing.clock import FakeClock
from pdp.v1.authorization_pb2 import AuthorizeRequest
from pdp.v1.authorization_pb2_grpc import AuthorizationServiceStub
from pdp.v1.decision_pb2 import Call
from pdp.v1.policy_pb2_grpc import PolicyServiceStub
from pdp.v1.session_pb2 import ApproveSessionRequest, RequestSessionRequest
from pdp.v1.session_pb2_grpc import SessionServiceStub

Metadata = tuple[tuple[str, str], ...]

# Long enough for a busy machine; nothing waits for it to pass.
PATIENCE = 30.0


def connected(port: int) -> socket.socket:
    """Connect to a server at `localhost`.

    gRPC finds a free port at `::1` and then takes it at `127.0.0.1`, unless somebody else has it there.
    """
    try:
        return socket.create_connection(("::1", port), timeout=PATIENCE)
    except OSError:
        return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


class Notes:
    """An observer that keeps what it is told, and lets a test wait for it."""

    def __init__(self) -> None:
        self._told = threading.Condition()
        self.decisions: list[Decision] = []
        self.events: list[Event] = []

    def decision(self, decision: Decision, _: TraceParent) -> Decision:
        """Keep a decision."""
        self.decisions.append(decision)
        return decision

    def event(self, event: Event) -> None:
        """Keep an event."""
        with self._told:
            self.events.append(event)
            self._told.notify_all()

    def forget(self) -> None:
        """Forget the events so far."""
        with self._told:
            self.events.clear()

    def refusal(self) -> Event:
        """Return the first refusal, as soon as there is one."""
        with self._told:
            assert self._told.wait_for(self._refusals, PATIENCE)
            return self._refusals()[0]

    def _refusals(self) -> list[Event]:
        return [event for event in self.events if event.kind == "request.refused"]


class Running:
    """A server that runs, a channel to it, and what stands behind it."""

    def __init__(self, server: PDPServer, tokens: Mapping[str, str], notes: Notes, clock: FakeClock) -> None:
        self.server = server
        self.tokens = tokens
        self.notes = notes
        self.clock = clock
        self.channel = grpc.insecure_channel(server.address)

    def credentials(self, caller: str) -> Metadata:
        """Return the metadata of a caller."""
        return (("authorization", f"Bearer {self.tokens[caller]}"),)

    def unary(self, path: str, wire: bytes, caller: str | None = "pep", metadata: Metadata = ()) -> bytes:
        """Call a unary RPC with raw bytes."""
        more = self.credentials(caller) if caller else ()
        answer: bytes = self.channel.unary_unary(path)(wire, metadata=more + metadata, timeout=PATIENCE)
        return answer

    def refused(self, path: str, wire: bytes, caller: str | None = "pep", metadata: Metadata = ()) -> grpc.RpcError:
        """Call a unary RPC that must be refused, and return the error."""
        with pytest.raises(grpc.RpcError) as caught:
            self.unary(path, wire, caller, metadata)
        return caught.value

    @property
    def open_calls(self) -> int:
        """Return how many calls the transport of the server knows."""
        transport: Any = self.server._transport
        if isinstance(transport, GRPCTransport):
            return len(transport._server._state.rpc_states)
        return int(transport.open_calls)

    @property
    def authorization(self) -> AuthorizationServiceStub:
        """Return the generated client of the authorization service."""
        return AuthorizationServiceStub(self.channel)  # type: ignore[no-untyped-call]  # generated without types

    @property
    def sessions(self) -> SessionServiceStub:
        """Return the generated client of the session service."""
        return SessionServiceStub(self.channel)  # type: ignore[no-untyped-call]  # generated without types

    @property
    def policies(self) -> PolicyServiceStub:
        """Return the generated client of the policy service."""
        return PolicyServiceStub(self.channel)  # type: ignore[no-untyped-call]  # generated without types

    def open_session(self) -> str:
        """Return the handle of an approved session of alice and her coder for reading git."""
        wanted = RequestSessionRequest(
            user="alice", agent="coder", purpose="read the log", tool_patterns=["git/git_log", "git/git_status"]
        )
        opened = self.sessions.RequestSession(wanted, metadata=self.credentials("pep"))
        shown = ApproveSessionRequest(
            session_id=opened.session.session_id, request_digest=opened.session.request_digest
        )
        self.sessions.ApproveSession(shown, metadata=self.credentials("approver"))
        return str(opened.session_handle)


class Unhealthy(threading.Event):
    """Set: the server says that it does not serve."""


Serve = Callable[..., Running]


def read_tokens(callers_file: Path) -> Mapping[str, str]:
    """Return the token of each caller of a file."""
    return {path.stem: path.read_text().strip() for path in (callers_file.parent / "tokens").glob("*.token")}


def a_call(handle: str = "pdps_unknown", **more: Any) -> AuthorizeRequest:
    """Return a question about `git/git_log`."""
    fields = {"session_handle": handle, "server": "git", "tool": "git_log", "arguments_json": b'{"repo_path": "/r"}'}
    return AuthorizeRequest(call=Call(**(fields | more)))


def retry_info(refused: grpc.RpcError) -> Any:
    """Return the advice on retrying that came with a refusal, or None."""
    for key, value in refused.trailing_metadata():
        if key == "grpc-status-details-bin":
            info = RetryInfo()
            for detail in Status.FromString(value).details:
                if detail.Unpack(info):
                    return info
    return None
