"""The port on which a gateway asks: gRPC on loopback, or under TLS for those whose certificates are known."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc

from pdp.errors import CannotListenError, ConfigurationError
from pdp.foundation.loopback import host_and_port, is_loopback

_MOST_CONNECTIONS, _MOST_OPEN = 1000, 512
# What never speaks, or is there no more, holds no place.
_HANDSHAKE_MS, _PING_MS, _PING_ANSWER_MS = 10_000, 60_000, 20_000
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

    async def handled(self, question: Any, context: Any) -> Any:  # noqa: ANN401 - gRPC has no types
        """Answer one question."""
        metadata = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
        remaining = context.time_remaining()
        return await self.answer(question, metadata, None if remaining is None else remaining * _OF_THE_TIME)


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
    options = (
        # A port that another process has is an error, and not shared.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", most_bytes),
        ("grpc.max_allowed_incoming_connections", _MOST_CONNECTIONS),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
        ("grpc.keepalive_time_ms", _PING_MS),
        ("grpc.keepalive_timeout_ms", _PING_ANSWER_MS),
    )
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=_MOST_OPEN)
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            method.handled,
            request_deserializer=method.question.FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )
        for name, method in methods.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
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
