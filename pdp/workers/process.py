"""One worker as its supervisor sees it: a process that is told things by one pipe and reports by another.

It is started anew, not forked: gRPC does not survive a fork. Once it may begin it is told its job, and then signals
and what other workers tell. It reports that it serves, or why it cannot, and what it tells others. The end of its
report is the end of the worker, and the end of what it is told is the end of its supervisor.
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

from pdp.config import Settings, dump, restore
from pdp.workers.words import Told, Word, read, written

_CHUNK = 65536
# Where `/proc/PID/stat` has these, counted from what follows the name.
_USER_TIME, _SYSTEM_TIME = 11, 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a worker is to do: on which settings, as which of the workers (from 1), on which core (None: any).

    The one that is the `control` process serves what ends authority, and no calls.
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
    """A worker that runs `command` with the descriptor for its report as last argument, and its job on its input.

    It waits for its job until `begin`, and meanwhile makes itself ready, which several can do at the same time.
    Never waits for it, but in `bury`: what it does not read in time it is not told.
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
                # What finds the same modules, wherever the worker looks for them.
                env=os.environ | {"PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path)},  # noqa: PTH100 - text
                process_group=0,  # Ctrl-C on a terminal is for the supervisor, who tells the workers
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
        """Return the descriptor that can be read when there is something to hear."""
        return self._reports

    def begin(self) -> None:
        """Give the worker its job."""
        self._write(self._job)
        os.set_blocking(self._orders.fileno(), False)
        self._begun = True

    def tell(self, word: Word) -> None:
        """Tell the worker something. One that has ended hears nothing; one that has no job yet is ended by a signal."""
        if self._begun:
            self._write(written(word))
        elif isinstance(word, Told) and word.signal == signal.SIGTERM:
            self.kill()

    def hear(self) -> tuple[Word, ...] | None:
        """Wait for what the worker reports, and return it; None when it has ended."""
        heard = os.read(self._reports, _CHUNK)
        *lines, self._unfinished = (self._unfinished + heard).split(b"\n")
        return tuple(read(line) for line in lines) if heard else None

    def cpu_seconds(self) -> float:
        """Return how much time of a core the process has used; infinite where the system does not say."""
        with suppress(OSError, ValueError, IndexError):
            fields = (
                Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(") ")[2].split()
            )
            return (int(fields[_USER_TIME]) + int(fields[_SYSTEM_TIME])) / os.sysconf("SC_CLK_TCK")
        return math.inf

    def kill(self) -> None:
        """End the process at once; harmless when it has ended."""
        self._process.kill()

    def bury(self) -> str:
        """Wait for the end, release everything, and return in words how it ended."""
        code = self._process.wait()
        self._orders.close()
        os.close(self._reports)
        return f"signal `{signal.Signals(-code).name}`" if code < 0 else f"exit code `{code}`"

    @property
    def _orders(self) -> IO[bytes]:
        return cast("IO[bytes]", self._process.stdin)

    def _write(self, line: bytes) -> None:
        # A line is in the pipe as a whole or, when nothing has been read for long, not at all.
        with suppress(BrokenPipeError):
            self._orders.write(line)
