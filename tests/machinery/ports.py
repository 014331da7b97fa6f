"""Ports for servers in processes of their own, which cannot be asked which one they got."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack, suppress


def free_port(count: int = 1) -> int:
    """Return the first of so many ports that are free, from below those that a system gives to its own connections."""
    while True:
        first = random.randrange(20_000, 32_000)  # noqa: S311 - no secret
        with ExitStack() as tried, suppress(OSError):
            for port in range(first, first + count):
                tried.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
