"""The calls of clients: each is made once and becomes a line of the history, whatever comes of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import grpc
from google.protobuf.duration_pb2 import Duration

from pdp.model import Role
from pdp.v1 import authorization_pb2, decision_pb2, policy_pb2, session_pb2
from pdp.v1.authorization_pb2_grpc import AuthorizationServiceStub
from pdp.v1.fence_pb2 import FENCED_BY_UNSPECIFIED, FencedBy
from pdp.v1.policy_pb2_grpc import PolicyServiceStub
from pdp.v1.session_pb2_grpc import SessionServiceStub
from tests.machinery.servers.notes import READ, WRITE
from tests.sessions.postgres.campaign.replicas import SUSPECT, Replica
from tests.sessions.replicahistory import Kind, Operation, Result

# Longer than any stop of a replica: what was asked meanwhile is answered afterwards.
PATIENCE: Final = 6.0

# These say that nothing was done. Of all other errors, a change can have been made.
_NOT_DONE: Final = frozenset({grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ABORTED, grpc.StatusCode.NOT_FOUND})
# What faults explain.
_EXPLAINED: Final = _NOT_DONE | {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
_ARGUMENTS: Final = b'{"name": "shopping"}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What clients know of a session."""

    id: str
    handle: str
    digest: str
    budget: int
    parent: str


@dataclass(frozen=True, slots=True)
class _Stubs:
    """The stubs of one process of a replica."""

    channel: Any
    calls: Any
    sessions: Any
    policies: Any

    @classmethod
    def of(cls, replica: Replica) -> Self:
        channel = replica.channel()
        calls = AuthorizationServiceStub(channel)  # type: ignore[no-untyped-call]
        sessions = SessionServiceStub(channel)  # type: ignore[no-untyped-call]
        policies = PolicyServiceStub(channel)  # type: ignore[no-untyped-call]
        return cls(channel, calls, sessions, policies)


class Calls:
    """The calls of one client at any replica, noted by `note`. For one thread."""

    def __init__(self, client: int, note: Callable[[Operation], None]) -> None:
        self._client = client
        self._note = note
        # By replica, and by how often it was started.
        self._stubs: dict[int, tuple[int, _Stubs]] = {}

    def close(self) -> None:
        """Close all channels."""
        for _, stubs in self._stubs.values():
            stubs.channel.close()

    def ask(
        self, at: Replica, session: Known, tool: str, *, request_id: str = "", patience: float = PATIENCE
    ) -> Operation:
        """Ask about a call, and wait for the answer so many seconds."""
        call = decision_pb2.Call(session_handle=session.handle, server="notes", tool=tool, arguments_json=_ARGUMENTS)
        request = authorization_pb2.AuthorizeRequest(call=call, request_id=request_id)
        line, _ = self._authorize(at, session, tool, request, patience=patience)
        return line

    def request(self, at: Replica, *, seconds: float, budget: int = -1, parent: Known | None = None) -> Known | None:
        """Request a session; return it when it is known."""
        request = session_pb2.RequestSessionRequest(
            user="alice",
            agent="coder",
            purpose="keep notes",
            tool_patterns=["notes/*"],
            duration=_duration(seconds),
            parent_session_handle=parent.handle if parent is not None else "",
            terms_json=json.dumps({"max_calls": budget}).encode() if budget >= 0 else b"",
        )
        above = parent.id if parent is not None else ""
        # A request whose answer is lost names no session.
        _, answer = self._call(
            at,
            Operation(kind=Kind.REQUEST, parent=above, budget=budget),
            lambda stubs: stubs.sessions.RequestSession,
            request,
            Role.PEP,
            lambda answer: {"session": answer.session.session_id, "epoch": answer.session.epoch},
        )
        if answer is None:
            return None
        session = answer.session
        return Known(
            id=session.session_id,
            handle=answer.session_handle,
            digest=session.request_digest,
            budget=budget,
            parent=above,
        )

    def approve(self, at: Replica, session: Known) -> Operation:
        """Approve a session."""
        return self._change(
            at,
            Operation(kind=Kind.APPROVE, session=session.id),
            lambda stubs: stubs.sessions.ApproveSession,
            session_pb2.ApproveSessionRequest(session_id=session.id, request_digest=session.digest),
            Role.APPROVER,
            lambda answer: {"until": _moment(answer.session.expire_time)},
        )

    def revoke(self, at: Replica, session: Known, *, request_id: str = "") -> Operation:
        """Revoke a session."""
        return self._change(
            at,
            Operation(kind=Kind.REVOKE, session=session.id),
            lambda stubs: stubs.sessions.RevokeSessions,
            session_pb2.RevokeSessionsRequest(session_id=session.id, reason="enough", request_id=request_id),
            Role.APPROVER,
        )

    def end(self, at: Replica, session: Known) -> Operation:
        """End a session. That it is over already is an answer of the same weight."""
        return self._change(
            at,
            Operation(kind=Kind.END, session=session.id),
            lambda stubs: stubs.sessions.EndSession,
            session_pb2.EndSessionRequest(session_handle=session.handle),
            Role.PEP,
            found=grpc.StatusCode.FAILED_PRECONDITION,
        )

    def narrow(self, at: Replica, session: Known, *, label: bool) -> Operation:
        """Take writing away from a session: by its tools, or by a label."""
        request = session_pb2.NarrowSessionRequest(
            session_id=session.id,
            tool_patterns=[] if label else [f"notes/{READ}"],
            labels=[SUSPECT] if label else [],
        )
        return self._change(
            at,
            Operation(kind=Kind.NARROW, session=session.id, tool=WRITE),
            lambda stubs: stubs.sessions.NarrowSession,
            request,
            Role.APPROVER,
        )

    def report(self, at: Replica, session: Known) -> None:
        """Ask about a call, and report a result that takes writing away from the session and from those above it."""
        call = decision_pb2.Call(session_handle=session.handle, server="notes", tool=READ, arguments_json=_ARGUMENTS)
        _, answer = self._authorize(at, session, READ, authorization_pb2.AuthorizeRequest(call=call))
        if answer is None or not answer.decision.outcome_token:
            return
        self._call(
            at,
            Operation(kind=Kind.LABEL, session=session.id, tool=WRITE),
            lambda stubs: stubs.calls.ReportOutcome,
            authorization_pb2.ReportOutcomeRequest(
                outcome_token=answer.decision.outcome_token,
                status=authorization_pb2.CALL_STATUS_SUCCEEDED,
                labels=[SUSPECT],
            ),
            Role.PEP,
            lambda _: {},
        )

    def reload(self, at: Replica, version: str) -> Operation:
        """Have a replica take what its folder holds: a bundle of a version."""
        return self._change(
            at,
            Operation(kind=Kind.ACTIVATE, bundle=version),
            lambda stubs: stubs.policies.ReloadBundle,
            policy_pb2.ReloadBundleRequest(),
            Role.AUTHOR,
        )

    def read(self, at: Replica, session: str) -> None:
        """Read a session."""
        self._call(
            at,
            Operation(kind=Kind.READ, session=session),
            lambda stubs: stubs.sessions.GetSession,
            session_pb2.GetSessionRequest(session_id=session),
            Role.ADMIN,
            lambda answer: {"state": _state(answer.session.state), "epoch": answer.session.epoch},
        )

    def _authorize(
        self,
        at: Replica,
        session: Known,
        tool: str,
        request: authorization_pb2.AuthorizeRequest,
        *,
        patience: float = PATIENCE,
    ) -> tuple[Operation, authorization_pb2.AuthorizeResponse | None]:
        return self._call(
            at,
            Operation(kind=Kind.AUTHORIZE, session=session.id, tool=tool, request_id=request.request_id),
            lambda stubs: stubs.calls.Authorize,
            request,
            Role.PEP,
            lambda answer: {
                "allowed": answer.decision.outcome == decision_pb2.OUTCOME_ALLOW,
                "basis": decision_pb2.Basis.Name(answer.decision.basis).removeprefix("BASIS_").lower(),
                "decision": answer.decision.decision_id,
                "epoch": answer.decision.session_epoch,
                "bundle": answer.decision.bundle_version,
            },
            patience=patience,
        )

    def _change(
        self,
        at: Replica,
        line: Operation,
        method: Callable[[_Stubs], Any],
        request: Any,
        role: Role,
        said: Callable[[Any], Mapping[str, Any]] = lambda _: {},
        *,
        found: grpc.StatusCode | None = None,
    ) -> Operation:
        noted, _ = self._call(
            at, line, method, request, role, lambda answer: {**_fence(answer), **said(answer)}, found=found
        )
        return noted

    def _call(
        self,
        at: Replica,
        line: Operation,
        method: Callable[[_Stubs], Any],
        request: Any,
        role: Role,
        said: Callable[[Any], Mapping[str, Any]],
        *,
        found: grpc.StatusCode | None = None,
        patience: float = PATIENCE,
    ) -> tuple[Operation, Any]:
        """Make a call, and note it with what the answer says. An error of the code `found` is an answer as well."""
        call, metadata = method(self._stubs_of(at)), at.authorization(role)
        answer, values = None, dict[str, Any]()
        invoked = time.monotonic()
        try:
            answer = call(request, metadata=metadata, timeout=patience)
        except grpc.RpcError as error:
            code = error.code()
            result = Result.OK if code is found else Result.FAILED if code in _NOT_DONE else Result.UNKNOWN
            values = {"result": result, "name": code.name if code in _EXPLAINED else f"{code.name}: {error.details()}"}
        returned = time.monotonic()
        if answer is not None:
            values = dict(said(answer))
        noted = replace(line, invoked=invoked, returned=returned, client=self._client, replica=at.number, **values)
        self._note(noted)
        return noted, answer

    def _stubs_of(self, replica: Replica) -> _Stubs:
        begun, (started, stubs) = replica.started, self._stubs.get(replica.number, (0, None))
        if stubs is None or started != begun:
            if stubs is not None:
                stubs.channel.close()
            stubs = _Stubs.of(replica)
            self._stubs[replica.number] = begun, stubs
        return stubs


def _fence(answer: Any) -> Mapping[str, Any]:
    if answer.fenced_by == FENCED_BY_UNSPECIFIED:
        said: dict[str, Any] = {}
    else:
        duration = answer.fence_duration
        by = FencedBy.Name(answer.fenced_by).removeprefix("FENCED_BY_").lower()
        said = {"fenced_by": by, "fence_seconds": duration.seconds + duration.nanos / 1e9}
    if hasattr(answer, "session"):
        said["epoch"] = answer.session.epoch
    return said


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


def _moment(timestamp: Any) -> float:
    """Return a time of the wall clock as one of the monotonic clock."""
    return float(timestamp.seconds + timestamp.nanos / 1e9 - time.time() + time.monotonic())


def _state(number: int) -> str:
    return session_pb2.SessionState.Name(number).removeprefix("SESSION_STATE_").lower()
