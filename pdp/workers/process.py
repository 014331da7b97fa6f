"""One worker as its supervisor sees it: a process that is told things by one pipe and reports by another.

It is started anew, not forked: gRPC does not survive a fork. It is told its job, one line, and then signals, one byte
each. It reports one line: that it serves, or why it cannot. The end of its report is the end of the worker, and the
end of what it is told is the end of its supervisor.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Self, cast

from pdp.config import Settings, dump, restore


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a worker is to do: on which settings, as which of the workers (from 1), on which core (None: any)."""

    settings: Settings
    number: int
    core: int | None = None

    def written(self) -> bytes:
        """Return the job as a line, for `read`."""
        return json.dumps({"number": self.number, "core": self.core, "settings": dump(self.settings)}).encode() + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Self:
        """Read a line of `written`."""
        fields = json.loads(line)
        return cls(settings=restore(fields["settings"]), number=fields["number"], core=fields["core"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How a worker's start went: it serves, or these lines for people say why it does not."""

    problems: tuple[str, ...] = ()

    def written(self) -> bytes:
        """Return the report as a line, for `read`."""
        return json.dumps(self.problems).encode() + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Self:
        """Read a line of `written`."""
        return cls(problems=tuple(json.loads(line)))


class WorkerProcess:
    """A worker that runs `command` with the descriptor for its report as last argument, and its job on its input."""

    def __init__(self, command: Sequence[str], job: bytes) -> None:
        reading, writing = os.pipe()
        self._reports = os.fdopen(reading, "rb")
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [*command, str(writing)],
                stdin=subprocess.PIPE,
                pass_fds=(writing,),
                # What finds the same modules, wherever the worker looks for them.
                env=os.environ | {"PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path)},  # noqa: PTH100 - text
                process_group=0,  # Ctrl-C on a terminal is for the supervisor, who tells the workers
            )
        except BaseException:
            self._reports.close()
            raise
        finally:
            os.close(writing)
        self._tell(job)

    @property
    def pid(self) -> int:
        """Return the id of the process."""
        return self._process.pid

    def fileno(self) -> int:
        """Return the descriptor that can be read when there is something to hear."""
        return self._reports.fileno()

    def send(self, number: signal.Signals) -> None:
        """Pass a signal on. One that has ended hears nothing."""
        self._tell(bytes([number]))

    def hear(self) -> Report | None:
        """Wait for what the worker reports, and return it; None when it has ended."""
        line = self._reports.readline()
        return Report.read(line) if line.endswith(b"\n") else None

    def kill(self) -> None:
        """End the process at once; harmless when it has ended."""
        self._process.kill()

    def bury(self) -> str:
        """Wait for the end, release everything, and return in words how it ended."""
        code = self._process.wait()
        with suppress(BrokenPipeError):
            cast("IO[bytes]", self._process.stdin).close()
        self._reports.close()
        return f"signal `{signal.Signals(-code).name}`" if code < 0 else f"exit code `{code}`"

    def _tell(self, what: bytes) -> None:
        with suppress(BrokenPipeError):
            pipe = cast("IO[bytes]", self._process.stdin)
            pipe.write(what)
            pipe.flush()
