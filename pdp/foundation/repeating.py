"""Run work repeatedly on its own thread, and earlier on request."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Self

# The shortest pause between two turns, however many are requested.
_PAUSE_SECONDS = 1.0


class Repeater:
    """A thread that calls `work` every `every` seconds, after `wake`, and, with `at_once`, when it starts.

    `work` must handle its own errors. A `with` block starts and stops it.
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
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Request a turn now. Returns at once."""
        self._wanted.set()

    def pause(self, seconds: float) -> bool:
        """Wait within a turn. Return True when the thread is stopping and the turn should end."""
        return self._stopping.wait(seconds)

    def stop(self) -> None:
        """Take no further turn, and wait until a running one is over. Harmless when not started."""
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
