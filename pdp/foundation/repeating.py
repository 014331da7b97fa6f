"""Do something again and again on a thread of its own, and at once when it is wanted."""

from __future__ import annotations

import threading
from collections.abc import Callable

# Between two turns, however often one is wanted.
_PAUSE_SECONDS = 1.0


class Refresher:
    """A thread that calls `work` at its start, every `every` seconds and after `wake`. Errors are `work`'s business."""

    def __init__(self, name: str, work: Callable[[], None], *, every: float, pause: float = _PAUSE_SECONDS) -> None:
        self._work = work
        self._every = every
        self._pause = pause
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
        """Take no further turn, and wait until one that goes on is over."""
        self._stopping.set()
        self._wanted.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wanted.clear()
            self._work()
            if self._stopping.wait(self._pause):
                return
            self._wanted.wait(max(0.0, self._every - self._pause))
