"""The port on which Envoy asks: gRPC on loopback, or under TLS for those whose certificates are known."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc

from pdp.doors.envoy.door import EnvoyDoor
from pdp.doors.envoy.extauthz_pb2 import CheckRequest, CheckResponse
from pdp.errors import ConfigurationError
from pdp.foundation.loopback import host_and_port, is_loopback

_SERVICE: Final = "envoy.service.auth.v3.Authorization"
_MOST_OPEN: Final = 512
MOST_BYTES: Final = 4 * 1024 * 1024
_END_SECONDS: Final = 3.0
# The rest is for the answer: one that comes too late is not shown to a model.
_OF_THE_TIME: Final = 0.8
# A port that another process has is an error, and not shared.
_OPTIONS: Final = (("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MOST_BYTES))


@asynccontextmanager
async def serving(door: EnvoyDoor, address: str, *, credentials: Any = None) -> AsyncIterator[str]:  # noqa: ANN401 - gRPC has no types
    """Answer at an address while the block runs, and provide the address with the port that is open.

    `credentials` are those of a server of gRPC that knows its clients by their certificates; None is for loopback.
    Raise `ConfigurationError`.
    """
    found = host_and_port(address)
    if found is None:
        raise ConfigurationError(f"not an address such as `127.0.0.1:9191`: `{address}`")
    host, _ = found
    if credentials is None and not is_loopback(host):
        raise ConfigurationError(
            f"others can reach `{address}`: it needs a certificate, its key, and the authority of Envoy's certificate"
        )
    server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=_MOST_OPEN)

    async def check(question: CheckRequest, context: Any) -> CheckResponse:  # noqa: ANN401 - gRPC has no types
        metadata = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
        remaining = context.time_remaining()
        return await door.check(question, metadata, None if remaining is None else remaining * _OF_THE_TIME)

    method = grpc.unary_unary_rpc_method_handler(
        check,
        request_deserializer=CheckRequest.FromString,
        response_serializer=CheckResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {"Check": method}),))
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError:
        raise ConfigurationError(f"cannot listen on `{address}`: is the port free?") from None
    await server.start()
    try:
        yield f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    finally:
        await server.stop(_END_SECONDS)
