"""The messages to a server and the answers that are right; one class for each server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from google.protobuf.message import DecodeError

from pdp.bench.failure import WrongAnswerError
from pdp.bench.plan import CLIENT_SHAPES, Shape
from pdp.bench.questions import Question
from pdp.v1 import authorization_pb2 as calls
from pdp.v1 import decision_pb2 as decisions

_SERVICE = "/pdp.v1.AuthorizationService/"
_METHODS = {
    Shape.UNARY: "Authorize",
    Shape.FRAMES: "Authorize",
    Shape.STREAM: "AuthorizeStream",
    Shape.BATCH: "BatchAuthorize",
}

Metadata = tuple[tuple[str, str], ...]


class Dialect(Protocol):
    """Makes the messages for a server and reads its answers."""

    @property
    def metadata(self) -> Metadata:
        """Return the metadata of each call."""
        ...

    @property
    def id_field(self) -> int:
        """Return the number of the field that holds a call's own id in the message for one question."""
        ...

    @property
    def cached(self) -> bool:
        """Say whether answers state if they were remembered."""
        ...

    def path(self, shape: Shape) -> str | None:
        """Return the method to call, or None when the server does not offer the shape."""
        ...

    def encode(self, shape: Shape, questions: Sequence[Question]) -> bytes:
        """Return the message for one question, or for a batch several."""
        ...

    def check(self, shape: Shape, answer: bytes, questions: Sequence[Question]) -> int:
        """Return how many answers were remembered; `WrongAnswerError` for a wrong one."""
        ...


class PDPDialect:
    """Asks the PDP. `handles` are those of the sessions, one for each asker of the workload."""

    cached = True
    id_field = calls.AuthorizeRequest.TOOL_CALL_ID_FIELD_NUMBER

    def __init__(self, handles: Sequence[str], token: str) -> None:
        self.handles, self.token = handles, token
        self.metadata: Metadata = (("authorization", f"Bearer {token}"),) if token else ()

    def path(self, shape: Shape) -> str | None:
        """Return the method to call; the client library chooses its own."""
        if shape in CLIENT_SHAPES:
            return ""
        return _SERVICE + _METHODS[shape] if shape in _METHODS else None

    def encode(self, shape: Shape, questions: Sequence[Question]) -> bytes:
        """Return the message for the questions."""
        asked = [
            calls.AuthorizeRequest(
                call=decisions.Call(
                    session_handle=self.handles[one.asker],
                    server=one.server,
                    tool=one.tool,
                    arguments_json=one.arguments_json,
                )
            )
            for one in questions
        ]
        if shape is Shape.BATCH:
            return calls.BatchAuthorizeRequest(requests=asked).SerializeToString()
        if shape is Shape.STREAM:
            return calls.AuthorizeStreamRequest(request=asked[0]).SerializeToString()
        return asked[0].SerializeToString()

    def check(self, shape: Shape, answer: bytes, questions: Sequence[Question]) -> int:
        """Compare outcome, tool and arguments' digest; count the remembered answers."""
        found = _decisions(shape, answer)
        if len(found) != len(questions):
            raise WrongAnswerError(f"{len(questions)} answers were due and {len(found)} came")
        for decision, question in zip(found, questions, strict=True):
            self.compare(decision, question)
        return sum(decision.cache_result == decisions.CACHE_RESULT_HIT for decision in found)

    def compare(self, decision: decisions.Decision, question: Question) -> None:
        """Raise `WrongAnswerError` when a decision is wrong."""
        expected = decisions.OUTCOME_ALLOW if question.allowed else decisions.OUTCOME_DENY
        if decision.outcome != expected:
            basis = decisions.Basis.Name(decision.basis).removeprefix("BASIS_").lower()
            raise WrongAnswerError(
                f"`{question.server}/{question.tool}` must be {_word(question.allowed)}, and the answer is "
                f"{_word(decision.outcome == decisions.OUTCOME_ALLOW)} by `{basis}`"
            )
        if (decision.server, decision.tool) != (question.server, question.tool):
            raise WrongAnswerError(
                f"`{question.server}/{question.tool}` was asked about, and the answer is about "
                f"`{decision.server}/{decision.tool}`"
            )
        if decision.arguments_digest != question.arguments_digest:
            raise WrongAnswerError(f"the answer about `{question.server}/{question.tool}` is about other arguments")


class FramesDialect(PDPDialect):
    """Asks the PDP by raw frames alone."""

    def path(self, shape: Shape) -> str | None:
        """Return the method to call."""
        return super().path(shape) if shape is Shape.FRAMES else None


class ControlDialect(PDPDialect):
    """Asks the empty handler the same questions, and expects its one answer."""

    cached = False

    def path(self, shape: Shape) -> str | None:
        """Return the method to call: a client library expects other answers than one."""
        return None if shape in CLIENT_SHAPES else super().path(shape)

    def compare(self, decision: decisions.Decision, question: Question) -> None:  # noqa: ARG002 - one answer for all
        """Raise `WrongAnswerError` unless it is the constant."""
        if decision.outcome != decisions.OUTCOME_ALLOW:
            raise WrongAnswerError("the empty handler gave an unexpected answer")


def _decisions(shape: Shape, answer: bytes) -> Sequence[decisions.Decision]:
    try:
        if shape is Shape.BATCH:
            return calls.BatchAuthorizeResponse.FromString(answer).decisions
        if shape in (Shape.UNARY, Shape.FRAMES):
            return (calls.AuthorizeResponse.FromString(answer).decision,)
        message = calls.AuthorizeStreamResponse.FromString(answer)
    except DecodeError:
        raise WrongAnswerError("the answer is not a message of the API") from None
    if message.HasField("error"):
        raise WrongAnswerError(f"the stream answered with an error: {message.error.message}")
    return (message.decision,)


def _word(allowed: bool) -> str:  # noqa: FBT001 - the one thing that it is about
    return "allowed" if allowed else "denied"
