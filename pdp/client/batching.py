"""Write the questions of a batch as one message, and find the answer to each: pure, and shared by both clients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import grpc

from pdp.client.asking import has_stated_pause
from pdp.client.errors import CallStatusError, PDPClientError
from pdp.client.gathering import Question
from pdp.v1.authorization_pb2 import BatchAnswer, BatchAuthorizeRequest, BatchAuthorizeResponse

# The statuses that each call of a batch would get if it went alone; any other can be due to the batch.
_OF_EACH = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNAUTHENTICATED,
    }
)


def batch_message(questions: Iterable[Question]) -> BatchAuthorizeRequest:
    """Return the message that asks about several calls, each in its own trace."""
    message = BatchAuthorizeRequest(independent=True)
    for question in questions:
        request = message.requests.add()
        request.CopyFrom(question.request)
        for name, value in question.trace:
            setattr(request, name, value)
    return message


def batch_answers(questions: Sequence[Question], reply: BatchAuthorizeResponse) -> tuple[Any, ...]:
    """Return for each question what holds its decision, or the error that it would have got alone."""
    # A server that does not know independent calls has decided them together.
    answers: Sequence[BatchAnswer] = reply.answers or [
        BatchAnswer(request_id=question.request.request_id, decision=decision)
        for question, decision in zip(questions, reply.decisions, strict=False)
    ]
    if len(answers) != len(questions):
        wrong = PDPClientError(f"{len(answers)} answers came for {len(questions)} calls")
        return (wrong,) * len(questions)
    return tuple(map(_answer, questions, answers))


def may_be_due_to_batch(error: BaseException) -> bool:
    """Say whether a batch failed in a way in which its calls might not fail alone.

    Such as a method that a proxy does not let pass, or a message that is too large for it.
    """
    if not isinstance(error, grpc.RpcError):
        return False
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        # A server that is overloaded states a pause; a message that is too large never goes.
        return not has_stated_pause(error)
    return error.code() not in _OF_EACH


def _answer(question: Question, answer: BatchAnswer) -> Any:  # noqa: ANN401 - what holds a decision, or an error
    if answer.request_id != question.request.request_id:
        return PDPClientError("the answer is for another call")
    if answer.HasField("error"):
        return CallStatusError.of(answer.error)
    return answer
