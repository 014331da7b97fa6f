"""The calls of clients, and what they say in the history."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import grpc
from google.protobuf.duration_pb2 import Duration

from pdp.model import Role
from pdp.v1 import authorization_pb2, policy_pb2, session_pb2
from pdp.v1.fence_pb2 import FENCED_BY_UNSPECIFIED, FencedBy
from tests.machinery.servers.notes import READ, WRITE
from tests.sessions.postgres.campaign.questions import Known, Question, said_by
from tests.sessions.postgres.campaign.replicas import EXACT, SUSPECT, Replica
from tests.sessions.postgres.campaign.wire import PATIENCE, Stubs, Wire, failure
from tests.sessions.replicahistory import Kind, Operation, Result

# These say that nothing was done. Of all other errors, a change can have been made.
_NOT_DONE: Final = frozenset({grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ABORTED, grpc.StatusCode.NOT_FOUND})
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


class Calls(Wire):
    """The calls of one client."""

    def ask(self, at: Replica, question: Question, *, patience: float = PATIENCE) -> Operation:
        """Ask about a call, and wait for the answer so many seconds."""
        line, _ = self._ask(at, question, patience)
        return line

    def ask_many(self, at: Replica, questions: Sequence[Question]) -> Sequence[Operation]:
        """Ask in one message about calls that have nothing to do with each other."""
        asked = authorization_pb2.BatchAuthorizeRequest(
            requests=[question.message() for question in questions], independent=True
        )
        made = self.exchange(at, lambda stubs: stubs.calls.BatchAuthorize, asked, Role.PEP)
        if made.error is not None:
            said = [failure(made.error.code(), made.error.details())] * len(questions)
        else:
            said = [
                said_by(one.decision)
                if one.HasField("decision")
                else failure(_CODES[one.error.code], one.error.message)
                for one in made.answer.answers
            ]
        return [self.note(question.line(), made, one) for question, one in zip(questions, said, strict=True)]

    def request(
        self, at: Replica, *, seconds: float, budget: int = -1, term: str = EXACT, parent: Known | None = None
    ) -> Known | None:
        """Request a session, with a budget by the name of its term if there is one; return it when it is known."""
        request = session_pb2.RequestSessionRequest(
            user="alice",
            agent="coder",
            purpose="keep notes",
            tool_patterns=["notes/*"],
            duration=_duration(seconds),
            parent_session_handle=parent.handle if parent is not None else "",
            terms_json=json.dumps({term: budget}).encode() if budget >= 0 else b"",
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
            depth=session.depth,
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
        _, answer = self._ask(at, Question(session=session, tool=READ))
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

    def _ask(self, at: Replica, question: Question, patience: float = PATIENCE) -> tuple[Operation, Any]:
        made = self.exchange(at, lambda stubs: stubs.calls.Authorize, question.message(), Role.PEP, patience=patience)
        if made.error is not None:
            said = failure(made.error.code(), made.error.details())
        else:
            said = said_by(made.answer.decision)
        return self.note(question.line(), made, said), made.answer

    def _change(
        self,
        at: Replica,
        line: Operation,
        method: Callable[[Stubs], Any],
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
        method: Callable[[Stubs], Any],
        request: Any,
        role: Role,
        said: Callable[[Any], Mapping[str, Any]],
        *,
        found: grpc.StatusCode | None = None,
    ) -> tuple[Operation, Any]:
        """Make a call, and note it with what the answer says. An error of the code `found` is an answer as well."""
        made = self.exchange(at, method, request, role)
        if made.error is None:
            return self.note(line, made, said(made.answer)), made.answer
        code = made.error.code()
        failed = failure(code, made.error.details(), not_done=_NOT_DONE)
        return self.note(line, made, {"result": Result.OK} if code is found else failed), None


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
