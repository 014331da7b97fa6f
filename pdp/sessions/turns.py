"""Let one thread write at a time, in order of arrival: under load no thread is passed over."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Final

from pdp.errors import OverloadedError

# More than the threads that a server has for calls.
MOST_WAITING: Final = 256
# The value of `Lock.acquire` for no timeout.
_FOR_EVER = -1.0


class Turns:
    """A lock that passes to the waiting threads in order of arrival. Safe for threads.

    At most `most` threads wait for it, and none longer than `seconds`.
    """

    def __init__(self, *, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        # Guards the fields below.
        self._lock = Lock()
        self._taken = False
        self._waiting: deque[Lock] = deque()
        self._pressing = 0

    @contextmanager
    def turn(self, *, last: bool = False, presses: bool = False) -> Iterator[None]:
        """Hold the lock for the `with` block. Raise `OverloadedError` when it is not free in time.

        The `last` turn waits without a limit. Who waits for one that `presses` is seen by `pressed`.
        """
        with self._lock:
            self._pressing += presses
        try:
            self._take(_FOR_EVER if last else self._seconds)
        finally:
            with self._lock:
                self._pressing -= presses
        try:
            yield
        finally:
            self._pass_on()

    @property
    def pressed(self) -> bool:
        """Say whether a thread waits that presses: who has the lock for long had better pass it on."""
        with self._lock:
            return self._pressing > 0

    def _take(self, seconds: float) -> None:
        own = Lock()
        with self._lock:
            if not self._taken:
                self._taken = True
                return
            if len(self._waiting) >= self._most and seconds != _FOR_EVER:
                raise _busy()
            own.acquire()
            self._waiting.append(own)
        # INVARIANT: a thread that passes the lock on has first removed the next waiter from the queue.
        if not own.acquire(timeout=seconds):
            with self._lock:
                if own in self._waiting:
                    self._waiting.remove(own)
                    raise _busy()

    def _pass_on(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False


def _busy() -> OverloadedError:
    return OverloadedError("the session store is busy with other calls; nothing was written, try again")
