"""The connections of the loop, as bad as their bounds admit: `python -m tests.census.loopconnections`.

1,000 peers make a call, leave as many refused calls unended as wait, and the headers of another, and fill the tables of
their connections; then 64 MiB of answers are left unread.
"""

from __future__ import annotations

import gc

from grpc import StatusCode

from pdp.bench import frames
from pdp.bench.frames import frame
from pdp.limits import DEFAULT_LIMITS
from pdp.serving.http2.bounds import Bounds
from pdp.serving.http2.connection import GRPCConnection
from pdp.serving.http2.nghttp2 import NGHTTP2Engine
from pdp.serving.http2.stream import Stream
from pdp.serving.looptransport import WAITING_BYTES
from tests.census.containers import MIB, resident, say
from tests.machinery.servers.http2frames import PATH, headers, text, whole

# The stream whose headers do not end: after a call that is answered, and those that are refused.
_LAST = 3 + 2 * Bounds().refused


class _Kept:
    """Keeps the calls of a connection."""

    def __init__(self) -> None:
        self.calls: list[Stream] = []

    def begun(self, stream: Stream) -> None:
        """Keep a call."""
        self.calls.append(stream)

    def heard(self, _: Stream) -> None:
        """Do nothing."""

    def left(self, _: Stream) -> None:
        """Do nothing."""


def _greeted(kept: _Kept) -> GRPCConnection:
    connection = GRPCConnection(NGHTTP2Engine, {PATH: True}, Bounds(), kept)
    connection.receive(frames.PREFACE + frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 0}), 0.0)
    connection.outgoing()
    return connection


def _with_unended_headers() -> GRPCConnection:
    kept = _Kept()
    connection = _greeted(kept)
    # As much as is remembered of the headers of a call.
    connection.receive(whole(1, {"user-agent": "x" * 600}), 0.0)
    connection.end(kept.calls.pop(), StatusCode.OK)
    for stream in range(3, _LAST, 2):
        connection.receive(headers(stream), 0.0)
        # Details of its own, as large as those of most refusals.
        details = [("grpc-status-details-bin", stream.to_bytes(256))]
        connection.end(kept.calls.pop(), StatusCode.UNAUTHENTICATED, "the call has no token", details)
    connection.outgoing()
    # Each is added to the table that both sides keep.
    remembered = b"".join(b"\x40" + text(b"name-%d" % number) + text(b"x" * 100) for number in range(30))
    connection.receive(headers(_LAST, more=[("own", b"x" * 7000)], flags=0), 0.0)
    connection.receive(frame(frames.CONTINUATION, 0, _LAST, remembered), 0.0)
    if connection.closing:
        raise AssertionError("the headers are more than their bound")
    if connection.in_progress != Bounds().refused:
        raise AssertionError("the refusals do not wait")
    return connection


def _with_unread_answers(size: int) -> GRPCConnection:
    kept = _Kept()
    connection = _greeted(kept)
    connection.receive(whole(1), 0.0)
    connection.send(kept.calls[0], bytes(size))
    connection.outgoing()
    return connection


def main() -> None:
    """Say by how many MiB this process grows with the connections, and with the answers too."""
    gc.collect()
    before = resident()
    kept = [_with_unended_headers() for _ in range(DEFAULT_LIMITS.connections)]
    gc.collect()
    say(f"{(resident() - before) / MIB:.1f}")
    kept += [_with_unread_answers(4 * MIB) for _ in range(WAITING_BYTES // (4 * MIB))]
    say(f"{(resident() - before) / MIB:.1f}")
    if sum(one.waiting for one in kept) < WAITING_BYTES:
        raise AssertionError("the answers do not wait")


if __name__ == "__main__":
    main()
