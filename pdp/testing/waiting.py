"""Wait for an effect of another thread or process."""

from __future__ import annotations

import time
from collections.abc import Callable

_PAUSE_SECONDS = 0.005


def wait_until(condition: Callable[[], bool], *, seconds: float = 30.0) -> None:
    """Wait until a condition holds; raise `AssertionError` when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            raise AssertionError(f"the condition was not met within {seconds:g} seconds")
        time.sleep(_PAUSE_SECONDS)
