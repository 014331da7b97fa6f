"""Run a server as a process on one core, and ask the kernel for its CPU."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pdp.errors import UnavailableError

_LISTENING = "listening on "
_ENDING_SECONDS = 30.0

_STATISTICS = Path("/proc/stat")
_STOLEN = 7


def cores() -> tuple[int | None, int | None]:
    """Return the core for servers and that for the load; None if cores cannot be set."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Keep this thread and the processes that it starts on a core in a `with` block."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def module_process(
    module: str,
    arguments: Sequence[str] = (),
    *,
    core: int | None,
    environment: Mapping[str, str] | None = None,
    errors: int = subprocess.DEVNULL,
) -> Iterator[subprocess.Popen[str]]:
    """Run a module of ours on a core while the `with` block runs.

    It ends by the end of its input or else by a signal. Files in the working directory are never imported.
    """
    command = [sys.executable, "-P", "-m", module, *arguments]
    with running(command, core=core, environment=environment, errors=errors) as process:
        yield process


@contextmanager
def running(
    command: Sequence[str],
    *,
    core: int | None,
    environment: Mapping[str, str] | None = None,
    errors: int = subprocess.DEVNULL,
) -> Iterator[subprocess.Popen[str]]:
    """Run a command on a core while the `with` block runs; `errors` says where its standard error goes."""
    with on_core(core):
        process = subprocess.Popen(  # noqa: S603 - our own modules, and a program that the user named
            command,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=_ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def listening(process: subprocess.Popen[str], what: str, *, says: str = _LISTENING) -> str:
    """Return the address that a server prints after `says` once it listens.

    Raise `UnavailableError` when it ends instead.
    """
    for line in process.stdout or ():
        if line.startswith(says):
            return line.removeprefix(says).strip()
    raise UnavailableError(f"`{what}` ended before it listened")


def core_seconds(core: int | None) -> float:
    """Return how many seconds a core ran processes, or was taken from this machine.

    NaN when unknown. The kernel's work for the network, which it does on behalf of callers, is not counted.
    """
    if core is not None:
        with suppress(OSError):
            for line in _STATISTICS.read_text(encoding="ascii").splitlines():
                name, *ticks = line.split()
                if name == f"cpu{core}":
                    user, nice, system, *_ = map(int, ticks)
                    return (user + nice + system + int(ticks[_STOLEN])) / os.sysconf("SC_CLK_TCK")
    return math.nan


def cpu_seconds(pid: int | None) -> float:
    """Return a process's CPU time, ended threads included; NaN when not available.

    From the clock that Linux keeps for each process (`clock_getcpuclockid`): /proc has the same in steps of 10 ms.
    """
    if pid is None or sys.platform != "linux":
        return math.nan
    with suppress(OSError):
        return time.clock_gettime(~pid << 3 | 2)
    return math.nan
