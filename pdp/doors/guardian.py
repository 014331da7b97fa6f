"""End the session of a task when the last door that worked on it has crashed.

A process of its own: `python guardian.py FOLDER COMMAND…`. It waits for the end of its stdin, which its door holds
open. A door that leaves says so with a byte. Without that byte the door was killed: if no other door works on the task
of the folder (`pdp.doors.tasks`), this process becomes the command, which reads the session's handle from its stdin and
ends the session. It imports nothing of the product, so that it takes little memory while it waits.
"""

from __future__ import annotations

import fcntl
import os
import sys


def main(folder: str, command: list[str]) -> None:
    """Wait for the door, and end its session if it has not done so itself."""
    if os.read(0, 1):
        return
    try:
        # Doors join under this lock, so that none takes up the session that ends now.
        fcntl.flock(os.open(f"{folder}/lock", os.O_RDWR), fcntl.LOCK_EX)
        fcntl.flock(os.open(f"{folder}/members", os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Opened now: the next door writes the handle of another session there, before the command reads it.
        os.dup2(os.open(f"{folder}/handle", os.O_RDONLY), 0)
    except (BlockingIOError, FileNotFoundError):
        return  # another door works on the task, or it has never begun
    os.execv(command[0], command)  # noqa: S606 - without a shell, and with the words of the door that started it


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
