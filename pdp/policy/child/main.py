"""The child process that runs untrusted policy text: `python -m pdp.policy.child.main SECONDS`.

Reads jobs from standard input and writes results to standard output, each as a frame: four bytes of length, most
significant first, then JSON. The first frame out is an empty object and means that the child is ready. The child ends
when its input ends, when a job takes `SECONDS`, or when a job fails without a result.
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

# The engine recurses. Text within the limits needs less than 2 MiB; other text has room to fail with an error.
STACK_BYTES = 256 * 1024 * 1024
# Address space, including the stack. A job that needs more ends only the child.
MEMORY_BYTES = 4 * 1024 * 1024 * 1024
# Policies as JSON are twice as deep as their operators; the interpreter's default limit allows about 450.
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
    """Answer every job of `jobs` on `answers`; return True at the end of `jobs`."""
    write_frame(answers, {})
    while (job := read_frame(jobs)) is not None:
        # The kernel keeps this time, since the engine holds the interpreter lock. It matters when the parent has ended
        # and cannot kill a child whose job never ends.
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
    # Imported by kind, so that an import error in one kind does not affect the others.
    module, name = _FUNCTIONS[kind]
    function: Callable[[dict[str, Any]], dict[str, Any]] = getattr(import_module(module), name)
    return function


def _limit_process() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the policies
    with contextlib.suppress(ValueError, OSError):  # the system cannot set this limit, or has a lower one
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def _take_stdout() -> IO[bytes]:
    # Output of the engine must not appear between the frames.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


if __name__ == "__main__":
    sys.exit(main())
