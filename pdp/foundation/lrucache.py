"""A cache of the most recently used values: so many, in so many bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import cachetools

V = TypeVar("V")


class LRUCache(Generic[V]):
    """At most `size` values, with a total weight of at most `most_bytes`. Safe for threads.

    The least recently used value goes first, and one heavier than `most_bytes` is not kept. `weigh` returns how many
    bytes a value takes with its key; without it only their number counts.
    """

    def __init__(self, size: int, *, most_bytes: int = 0, weigh: Callable[[V], int] = lambda _: 0) -> None:
        self._values: cachetools.LRUCache[Hashable, V] = cachetools.LRUCache(most_bytes, getsizeof=weigh)
        self._size = size
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> V | None:
        """Return the value under a key, or None when it is not kept."""
        with self._lock:
            return self._values.get(key)

    def keep(self, key: Hashable, value: V) -> V:
        """Keep a value under a key, and return it."""
        with self._lock:
            if self._values.getsizeof(value) <= self._values.maxsize:
                self._values[key] = value
                if len(self._values) > self._size:
                    self._values.popitem()
        return value

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()
