"""A resolver of the system that hangs."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Have the resolver say nothing about hosts of `.example` while the block runs; give those it was asked for."""
    asked, over, look_up = list[str](), threading.Event(), socket.getaddrinfo

    def hangs(host: str, *rest: Any, **more: Any) -> Any:
        if host.endswith(".example"):
            asked.append(host)
            over.wait()
            raise socket.gaierror
        return look_up(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    yield asked
    over.set()
    for thread in threading.enumerate():
        if thread.name == "pdp-resolve":
            thread.join()
