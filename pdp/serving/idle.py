"""Ends streams on which nothing has happened for too long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pdp.clock import Clock


class IdleWatch:
    """Cancels streams that have been idle for `limit` seconds of the boot clock. Safe for threads."""

    def __init__(self, clock: Clock, *, limit: float) -> None:
        self._clock = clock
        self._limit = limit
        self._streams: set[_Stream] = set()
        self._lock = threading.Lock()

    @contextmanager
    def watched(self, cancel: Callable[[], None]) -> Iterator[Callable[[], None]]:
        """Watch a stream; yield a function to call whenever something happens on it."""
        stream = _Stream(cancel, self._clock)
        with self._lock:
            self._streams.add(stream)
        try:
            yield stream.touch
        finally:
            with self._lock:
                self._streams.discard(stream)

    def sweep(self) -> None:
        """Cancel the streams that have been idle for too long."""
        idle_since = self._clock.now().boot_at - self._limit
        with self._lock:
            streams = tuple(self._streams)
        for stream in streams:
            if stream.active_at <= idle_since:
                stream.cancel()


class _Stream:
    __slots__ = ("_clock", "active_at", "cancel")

    def __init__(self, cancel: Callable[[], None], clock: Clock) -> None:
        self.cancel = cancel
        self._clock = clock
        self.touch()

    def touch(self) -> None:
        self.active_at = self._clock.now().boot_at
