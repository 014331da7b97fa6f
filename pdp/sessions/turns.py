"""Let one thread write at a time, in order of arrival: under load no thread is passed over, but by what presses."""

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

    Those that press come before all others. At most `most` threads of either kind wait, and none longer than `seconds`.
    """

    def __init__(self, *, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        # Guards the fields below.
        self._lock = Lock()
        self._taken = False
        self._waiting: deque[Lock] = deque()
        self._pressing: deque[Lock] = deque()

    @contextmanager
    def turn(self, *, last: bool = False, presses: bool = False) -> Iterator[None]:
        """Hold the lock for the `with` block. Raise `OverloadedError` when it is not free in time.

        The `last` turn waits without a limit. Who waits for one that `presses` is seen by `pressed`.
        """
        self._take(self._pressing if presses else self._waiting, _FOR_EVER if last else self._seconds)
        try:
            yield
        finally:
            self._pass_on()

    @property
    def pressed(self) -> bool:
        """Say whether a thread waits that presses: who has the lock for long had better pass it on."""
        with self._lock:
            return bool(self._pressing)

    def _take(self, waiting: deque[Lock], seconds: float) -> None:
        own = Lock()
        with self._lock:
            if not self._taken:
                self._taken = True
                return
            if len(waiting) >= self._most and seconds != _FOR_EVER:
                raise _busy()
            own.acquire()
            waiting.append(own)
        # INVARIANT: a thread that passes the lock on has first removed the next waiter from the queue.
        if not own.acquire(timeout=seconds):
            with self._lock:
                if own in waiting:
                    waiting.remove(own)
                    raise _busy()

    def _pass_on(self) -> None:
        with self._lock:
            waiting = self._pressing or self._waiting
            if waiting:
                waiting.popleft().release()
            else:
                self._taken = False


def _busy() -> OverloadedError:
    return OverloadedError("the session store is busy with other calls; nothing was written, try again")
