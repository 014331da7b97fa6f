"""Run the command of a server that is killed right after a commit, before it answers: `python -m … METHOD COMMAND`.

METHOD is one of a session store, whose first call is the last thing that the process does.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from typing import Any

from pdp.sessions.sqlstore import SQLSessionStore


def main(method: str, command: list[str]) -> None:
    """Run a command such as `python -m pdp.cli serve` in this process."""
    change = getattr(SQLSessionStore, method)

    def last(*what: Any, **more: Any) -> None:
        change(*what, **more)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(SQLSessionStore, method, last)
    _, _, module, *sys.argv[1:] = command
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
