"""The yardstick: a server of the same shape that decides nothing. To change it is to change every ratio.

The same transport, pool sizes, channel options and answer bytes as the PDP; the handler returns a constant.
Run as `python -m pdp.bench.control`; it prints the port and serves until its input ends.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from pdp.v1 import authorization_pb2, decision_pb2

_THREADS = 4
_STREAM_THREADS = 32
_BATCH = 50


def answer() -> decision_pb2.Decision:
    """Return an answer of the usual size."""
    return decision_pb2.Decision(
        decision_id="dec_" + "a" * 26,
        outcome=decision_pb2.OUTCOME_ALLOW,
        basis=decision_pb2.BASIS_PERMIT,
        determining_policies=["bench/staff"],
        session_id="ses_" + "a" * 26,
        user="alice",
        agent="worker",
        server="bench",
        tool="read_item",
        arguments_digest="sha256:" + "a" * 64,
        bundle_version="sha256:" + "a" * 64,
        session_epoch=2,
        cache_result=decision_pb2.CACHE_RESULT_HIT,
        tenant="default",
        duration_us=20.0,
    )


class _Empty(grpc.GenericRpcHandler):  # type: ignore[misc]  # gRPC has no types
    def __init__(self) -> None:
        one = answer()
        self._unary = authorization_pb2.AuthorizeResponse(decision=one).SerializeToString()
        self._batch = authorization_pb2.BatchAuthorizeResponse(decisions=[one] * _BATCH).SerializeToString()
        self._stream = authorization_pb2.AuthorizeStreamResponse(decision=one).SerializeToString()
        self._stream_pool = ThreadPoolExecutor(_STREAM_THREADS)

    def service(self, call: Any) -> Any:  # noqa: ANN401 - gRPC has no types
        method = call.method.rpartition("/")[2]
        if method == "AuthorizeStream":
            return grpc.stream_stream_rpc_method_handler(self._stream_handler())
        found = self._batch if method == "BatchAuthorize" else self._unary
        return grpc.unary_unary_rpc_method_handler(lambda _, __: found)

    def _stream_handler(self) -> Any:  # noqa: ANN401 - a function with an attribute
        def exchange(requests: Iterator[bytes], _: Any) -> Iterator[bytes]:  # noqa: ANN401 - gRPC has no types
            for _message in requests:
                yield self._stream

        exchange.experimental_thread_pool = self._stream_pool  # type: ignore[attr-defined]  # gRPC's own convention
        return exchange


def main() -> None:
    """Serve until standard input ends."""
    server = grpc.server(ThreadPoolExecutor(_THREADS), handlers=(_Empty(),), options=(("grpc.so_reuseport", 0),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)  # noqa: T201 - how whoever started it learns the port
    sys.stdin.read()
    server.stop(None).wait()


if __name__ == "__main__":
    main()
