"""Use the approvals of one file from a process of its own: `using_process.py PATH APPROVALS`.

It tries each again and again until all are used, and prints the id of the request after each use, when the history has
acknowledged it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pdp.sessions.sqlitehistory import SQLiteSessionHistory
from pdp.testing.stores.access import at, bound


def use_all(history: SQLiteSessionHistory, approvals: int) -> None:
    """Use approvals of as many calls until none is left."""
    calls = [bound(b"%d" % number, session_id=f"ses_{number // 20}") for number in range(approvals)]
    while calls:
        for call in list(calls):
            use = history.access().use(call, b"", at(1001.0))
            if use is None:
                calls.remove(call)
            else:
                sys.stdout.write(f"{use.request.id}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    # One that waits for the file only looks now and then, and others can take it in between for as long as they have
    # work.
    use_all(SQLiteSessionHistory(Path(sys.argv[1]), busy_seconds=240.0), int(sys.argv[2]))
