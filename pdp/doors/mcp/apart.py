"""Do what takes long on large messages in a thread, so that the event loop goes on: calls of others, and ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

T = TypeVar("T")
Text = TypeVar("Text", bytes, str)

# Of a text that is read at once: some milliseconds at most.
_SHORT = 128 * 1024


async def apart(work: Callable[[Text], T], text: Text) -> T:
    """Return what work on a text comes to. Raise as it does."""
    if len(text) <= _SHORT:
        return work(text)
    return await asyncio.get_running_loop().run_in_executor(_one_thread(), work, text)


@cache
def _one_thread() -> ThreadPoolExecutor:
    """Return the thread. More would not be faster, and would have the loop wait longer for its turn."""
    return ThreadPoolExecutor(1, thread_name_prefix="pdp-messages")
