"""Do something again and again on a thread of its own, and at once when it is wanted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Self

# Between two turns, however often one is wanted.
_PAUSE_SECONDS = 1.0


class Repeater:
    """A thread that calls `work` every `every` seconds and after `wake`, and `at_once` or not when it starts.

    Errors are `work`'s business. A `with` block starts and stops it.
    """

    def __init__(self, name: str, work: Callable[[], object], *, every: float, at_once: bool = True) -> None:
        self._work = work
        self._every = every
        self._pause = min(_PAUSE_SECONDS, every)
        self._at_once = at_once
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"pdp-{name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Want a turn now. Returns at once."""
        self._wanted.set()

    def pause(self, seconds: float) -> bool:
        """Wait within a turn, and say whether to leave the rest of it because this is to stop."""
        return self._stopping.wait(seconds)

    def stop(self) -> None:
        """Take no further turn, and wait until one that goes on is over. Harmless when it never began."""
        self._stopping.set()
        self._wanted.set()
        if self._thread.ident is not None:
            self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        if self._at_once:
            self._turn()
        while not self._stopping.wait(self._pause):
            self._wanted.wait(self._every - self._pause)
            self._turn()

    def _turn(self) -> None:
        self._wanted.clear()
        if not self._stopping.is_set():
            self._work()
