"""The port on which a gateway asks: gRPC on loopback, or under TLS for those whose certificates are known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from weakref import WeakValueDictionary

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from pdp.doors.grpcturns import Turns
from pdp.doors.mcp.load import Load, OverloadedError
from pdp.errors import CannotListenError, ConfigurationError, NotFoundError
from pdp.foundation.loopback import host_and_port, is_loopback
from pdp.limits import DEFAULT_LIMITS
from pdp.serving.grpcoptions import server_options
from pdp.serving.health import HEALTH, HealthHandlers

_MOST_CONNECTIONS, _MOST_OPEN = 1000, 512
# Of messages that are being read, of which gRPC keeps what has come; and how long one may take, with its turn.
_READ_BYTES: Final = 128 * 1024 * 1024
_MESSAGE_SECONDS: Final = DEFAULT_LIMITS.message_seconds
# What a question takes at most, for each of its bytes: itself, what is read of it, and the values in it.
_COPIES: Final = 6
_TOO_MUCH: Final = "too much is being answered; try again"
_END_SECONDS: Final = 3.0
# The rest is for the answer: one that comes too late is not shown to a model.
_OF_THE_TIME: Final = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One method of a service: the message it takes, and the function that answers it.

    The function gets the question, the metadata around it, and for how many seconds the gateway waits; None for ever.
    """

    question: Any
    answer: Callable[[Any, Mapping[str, str], float | None], Awaitable[Any]]

    async def answered(self, wire: bytes, context: Any) -> bytes:  # noqa: ANN401 - gRPC has no types
        """Answer one question. Raise `DecodeError`."""
        metadata = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
        remaining = context.time_remaining()
        patience = None if remaining is None else remaining * _OF_THE_TIME
        answer = await self.answer(self.question.FromString(wire), metadata, patience)
        return bytes(answer.SerializeToString())


class _Reading:
    """Reads questions: a few at a time, of which each can take the memory of the largest.

    gRPC keeps 64 KiB at most of one that nobody reads yet. What has been read is counted until it is answered. A
    gateway is known by the names in its certificate, and on loopback by its connection. It leaves room for others.
    """

    def __init__(self, most_bytes: int) -> None:
        self._turns = Turns(max(1, _READ_BYTES // most_bytes))
        self._load = Load()
        self._parts: WeakValueDictionary[frozenset[str], Load] = WeakValueDictionary()

    async def handled(self, method: Method, _: object, context: Any) -> bytes:  # noqa: ANN401 - gRPC has no types
        """Read one question and answer it."""
        names = context.peer_identities()
        who = frozenset(name.decode("utf-8", "replace") for name in names) if names else frozenset({context.peer()})
        part = self._parts.get(who) or self._load.part()
        self._parts[who] = part
        if part.full and not self._turns.end_one_for(who):
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, _TOO_MUCH)
        with part.counted():
            return await self._answered(method, context, who, part)

    async def _answered(self, method: Method, context: Any, who: frozenset[str], part: Load) -> bytes:  # noqa: ANN401 - gRPC has no types
        try:
            async with asyncio.timeout(_MESSAGE_SECONDS) as limit, self._turns.turn(who, limit):
                wire = await context.read()
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the message did not arrive in time")
        if not isinstance(wire, bytes):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "there is no message")
        try:
            with part.share() as share:
                share.hold(_COPIES * len(wire))
                return await method.answered(wire, context)
        except OverloadedError:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, _TOO_MUCH)
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the message cannot be read")
        except NotFoundError as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        raise AssertionError("`abort` raises")


@asynccontextmanager
async def serving(
    service: str,
    methods: Mapping[str, Method],
    address: str,
    *,
    most_bytes: int,
    credentials: Any = None,  # noqa: ANN401 - gRPC has no types
) -> AsyncIterator[str]:
    """Answer at an address while the block runs, and provide the address with the port that is open.

    A question has at most `most_bytes`. `credentials` are those of a server of gRPC that knows its clients by their
    certificates; None is for loopback. Raise `ConfigurationError`.
    """
    found = host_and_port(address)
    if found is None:
        raise ConfigurationError(f"not an address such as `127.0.0.1:9191`: `{address}`")
    host, _ = found
    if credentials is None and not is_loopback(host):
        raise ConfigurationError(
            f"others can reach `{address}`: it needs a certificate, its key, and the authority of the gateway's "
            "certificate"
        )
    # A port that another process has is an error, and not shared.
    options = server_options(message_bytes=most_bytes, connections=_MOST_CONNECTIONS)
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=_MOST_OPEN)
    reading = _Reading(most_bytes)
    health = HealthHandlers(dict.fromkeys(("", service), lambda: True), every=0)

    async def check(question: HealthCheckRequest, *_: object) -> HealthCheckResponse:
        return health.check(question)

    # Without `Watch`: each that watches would take the place of a question.
    probes = {"Check": Method(question=HealthCheckRequest, answer=check)}
    for name, served in ((service, methods), (HEALTH, probes)):
        # As a stream, of which gRPC reads nothing by itself.
        handlers = {
            each: grpc.stream_unary_rpc_method_handler(partial(reading.handled, method))
            for each, method in served.items()
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError:
        raise CannotListenError(f"cannot listen on `{address}`: is the port free?") from None
    await server.start()
    try:
        yield f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    finally:
        await server.stop(_END_SECONDS)
