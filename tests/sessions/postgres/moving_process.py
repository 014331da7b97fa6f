"""Move a store and be killed: `moving_process.py FOLDER CONNINFO TARGET STEP`, before the answer to `STEP` is known."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from pdp.sessions.moving import move
from pdp.sessions.postgresmoving import PostgresSide
from pdp.sessions.sqlitemoving import SQLiteSide
from pdp.testing.stores.access import at


def main(folder: str, conninfo: str, target: str, last: str) -> None:
    """Move to `postgres` or `sqlite`; die when the step that begins with `last` is done."""

    def step(done: str) -> None:
        if done.startswith(last):
            os.kill(os.getpid(), signal.SIGKILL)

    postgres, files = PostgresSide(conninfo), (Path(folder) / "sessions.sqlite", Path(folder) / "history.sqlite")
    if target == "postgres":
        move(SQLiteSide(*files), postgres, now=at(2000.0), step=step)
    else:
        move(postgres, SQLiteSide(*files), now=at(2000.0), step=step)


if __name__ == "__main__":
    main(*sys.argv[1:])
