"""Threads with a stack of their own size, which the engine needs: it walks policies and arguments by recursion."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Only the pages that are touched take memory.
LARGE_STACK_BYTES = 64 * 1024 * 1024

# INVARIANT: `threading.stack_size` is one setting of the process; two changes at once would leave the wrong one behind.
_STARTING = threading.Lock()


def start_on_large_stack(thread: threading.Thread, size: int = LARGE_STACK_BYTES) -> None:
    """Start a thread with a stack of `size` bytes; those that are started later have what they had before."""
    with _STARTING:
        before = threading.stack_size(size)
        try:
            thread.start()
        finally:
            threading.stack_size(before)


def on_large_stack(work: Callable[[], T], size: int = LARGE_STACK_BYTES) -> T:
    """Run `work` on a thread of its own with a stack of `size` bytes, and return what it returns."""
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(work()), name="pdp-large-stack")
    start_on_large_stack(thread, size)
    thread.join()
    return results[0]
