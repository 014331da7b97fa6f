"""End the session of a task when the last door that worked on it has crashed.

A process of its own: `python guardian.py MEMBERS COMMAND…`. It waits for the end of its stdin, which its door holds
open. A door that leaves says so with a byte. Without that byte the door was killed: if no other door holds a lock on
the file MEMBERS, this process becomes the command, which ends the session. It imports nothing of the product, so that
it takes little memory while it waits.
"""

from __future__ import annotations

import fcntl
import os
import sys


def main(members: str, command: list[str]) -> None:
    """Wait for the door, and end its session if it has not done so itself."""
    if os.read(0, 1):
        return
    try:
        descriptor = os.open(members, os.O_RDWR)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError):
        return  # another door works on the task, or it has never begun
    os.execv(command[0], command)  # noqa: S606 - without a shell, and with the words of the door that started it


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
