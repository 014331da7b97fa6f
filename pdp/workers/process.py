"""A worker process as its supervisor sees it: it gets words through one pipe and reports through another.

It is started as a new process, not forked, because gRPC does not survive a fork. It first gets its job, then signals
and news from other workers. It reports that it serves, or why it cannot, and its own news. When its report pipe
closes, the worker has ended; when its input closes, the supervisor has ended.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self, cast

from pdp.config.reading import dump, restore
from pdp.config.settings import Settings
from pdp.workers.words import Signal, Word, read, written

_CHUNK = 65536
# The positions of these in `/proc/PID/stat`, counted after the name.
_STATE, _USER_TIME, _SYSTEM_TIME = 0, 11, 12
# What the kernel calls a thread that could run, and one that waits for a disk or for memory (proc(5)).
_RUNNABLE, _DISK = "R", "D"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The job of a worker: its settings, its number (from 1), and its core (None: any).

    The `control` process serves what ends authority, and no calls.
    """

    settings: Settings
    number: int
    core: int | None = None
    control: bool = False

    def written(self) -> bytes:
        """Return the job as a line, for `read`."""
        fields = {"number": self.number, "core": self.core, "control": self.control, "settings": dump(self.settings)}
        return json.dumps(fields).encode() + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Self:
        """Read a line of `written`."""
        fields = json.loads(line)
        return cls(**{**fields, "settings": restore(fields["settings"])})


class WorkerProcess:
    """A worker that runs `command`, with the descriptor for its report as last argument, and its job on its input.

    It waits for its job until `begin`, and gets ready meanwhile; several workers can do so at the same time.
    Only `bury` waits for the worker: a word that it does not read in time is lost.
    """

    def __init__(self, command: Sequence[str], job: bytes) -> None:
        reading, writing = os.pipe()
        self._reports = reading
        self._unfinished = b""
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [*command, str(writing)],
                bufsize=0,
                stdin=subprocess.PIPE,
                pass_fds=(writing,),
                # Lets the worker find the same modules in any working directory.
                env=os.environ | {"PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path)},  # noqa: PTH100 - text
                process_group=0,  # Ctrl-C on a terminal reaches the supervisor, which signals the workers
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self._job = job
        self._begun = False

    @property
    def pid(self) -> int:
        """Return the id of the process."""
        return self._process.pid

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when the worker reports."""
        return self._reports

    def begin(self) -> None:
        """Give the worker its job."""
        self._write(self._job)
        os.set_blocking(self._orders.fileno(), False)
        self._begun = True

    def tell(self, word: Word) -> None:
        """Send a word to the worker, unless it has ended. SIGTERM before `begin` kills the worker."""
        if self._begun:
            self._write(written(word))
        elif isinstance(word, Signal) and word.signal == signal.SIGTERM:
            self.kill()

    def hear(self) -> tuple[Word, ...] | None:
        """Wait for words from the worker and return them; None when it has ended."""
        heard = os.read(self._reports, _CHUNK)
        *lines, self._unfinished = (self._unfinished + heard).split(b"\n")
        return tuple(read(line) for line in lines) if heard else None

    def cpu_seconds(self) -> float:
        """Return the core time used by the process in seconds; infinite where unknown."""
        with suppress(OSError, ValueError, IndexError):
            fields = _stat(Path(f"/proc/{self.pid}"))
            return (int(fields[_USER_TIME]) + int(fields[_SYSTEM_TIME])) / os.sysconf("SC_CLK_TCK")
        return math.inf

    def waits_for_the_machine(self) -> bool:
        """Say whether a thread of the process has or awaits a core, or awaits a disk; False where unknown."""
        with suppress(OSError, IndexError):
            threads = Path(f"/proc/{self.pid}/task").iterdir()
            return any(_stat(thread)[_STATE] in (_RUNNABLE, _DISK) for thread in threads)
        return False

    def kill(self) -> None:
        """Kill the process; harmless when it has ended."""
        self._process.kill()

    def bury(self) -> str:
        """Wait for the end, release everything, and return how the process ended, in words."""
        code = self._process.wait()
        self._orders.close()
        os.close(self._reports)
        return f"signal `{signal.Signals(-code).name}`" if code < 0 else f"exit code `{code}`"

    @property
    def _orders(self) -> IO[bytes]:
        return cast("IO[bytes]", self._process.stdin)

    def _write(self, line: bytes) -> None:
        # A line goes into the pipe as a whole or, when the worker has not read for long, not at all.
        with suppress(BrokenPipeError):
            self._orders.write(line)


def _stat(folder: Path) -> list[str]:
    """Return what the kernel says of a process or thread, after its name."""
    return (folder / "stat").read_text(encoding="ascii", errors="replace").rpartition(") ")[2].split()
