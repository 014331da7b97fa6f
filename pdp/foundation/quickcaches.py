"""Caches of a limited size, for values that can be computed again.

A look-up costs the same as in a dictionary: `SmallCache` and `WeighedCache` forget everything at once, and
`GenerationCache` roughly the least recently used values. `pdp.foundation.lrucache` forgets exactly those, and its
look-ups cost more.
"""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class SmallCache(dict[K, V]):
    """At most `most` values; one more empties it first."""

    __slots__ = ("_most",)

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def keep(self, key: K, value: V) -> V:
        """Keep a value that is not kept yet, and return it."""
        if len(self) >= self._most:
            self.clear()
        self[key] = value
        return value


class WeighedCache(dict[K, V]):
    """At most `most` values that weigh at most `most_bytes` together; one more empties it first."""

    __slots__ = ("_bytes", "_most", "_most_bytes")

    def __init__(self, most: int, most_bytes: int) -> None:
        super().__init__()
        self._most, self._most_bytes = most, most_bytes
        self._bytes = 0

    def keep(self, key: K, value: V, weight: int) -> V:
        """Keep a value that is not kept yet, and return it."""
        if len(self) >= self._most or self._bytes + weight > self._most_bytes:
            self.clear()
            self._bytes = 0
        self[key] = value
        self._bytes += weight
        return value


class GenerationCache(Generic[K, V]):
    """A bounded cache of values that can be computed again. Safe for threads.

    A value that is put or found goes into the younger of two generations. When that would weigh more than half of
    `most`, the older generation is dropped and the younger one becomes the older. So recently used values stay.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._young: dict[K, tuple[V, int]] = {}
        self._old: dict[K, tuple[V, int]] = {}
        self._weight = 0
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        """Return the value under a key, or None when it is not kept."""
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key)
            if found is None:
                return None
            self.put(key, *found)
        return found[0]

    def put(self, key: K, value: V, weight: int) -> None:
        """Keep a value. One heavier than half of `most` has a generation to itself."""
        with self._lock:
            if key in self._young:
                return
            if self._young and self._weight + weight > self._most // 2:
                self._old, self._young, self._weight = self._young, {}, 0
            self._young[key] = value, weight
            self._weight += weight
