"""Threads with a larger stack for the engine, which walks policies and arguments by recursion."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Only used pages take memory.
LARGE_STACK_BYTES = 64 * 1024 * 1024

# INVARIANT: `threading.stack_size` is one setting for the process; two changes at once would leave a wrong value.
_STARTING = threading.Lock()

# How long a thread that must not wait may wait for a lock: others hold those of memory for some microseconds.
MOMENT_SECONDS = 0.001


def start_on_large_stack(thread: threading.Thread, size: int = LARGE_STACK_BYTES) -> None:
    """Start a thread with a stack of `size` bytes; later threads have the former size."""
    with _STARTING:
        before = threading.stack_size(size)
        try:
            thread.start()
        finally:
            threading.stack_size(before)


def on_large_stack(work: Callable[[], T], size: int = LARGE_STACK_BYTES) -> T:
    """Run `work` on a new thread with a stack of `size` bytes, and return its result."""
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(work()), name="pdp-large-stack")
    start_on_large_stack(thread, size)
    thread.join()
    return results[0]
