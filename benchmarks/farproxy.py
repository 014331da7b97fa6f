"""A proxy of TCP through which everything takes longer, as to a server far away: `farproxy.py PORT SECONDS`.

It adds half of the seconds to each way, to the microsecond, and takes no part in what is said. Only
`benchmarks.together` starts it.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from collections import deque

_AT_ONCE = 256 * 1024


def _serve(listening: socket.socket, upstream: tuple[str, int], seconds: float) -> None:
    """Pass on what comes on each connection, later and in order."""
    others: dict[socket.socket, socket.socket] = {}
    under_way: deque[tuple[float, socket.socket, bytes]] = deque()
    while True:
        wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        # Unlike `epoll`, it waits for microseconds.
        ready, _, _ = select.select([listening, *others], [], [], wait)
        now = time.monotonic()
        for one in ready:
            if one is listening:
                near, far = listening.accept()[0], socket.create_connection(upstream)
                for end in (near, far):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                others |= {near: far, far: near}
            else:
                under_way.append((now + seconds, others[one], _received(one)))
                if not under_way[-1][2]:
                    del others[one]
        while under_way and under_way[0][0] <= time.monotonic():
            _, end, data = under_way.popleft()
            _pass_on(end, data)


def _received(end: socket.socket) -> bytes:
    try:
        return end.recv(_AT_ONCE)
    except ConnectionError:
        return b""


def _pass_on(end: socket.socket, data: bytes) -> None:
    try:
        if data:
            end.sendall(data)
        else:
            end.shutdown(socket.SHUT_WR)
    except OSError:
        # Its peer has left.
        pass


def main() -> None:
    """Serve until a signal ends it."""
    port, seconds = int(sys.argv[1]), float(sys.argv[2])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(f"listening on 127.0.0.1:{listening.getsockname()[1]}", flush=True)
        _serve(listening, ("127.0.0.1", port), seconds / 2)


if __name__ == "__main__":
    main()
