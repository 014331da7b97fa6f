"""One exchange with a server by gRPC: unary, on a stream, or a batch; each answer is checked."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count, cycle
from typing import Any, NamedTuple

import grpc

from pdp.bench.callids import before_id, digits_of, traceparent
from pdp.bench.dialects import Dialect
from pdp.bench.failure import WrongAnswerError
from pdp.bench.load import Answered, Ask
from pdp.bench.plan import BATCH, Measurement, Shape
from pdp.bench.questions import Question, Workload


class Asked(NamedTuple):
    """A message, its questions, and how many of them were never asked before."""

    wire: bytes
    questions: Sequence[Question]
    fresh: int

    def answered(self, remembered: int) -> Answered:
        """Return what came of it: so many of its answers were remembered."""
        return Answered(decisions=len(self.questions), remembered=remembered, fresh=self.fresh)


# A server takes 32 by default; with more, several messages are in progress on one stream.
_MOST_STREAMS = 16
# By default a process shares connections, and a server's closed one would be used for the next server.
OPTIONS = (("grpc.use_local_subchannel_pool", 1),)
# A stall of the machine has many calls begin at once on one connection. gRPC's own server then refuses some before it
# looks at them, which clients have to expect; the time until they are answered counts.
_ASKED_AGAIN = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.01s",
                    "maxBackoff": "0.1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": [grpc.StatusCode.UNAVAILABLE.name],
                },
            }
        ]
    }
)


@asynccontextmanager
async def exchanging(
    address: str, dialect: Dialect, measurement: Measurement, workload: Workload
) -> AsyncIterator[Ask]:
    """Connect to a server; yield the function that asks it.

    It raises `WrongAnswerError` for every error, too.
    """
    shape = measurement.shape
    supply = supplied(
        workload, measurement.misses, lambda questions: dialect.encode(shape, questions), size=size_of(shape)
    )
    path = dialect.path(shape)
    options = (*OPTIONS, ("grpc.service_config", _ASKED_AGAIN))
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        if shape is Shape.STREAM:
            many = min(measurement.concurrency, _MOST_STREAMS)
            streams = [_Stream(channel.stream_stream(path)(metadata=dialect.metadata), dialect) for _ in range(many)]
            turns = cycle(streams)
            try:
                yield lambda: next(turns).ask(next(supply))
            finally:
                for stream in streams:
                    await stream.close()
            return
        method, numbers = channel.unary_unary(path), count(1)
        start_of_id = before_id(dialect.id_field) if shape is Shape.UNARY else b""

        async def ask() -> Answered:
            asked, digits = next(supply), digits_of(next(numbers))
            # As raw frames do: a batch has no id of its own.
            wire = asked.wire + start_of_id + digits if start_of_id else asked.wire
            metadata = (*dialect.metadata, ("traceparent", traceparent(digits).decode()))
            try:
                answer = await method(wire, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                raise unanswered(error) from error
            return asked.answered(dialect.check(shape, answer, asked.questions))

        yield ask


def size_of(shape: Shape) -> int:
    """Return how many questions go into one message."""
    return BATCH if shape is Shape.BATCH else 1


def supplied(
    workload: Workload, misses: float | None, encode: Callable[[Sequence[Question]], bytes], *, size: int
) -> Iterator[Asked]:
    """Yield messages without end, with `size` questions each and a share of new ones.

    Messages of repeated questions are made in advance, so that the load has its core for the rest.
    """
    repeated = workload.repeated
    turns = range(len(repeated) if size == 1 else -(-len(repeated) // size))
    groups = [[repeated[(turn * size + index) % len(repeated)] for index in range(size)] for turn in turns]
    fresh = workload.fresh
    if not misses or fresh is None:
        yield from cycle([Asked(encode(group), group, 0) for group in groups])
        return
    due = 0.0
    for group in cycle(groups):
        questions, asked_first = list(group), 0
        for index in range(size):
            due += misses
            if due >= 1.0:
                due -= 1.0
                questions[index] = fresh()
                asked_first += 1
        yield Asked(encode(questions), questions, asked_first)


class _Stream:
    """One open stream: messages are sent at once, and answers belong to them in order."""

    def __init__(self, call: Any, dialect: Dialect) -> None:  # noqa: ANN401 - gRPC has no types
        self._call = call
        self._dialect = dialect
        self._waiting: deque[tuple[asyncio.Future[Answered], Asked]] = deque()
        self._sending = asyncio.Lock()
        self._reader = asyncio.create_task(self._read())

    async def ask(self, asked: Asked) -> Answered:
        """Send one message and wait for its answer."""
        answered: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        async with self._sending:
            self._waiting.append((answered, asked))
            try:
                await self._call.write(asked.wire)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
                raise unanswered(error) from error
        return await answered

    async def close(self) -> None:
        """End the stream."""
        self._reader.cancel()
        self._call.cancel()
        with suppress(asyncio.CancelledError):
            await self._reader

    async def _read(self) -> None:
        while True:
            try:
                answer = await self._call.read()
                failure = WrongAnswerError("the server ended the stream") if answer is grpc.aio.EOF else None
            except grpc.aio.AioRpcError as error:
                failure = unanswered(error)
            if failure is not None:
                for answered, _ in self._waiting:
                    if not answered.done():
                        answered.set_exception(failure)
                return
            answered, asked = self._waiting.popleft()
            try:
                remembered = self._dialect.check(Shape.STREAM, answer, asked.questions)
            except WrongAnswerError as error:
                answered.set_exception(error)
            else:
                if not answered.done():
                    answered.set_result(asked.answered(remembered))


def unanswered(error: Exception) -> WrongAnswerError:
    """Return the error for a call of gRPC that failed."""
    if isinstance(error, grpc.aio.AioRpcError):
        return WrongAnswerError(f"no answer: {error.code().name}, {error.details()}")
    return WrongAnswerError("no answer: the stream has ended")
