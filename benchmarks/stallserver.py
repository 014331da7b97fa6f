"""`pdp` with a disk that can stall, and a loop that is timed: `python -m benchmarks.stallserver FOLDER serve …`.

While there is a file `stalled` in the folder, no sync that Python asks for ends: those of the record. Writes go on, as
the system keeps them. SQLite's own syncs are not touched.

The file `turns` gets two numbers for each turn of the loop: when it ended, in monotonic seconds, and what other threads
took of the processor before it ended, in seconds.
"""

from __future__ import annotations

import os
import runpy
import selectors
import sys
import threading
import time
from array import array
from pathlib import Path

STALLED, TURNS = "stalled", "turns"
_LOOK_SECONDS = 0.005
_NOTE_SECONDS = 0.1
_LOOP = "pdp-loop"


def main() -> None:
    """Run the command that follows the folder."""
    folder, sync = Path(sys.argv.pop(1)), os.fdatasync
    stalled = folder / STALLED

    def sync_later(descriptor: int) -> None:
        while stalled.exists():
            time.sleep(_LOOK_SECONDS)
        sync(descriptor)

    # Before the record is imported, which has it as a default.
    os.fdatasync = sync_later  # type: ignore[assignment]
    selectors.DefaultSelector = timed(folder / TURNS)  # type: ignore[misc]
    runpy.run_module("pdp.cli", run_name="__main__")


def timed(path: Path) -> type[selectors.DefaultSelector]:
    """Return a selector that notes in a file how long the turns of a loop wait for other threads."""

    class Timed(selectors.DefaultSelector):
        """Notes a turn when it is asked what comes next."""

        def __init__(self) -> None:
            super().__init__()
            self._began: float | None = None
            self._turns, self._noted_at = array("d"), 0.0

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            """Return what has come."""
            if self._began is not None:
                self._note(time.monotonic(), _others() - self._began)
            found = super().select(timeout)
            self._began = _others() if found and threading.current_thread().name == _LOOP else None
            return found

        def _note(self, now: float, waited: float) -> None:
            self._turns.extend((now, waited))
            if now - self._noted_at > _NOTE_SECONDS:
                with path.open("ab") as file:
                    self._turns.tofile(file)
                self._turns, self._noted_at = array("d"), now

    return Timed


def _others() -> float:
    """Return what the other threads of this process have taken of the processor, in seconds."""
    return time.process_time() - time.thread_time()


if __name__ == "__main__":
    main()
