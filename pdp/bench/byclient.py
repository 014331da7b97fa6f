"""Calls by the client library: those that ask at the same time share a client, as the tasks of a gateway do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count, cycle

from pdp.bench.callids import digits_of, traceparent
from pdp.bench.dialects import Dialect, PDPDialect
from pdp.bench.failure import WrongAnswerError
from pdp.bench.load import Answered, Ask
from pdp.bench.plan import Measurement, Shape
from pdp.bench.questions import Question, Workload
from pdp.client import Answer, AsyncClient

# Longer than a server is ever busy: a call that ends too early would be a deny.
_TIMEOUT_SECONDS = 30.0


@asynccontextmanager
async def by_client(address: str, dialect: Dialect, measurement: Measurement, workload: Workload) -> AsyncIterator[Ask]:
    """Open a client; yield the function that asks with it. It raises `WrongAnswerError` for every error, too."""
    if not isinstance(dialect, PDPDialect):
        raise TypeError("only this server has a client library")
    questions, numbers = cycle(workload.repeated), count(1)
    together = measurement.shape is Shape.CLIENT_TOGETHER
    async with AsyncClient(
        address, token=dialect.token, plaintext=True, timeout=_TIMEOUT_SECONDS, ask_together=together
    ) as client:

        async def ask() -> Answered:
            question, digits = next(questions), digits_of(next(numbers))
            answer = await client.authorize(
                dialect.handles[question.asker],
                question.server,
                question.tool,
                question.arguments_json,
                tool_call_id=digits.decode(),
                traceparent=traceparent(digits).decode(),
            )
            _require(answer, question)
            return Answered(decisions=1, remembered=answer.cache_result == "hit", fresh=0)

        yield ask


def _require(answer: Answer, question: Question) -> None:
    if answer.basis == "error":
        raise WrongAnswerError(f"no answer: {answer.error}")
    if answer.allowed is not question.allowed or (answer.server, answer.tool) != (question.server, question.tool):
        must, was = ("allowed" if one else "denied" for one in (question.allowed, answer.allowed))
        raise WrongAnswerError(
            f"`{question.server}/{question.tool}` must be {must}, and the answer is {was} by `{answer.basis}`"
        )
