"""A control that does nothing: a process that wakes every millisecond, and notes how late.

Run as `python -m benchmarks.wakes`: for each line of input it prints the p99 and the longest delay since the line
before, in milliseconds.
"""

from __future__ import annotations

import json
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from pdp.bench.figures import percentile
from pdp.bench.processes import running

_EVERY_SECONDS = 0.001


class Wakes(NamedTuple):
    """How late a process woke that had nothing to do, in milliseconds."""

    p99: float
    longest: float


@contextmanager
def waking(core: int | None) -> Iterator[Callable[[], Wakes]]:
    """Run the control on a core; yield a function that returns how late it woke since the last question."""
    with running([sys.executable, "-m", "benchmarks.wakes"], core=core) as process:
        asked, told = process.stdin, process.stdout
        if asked is None or told is None:
            raise AssertionError("the process has pipes")

        def wakes() -> Wakes:
            asked.write("\n")
            asked.flush()
            return Wakes(*json.loads(told.readline()))

        yield wakes


def main() -> None:
    """Wake until the input ends."""
    late: list[float] = [0.0]
    due = time.perf_counter()
    while True:
        due = max(due + _EVERY_SECONDS, time.perf_counter())
        ready, _, _ = select.select([sys.stdin], [], [], max(0.0, due - time.perf_counter()))
        if not ready:
            late.append((time.perf_counter() - due) * 1000)
        elif not sys.stdin.readline():
            return
        else:
            print(json.dumps([percentile(sorted(late), 99.0), max(late)]), flush=True)
            late = [0.0]


if __name__ == "__main__":
    main()
