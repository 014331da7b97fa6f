"""`pdp` with a disk that can stall: `python -m benchmarks.stallserver FOLDER serve …`.

While there is a file `stalled` in the folder, no sync that Python asks for ends: those of the record. Writes go on, as
the system keeps them. SQLite's own syncs are not touched.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from pathlib import Path

STALLED = "stalled"
_LOOK_SECONDS = 0.005


def main() -> None:
    """Run the command that follows the folder."""
    stalled, sync = Path(sys.argv.pop(1)) / STALLED, os.fdatasync

    def sync_later(descriptor: int) -> None:
        while stalled.exists():
            time.sleep(_LOOK_SECONDS)
        sync(descriptor)

    # Before the record is imported, which has it as a default.
    os.fdatasync = sync_later  # type: ignore[assignment]
    runpy.run_module("pdp.cli", run_name="__main__")


if __name__ == "__main__":
    main()
