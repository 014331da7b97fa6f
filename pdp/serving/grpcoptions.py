"""What each of gRPC's own servers bounds, whoever asks it."""

from __future__ import annotations

from typing import TypeAlias

from pdp.serving.http2.bounds import Times

Options: TypeAlias = tuple[tuple[str, int], ...]

_TIMES = Times()


def server_options(*, message_bytes: int, connections: int, share_port: bool = False) -> Options:
    """Return the options of a server: connections that say nothing, or are there no more, hold no place."""
    return (
        ("grpc.max_receive_message_length", message_bytes),
        # Otherwise gRPC lets callers send ever more unrequested data: many MiB on each stream, not 64 KiB.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.max_allowed_incoming_connections", connections),
        # A connection that sends nothing, or nothing of HTTP/2, is closed after this.
        ("grpc.server_handshake_timeout_ms", round(_TIMES.handshake * 1000)),
        ("grpc.keepalive_time_ms", round(_TIMES.ping * 1000)),
        ("grpc.keepalive_timeout_ms", round(_TIMES.ping_answer * 1000)),
        # Otherwise a second server silently takes half of the calls of the first.
        ("grpc.so_reuseport", int(share_port)),
    )
