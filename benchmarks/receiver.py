"""A receiver of OTLP in a process of its own, so that its CPU is not the sender's: `python -m benchmarks.receiver`.

It prints its endpoint and receives until its input ends.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc


class _Taking(grpc.GenericRpcHandler):  # type: ignore[misc]  # gRPC has no types
    def service(self, call: Any) -> Any:  # noqa: ANN401, ARG002 - gRPC has no types
        return grpc.unary_unary_rpc_method_handler(lambda _, __: b"")


def main() -> None:
    """Receive until standard input ends."""
    options = (("grpc.max_receive_message_length", 64 * 1024 * 1024),)
    server = grpc.server(ThreadPoolExecutor(2), handlers=(_Taking(),), options=options)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"http://127.0.0.1:{port}", flush=True)
    sys.stdin.read()
    server.stop(None).wait()


if __name__ == "__main__":
    main()
