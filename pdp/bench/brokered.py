"""A call of another system after the answer of the server: with a key of one's own, or by a broker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from http import HTTPStatus
from itertools import count

import grpc

from pdp.bench.callids import digits_of, traceparent
from pdp.bench.dialects import Dialect, PDPDialect
from pdp.bench.exchanges import OPTIONS, unanswered
from pdp.bench.failure import WrongAnswerError
from pdp.bench.load import Answered, Ask
from pdp.bench.otherside import ANSWER, KEY
from pdp.bench.overhttp import HTTPConnections, request
from pdp.bench.plan import Measurement, Shape
from pdp.bench.questions import Question, Workload
from pdp.broker.v1 import broker_pb2
from pdp.calltokens.claims import HEADER
from pdp.v1 import authorization_pb2

AUDIENCE = "https://broker.bench"
_CALL = "/pdp.broker.v1.BrokerService/Call"

# Makes the call with a call token, in the trace of the digits; returns the body of the answer.
Call = Callable[[str, bytes], Awaitable[bytes]]
Calling = Callable[[Question], AbstractAsyncContextManager[Call]]


class BrokeredDialect(PDPDialect):
    """Asks about one call that is allowed, and says how it is then made; `with_token` asks for a call token."""

    cached = False

    def __init__(
        self, handles: Sequence[str], token: str, *, question: Question, calling: Calling, with_token: bool
    ) -> None:
        super().__init__(handles, token)
        self.question, self.calling = question, calling
        self._with_token = with_token

    def path(self, shape: Shape) -> str | None:
        """Return the method to call."""
        return super().path(Shape.UNARY) if shape is Shape.BROKERED else None

    def encode(self, shape: Shape, questions: Sequence[Question]) -> bytes:
        """Return the message for the question."""
        asked = authorization_pb2.AuthorizeRequest.FromString(super().encode(shape, questions))
        if self._with_token:
            asked.call_tokens.add(audience=AUDIENCE)
        return asked.SerializeToString()

    def token_in(self, answer: bytes) -> str:
        """Return the call token of a right answer; empty where none was asked for."""
        self.check(Shape.UNARY, answer, (self.question,))
        if not self._with_token:
            return ""
        (given,) = authorization_pb2.AuthorizeResponse.FromString(answer).decision.call_tokens
        if given.refusal:
            raise WrongAnswerError(f"no call token: {given.refusal}")
        return given.token


@asynccontextmanager
async def brokered_calls(
    address: str,
    dialect: Dialect,
    measurement: Measurement,
    workload: Workload,  # noqa: ARG001 - these calls are of tools of their own
) -> AsyncIterator[Ask]:
    """Yield the function that asks and then calls. It raises `WrongAnswerError` for every error, too."""
    if not isinstance(dialect, BrokeredDialect):
        raise TypeError("only what is brokered is called")
    numbers, asked = count(1), dialect.encode(measurement.shape, (dialect.question,))
    async with (
        grpc.aio.insecure_channel(address, options=OPTIONS) as channel,
        dialect.calling(dialect.question) as call,
    ):
        authorize = channel.unary_unary(dialect.path(measurement.shape))

        async def ask() -> Answered:
            digits = digits_of(next(numbers))
            try:
                answer = await authorize(asked, metadata=(*dialect.metadata, _trace(digits)))
                body = await call(dialect.token_in(answer), digits)
            except grpc.aio.AioRpcError as error:
                raise unanswered(error) from error
            if body != ANSWER:
                raise WrongAnswerError("the other side did not answer the call")
            return Answered(decisions=1, remembered=0, fresh=0)

        yield ask


@asynccontextmanager
async def with_own_key(address: str, question: Question) -> AsyncIterator[Call]:
    """Call the other side itself, with its key."""
    prepared = request("GET", f"/{question.server}/read", {"host": address, "authorization": f"Bearer {KEY}"})
    async with HTTPConnections(address) as connections:
        yield lambda _, digits: connections.exchange(prepared, digits)


@asynccontextmanager
async def through_proxy(address: str, question: Question) -> AsyncIterator[Call]:
    """Send the request through a broker, which adds the key."""
    path = f"/{question.server}/{question.server}/read"
    async with HTTPConnections(address) as connections:
        yield lambda token, digits: connections.exchange(
            request("GET", path, {"host": "localhost", HEADER: token}), digits
        )


@asynccontextmanager
async def by_broker(address: str, question: Question) -> AsyncIterator[Call]:
    """Let a broker build the request and send it."""
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        method = channel.unary_unary(_CALL)

        async def call(token: str, digits: bytes) -> bytes:
            asked = broker_pb2.CallRequest(
                call_token=token,
                server=question.server,
                tool=question.tool,
                arguments_json=question.arguments_json,
            )
            answer = await method(asked.SerializeToString(), metadata=(_trace(digits),))
            told = broker_pb2.CallResponse.FromString(answer)
            if told.status != HTTPStatus.OK:
                raise WrongAnswerError(f"the other side answered with status {told.status}")
            return bytes(told.body)

        yield call


def _trace(digits: bytes) -> tuple[str, str]:
    return "traceparent", traceparent(digits).decode()
