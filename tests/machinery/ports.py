"""Ports for servers in processes of their own, which cannot be asked which one they got."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path

_GIVEN: set[int] = set()


def free_port(count: int = 1) -> int:
    """Return the first of so many ports that are free, from below those that a system gives to its own connections.

    While this process lives, neither it nor another one that runs tests is given one of them again.
    """
    while True:
        first = random.randrange(20_000, 32_000)  # noqa: S311 - no secret
        ports = range(first, first + count)
        with ExitStack() as tried, suppress(OSError):
            for port in ports:
                tried.enter_context(socket.socket()).bind(("127.0.0.1", port))
            if _GIVEN.isdisjoint(ports):
                # Each process that runs tests locks the bytes with the numbers of its ports.
                fcntl.lockf(_locks(), fcntl.LOCK_EX | fcntl.LOCK_NB, count, first)
                _GIVEN.update(ports)
                return first


@cache
def _locks() -> int:
    """Return the descriptor of the file of the locks, which stays open: to close it would let go of them."""
    return os.open(Path(tempfile.gettempdir()) / f"pdp-test-ports-{os.getuid()}", os.O_WRONLY | os.O_CREAT, 0o600)
