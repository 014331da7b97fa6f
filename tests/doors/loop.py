"""The event loop in which the tests run doors that gateways ask."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

SECONDS = 60.0


class _Loop:
    """One event loop for all doors: gRPC's own thread still speaks to that of an earlier one when it is closed."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True, name="doors").start()

    def run(self, work: Any) -> Any:
        """Return what a coroutine returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(SECONDS)


LOOP = _Loop()


def little_of_the_time() -> AbstractContextManager[Any]:
    """Have doors answer after a second of the minute that a gateway waits: the rest is for a busy machine."""
    return patch("pdp.doors.grpcport._OF_THE_TIME", 1 / SECONDS)
