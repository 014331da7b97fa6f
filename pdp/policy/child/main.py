"""The child process that runs foreign policy text: `python -m pdp.policy.child.main SECONDS`.

Reads jobs from standard input and writes results to standard output, each a frame: four bytes of length, most
significant first, then JSON. The first frame out is empty and says that the child is ready. The child ends when its
input ends, when a job takes `SECONDS`, or when a job fails in any way that is not a result.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from typing import IO, Any

from pdp.foundation.threads import on_large_stack

# The engine recurses; what the limits allow takes less than 2 MiB, and what they miss should have room to fail well.
STACK_BYTES = 256 * 1024 * 1024
# Address space, with the stack in it. A job that needs more ends the child and nothing else.
MEMORY_BYTES = 4 * 1024 * 1024 * 1024
# Policies as JSON are twice as deep as their operators; the interpreter's own limit allows about 450.
_RECURSION = 100_000

_FUNCTIONS = {
    "compile": ("pdp.policy.child.compile", "compile_bundle"),
    "evaluate": ("pdp.policy.child.evaluation", "evaluate"),
    "format": ("pdp.policy.child.formatting", "format_files"),
    "mutate": ("pdp.policy.child.mutants", "mutate_bundle"),
}


def main() -> int:
    """Serve jobs until standard input ends; return the exit code."""
    _limit_process()
    answers = _take_stdout()
    sys.setrecursionlimit(_RECURSION)
    on_large_stack(lambda: serve(sys.stdin.buffer, answers, float(sys.argv[1])), STACK_BYTES)
    return 0


def serve(jobs: IO[bytes], answers: IO[bytes], seconds: float) -> bool:
    """Answer every job of one stream on another; return True when the first ends."""
    write_frame(answers, {})
    while (job := read_frame(jobs)) is not None:
        # The kernel keeps this time: the engine holds the interpreter lock, so nothing in here could. It matters when
        # the parent has gone and nobody else is left to end a job without end.
        signal.setitimer(signal.ITIMER_REAL, seconds)
        result = _function(job["kind"])(job["job"])
        signal.setitimer(signal.ITIMER_REAL, 0)
        write_frame(answers, result)
    return True


def read_frame(stream: IO[bytes]) -> dict[str, Any] | None:
    """Read one frame; return None at the end of the stream, also in the middle of a frame."""
    head = stream.read(4)
    body = stream.read(int.from_bytes(head, "big"))
    if len(head) < 4 or len(body) < int.from_bytes(head, "big"):  # noqa: PLR2004 - the length has four bytes
        return None
    value: dict[str, Any] = json.loads(body)
    return value


def write_frame(stream: IO[bytes], value: dict[str, Any]) -> None:
    """Write one frame and flush it."""
    body = json.dumps(value).encode("ascii")
    stream.write(len(body).to_bytes(4, "big") + body)
    stream.flush()


def _function(kind: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    # Imported by kind, so that a mistake in one does not keep the other from working.
    module, name = _FUNCTIONS[kind]
    function: Callable[[dict[str, Any]], dict[str, Any]] = getattr(import_module(module), name)
    return function


def _limit_process() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the policies
    with contextlib.suppress(ValueError, OSError):  # where the system cannot or already sets less, its word stands
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def _take_stdout() -> IO[bytes]:
    # What the engine prints must not end up between the frames.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


if __name__ == "__main__":
    sys.exit(main())
