"""Have the session of a task end even if this process is killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from pdp.doors import guardian
from pdp.doors.tasks import Task


@contextmanager
def guarded(task: Task, options: Sequence[str]) -> Iterator[None]:
    """Run a guardian beside the `with` block; `options` are those by which `pdp` reaches the server."""
    end = ["-m", "pdp.cli", "session", "end", "--session-handle-file", "/dev/stdin", *options]
    # In a session of its own: what kills all processes of the door's group leaves it alone.
    with subprocess.Popen(  # noqa: S603 - this program, with words of its own
        [sys.executable, "-I", guardian.__file__, str(task.folder), sys.executable, *end],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            yield
        finally:
            if process.stdin is not None:
                with suppress(OSError):
                    process.stdin.write(b"x")
                    process.stdin.close()
