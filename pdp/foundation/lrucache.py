"""A cache of the most recently used values: so many, in so many bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class LRUCache(Generic[V]):
    """At most `size` values, with a total weight of at most `most_bytes`. Safe for threads.

    The least recently used value goes first, and one heavier than `most_bytes` is not kept. `weigh` returns how many
    bytes a value takes with its key; without it only their number counts.
    """

    def __init__(self, size: int, *, most_bytes: int = 0, weigh: Callable[[V], int] = lambda _: 0) -> None:
        # With their weights; the least recently used first.
        self._values: OrderedDict[Hashable, tuple[V, int]] = OrderedDict()
        self._size = size
        self._most_bytes = most_bytes
        self._weigh = weigh
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> V | None:
        """Return the value under a key, or None when it is not kept."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
        return found[0]

    def keep(self, key: Hashable, value: V) -> V:
        """Keep a value under a key, and return it."""
        weight = self._weigh(value)
        if weight <= self._most_bytes:
            with self._lock:
                _, former = self._values.pop(key, (None, 0))
                self._values[key] = value, weight
                self._bytes += weight - former
                while self._bytes > self._most_bytes or len(self._values) > self._size:
                    _, (_, dropped) = self._values.popitem(last=False)
                    self._bytes -= dropped
        return value

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()
            self._bytes = 0
