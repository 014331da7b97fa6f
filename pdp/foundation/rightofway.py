"""Who goes first: threads that compute begin between the turns of one that answers at once, not during a turn.

They share the interpreter, and often a core. During a turn that thread lets go of the interpreter with each call of the
system, and then waits for every thread that computes.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

# So long can something wait that has no right of way: it is never kept from running by one that always has a turn.
LONGEST_SECONDS: Final = 0.002
# For a thread that waits for the interpreter: it needs longer to wake than to be asked for nothing.
_PAUSE_SECONDS: Final = 0.00005
_OF_THREAD: Final = threading.local()


class RightOfWay:
    """The turns of one thread, and what others do between them. Safe for threads.

    While there is no turn, work runs at once. What comes during a turn waits: one begins at the end of each turn and of
    each work between turns, in order. Nothing waits longer than `seconds`, whatever the others do.
    """

    def __init__(self, seconds: float = LONGEST_SECONDS) -> None:
        self._seconds = seconds
        # INVARIANT: one that has to wait appends first and looks at `_taken` then; the end of a turn does both in the
        # other order. So none is missed, and the thread with the turns waits for no lock.
        self._waiting: deque[threading.Lock] = deque()
        self._taken = False

    def take(self) -> None:
        """Begin a turn, or go on with it."""
        self._taken = True

    def release(self) -> None:
        """End a turn, if there is one."""
        if self._taken:
            self._taken = False
            if self._waiting:
                self._next()

    def run(self, work: Callable[[], None]) -> None:
        """Run work that gives way. Raises what that raises."""
        self._wait()
        _OF_THREAD.way = self
        try:
            work()
        finally:
            _OF_THREAD.way = None
            self._done()

    def pause(self) -> None:
        """Let another one begin, and give way again, within `run`."""
        self._done()
        self._wait()

    def _wait(self) -> None:
        if not self._taken and not self._waiting:
            return
        mine = threading.Lock()
        mine.acquire()
        self._waiting.append(mine)
        if not self._taken:
            self._next()
        if not mine.acquire(timeout=self._seconds):
            with suppress(ValueError):
                self._waiting.remove(mine)

    def _done(self) -> None:
        if self._waiting and not self._taken:
            self._next()

    def _next(self) -> None:
        with suppress(IndexError):
            self._waiting.popleft().release()


def give_way() -> None:
    """Let go of the interpreter within something that computes for long, and let go first what has right of way."""
    time.sleep(_PAUSE_SECONDS)
    way: RightOfWay | None = getattr(_OF_THREAD, "way", None)
    if way is not None:
        way.pause()
