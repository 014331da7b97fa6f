"""Supervisors over workers that run a script."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pdp.workers.port import SharedPort
from pdp.workers.process import WorkerProcess
from pdp.workers.supervisor import Patience, Supervisor

# What the scripts are made of. `round` counts, from 0, who has the place of a worker one after the other.
WORKER = """
import os, sys, time
from pdp.workers.words import Alive, Heard, News, Report, read, written
number, report = int(sys.stdin.buffer.raw.readline()), int(sys.argv[-1])
round = sum(name.startswith(f"{number}-") for name in os.listdir())
def mark(name):
    open(name, "x").close()
def say(word):
    os.write(report, written(word))
def serve():
    mark(f"{number}-{round}")
    say(Report())
def fail(*problems):
    say(Report(problems=problems))
    sys.exit(2)
def hear():
    line = sys.stdin.buffer.raw.readline()
    return line and read(line)
def told():
    word = hear()
    return word and word.signal
def end_test():
    with open("end", "w") as end:
        end.write("!")
"""
# However long a worker needs to end, its end is an early one.
AT_ONCE = Patience(steady=math.inf, first=0.0, longest=0.0, deaths=3, silent=math.inf)

Supervise = Callable[..., Supervisor]


@pytest.fixture
def end(tmp_path: Path) -> Iterator[int]:
    """Return a descriptor that can be read when a script has called `end_test`."""
    os.mkfifo(tmp_path / "end")
    descriptor = os.open(tmp_path / "end", os.O_RDONLY | os.O_NONBLOCK)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Supervise]:
    """Return what makes a supervisor of workers that run a script, all in one folder."""
    made: list[Supervisor] = []

    def make(script: str, *, count: int = 2, patience: Patience = AT_ONCE) -> Supervisor:
        command = [sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r})\n{WORKER}\n{script}"]
        supervisor = Supervisor(
            lambda number: WorkerProcess(command, f"{number}\n".encode()),
            count=count,
            port=SharedPort("127.0.0.1:0"),
            patience=patience,
        )
        made.append(supervisor)
        return supervisor

    yield make
    for supervisor in made:
        supervisor.stop(0.0)


def marks(folder: Path) -> list[str]:
    """Return the names of the files that workers have left."""
    return sorted(path.name for path in folder.iterdir() if path.name != "end")
