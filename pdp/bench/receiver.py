"""A receiver of OTLP in its own process, so that its CPU is not counted as the sender's.

Run as `python -m pdp.bench.receiver take`, or `refuse`, or `hang`. It prints its address and serves until its input
ends. One that hangs takes requests and never answers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

import grpc

from pdp.bench.processes import listening, module_process

_OPTIONS = (("grpc.max_receive_message_length", 64 * 1024 * 1024), ("grpc.so_reuseport", 0))
_THREADS = 4


def _take(_: bytes, __: Any) -> bytes:  # noqa: ANN401 - gRPC has no types
    return b""


def _refuse(_: bytes, context: Any) -> bytes:  # noqa: ANN401 - gRPC has no types
    context.abort(grpc.StatusCode.UNAVAILABLE, "refused")
    return b""


def _hang(_: bytes, context: Any) -> bytes:  # noqa: ANN401 - gRPC has no types
    over = Event()
    if context.add_callback(over.set):
        over.wait()
    return b""


_WAYS: Mapping[str, Callable[[bytes, Any], bytes]] = {"take": _take, "refuse": _refuse, "hang": _hang}


class _Every(grpc.GenericRpcHandler):  # type: ignore[misc]  # gRPC has no types
    """Serves every path in one way."""

    def __init__(self, way: Callable[[bytes, Any], bytes]) -> None:
        self._handler = grpc.unary_unary_rpc_method_handler(way)

    def service(self, call: Any) -> Any:  # noqa: ANN401, ARG002 - gRPC has no types
        return self._handler


@contextmanager
def receiving(way: str) -> Iterator[str]:
    """Run a receiver while the `with` block runs; yield its endpoint."""
    with module_process("pdp.bench.receiver", [way], core=None) as process:
        yield "http://" + listening(process, "receiver")


def main() -> None:
    """Serve until standard input ends."""
    server = grpc.server(ThreadPoolExecutor(_THREADS), handlers=(_Every(_WAYS[sys.argv[1]]),), options=_OPTIONS)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)  # noqa: T201 - how whoever started it learns the port
    sys.stdin.read()
    server.stop(None).wait()


if __name__ == "__main__":
    main()
