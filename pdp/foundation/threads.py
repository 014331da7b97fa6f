"""Threads with a stack of their own size, which the engine needs: it walks policies and arguments by recursion."""

from __future__ import annotations

import threading

# Only the pages that are touched take memory.
LARGE_STACK_BYTES = 64 * 1024 * 1024

# INVARIANT: `threading.stack_size` is one setting of the process; two changes at once would leave the wrong one behind.
_STARTING = threading.Lock()


def start_on_large_stack(thread: threading.Thread) -> None:
    """Start a thread with a stack of 64 MiB; those that are started later have what they had before."""
    with _STARTING:
        before = threading.stack_size(LARGE_STACK_BYTES)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
