"""Run untrusted policy text in a child process, so that text that crashes or stalls the engine ends only the child."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import IO, Any, cast

from pdp.errors import EvaluatorUnavailableError, OverloadedError
from pdp.policy.child.main import read_frame, write_frame

# Starting takes a fifth of a second on an idle machine; this allows for a busy one.
_START_SECONDS = 60.0


class PolicyChild:
    """One child process that does one job at a time; it starts at the first job, and again after it has ended.

    `timeout` bounds a job, in seconds. Up to `waiting` callers wait up to `timeout` for their turn; others are refused.
    Safe for threads.
    """

    def __init__(self, *, timeout: float, waiting: int = 16) -> None:
        self._timeout = timeout
        self._slots = threading.BoundedSemaphore(waiting + 1)
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def call(self, kind: str, job: Mapping[str, Any]) -> dict[str, Any]:
        """Run a job and return its result. `kind` is `compile`, `evaluate`, `format` or `mutate`.

        Raise `OverloadedError` when too many callers wait or the wait is too long, and `EvaluatorUnavailableError` when
        the job ends the child or takes longer than `timeout`; the next job gets a new child.
        """
        if not self._slots.acquire(blocking=False):
            raise OverloadedError("too many jobs wait for the policy evaluator")
        try:
            if not self._turn.acquire(timeout=self._timeout):
                raise OverloadedError("the policy evaluator is busy")
            try:
                return self._run(kind, job)
            finally:
                self._turn.release()
        finally:
            self._slots.release()

    def evaluate(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Run `pdp.policy.child.evaluation.evaluate` in the child; raises as `call` does."""
        return self.call("evaluate", job)

    def close(self) -> None:
        """End the child, and with it a job that still runs; later jobs raise `EvaluatorUnavailableError`."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()
        with self._turn:
            if self._process is not None:
                self._process.kill()
            self._discard()

    def _run(self, kind: str, job: Mapping[str, Any]) -> dict[str, Any]:
        self._check_open()
        if self._process is not None and self._process.poll() is not None:
            self._discard()
        if self._process is None:
            self._process = _start(self._timeout)
            self._exchange(self._process, None, _START_SECONDS)
            self._check_open()  # `close` may have run before the process was stored
        return self._exchange(self._process, {"kind": kind, "job": dict(job)}, self._timeout)

    def _check_open(self) -> None:
        if self._closed:
            raise EvaluatorUnavailableError("the policy evaluator is closed")

    def _exchange(
        self, process: subprocess.Popen[bytes], question: dict[str, Any] | None, seconds: float
    ) -> dict[str, Any]:
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        # A killed child closes its pipes, which ends both the write and the read below.
        timer = threading.Timer(seconds, stop)
        timer.name, timer.daemon = "pdp-child-end", True
        timer.start()
        answer, code = None, 0
        try:
            with suppress(BrokenPipeError):
                if question is not None:
                    write_frame(cast("IO[bytes]", process.stdin), question)
                answer = read_frame(cast("IO[bytes]", process.stdout))
        finally:
            timer.cancel()
            # INVARIANT: a child is kept only when its answer was read, so that no caller gets another caller's answer.
            if answer is None or late.is_set():
                code = self._discard()
        if answer is None:
            raise EvaluatorUnavailableError(_obituary(code, seconds, late=late.is_set(), started=question is not None))
        return answer

    def _discard(self) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        # A child that closed its pipes is about to end by itself; wait for its exit code.
        try:
            code = process.wait(1)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(BrokenPipeError):  # the child has ended, so unsent data can be dropped
                cast("IO[bytes]", pipe).close()
        return code


def run_once(kind: str, job: Mapping[str, Any], *, timeout: float) -> dict[str, Any]:
    """Run one job in a new child process; raises as `PolicyChild.call` does."""
    with closing(PolicyChild(timeout=timeout)) as child:
        return child.call(kind, job)


def _start(timeout: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own module
        # `-P`: nothing is imported from the working directory.
        [sys.executable, "-P", "-m", "pdp.policy.child.main", str(timeout + 1)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # a panic message of the engine quotes the text that it read
        cwd="/",
        env=_environment(),
        process_group=0,  # Ctrl-C on a terminal is for the server; the child ends when its input does
    )


def _environment() -> dict[str, str]:
    # The server's environment may hold secrets. Keep only what finds the same interpreter and modules.
    kept = {name: value for name in ("LD_LIBRARY_PATH",) if (value := os.environ.get(name))}
    return kept | {"PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path)}  # noqa: PTH100 - text


def _obituary(code: int, seconds: float, *, late: bool, started: bool) -> str:
    if not started:
        return f"the policy evaluator does not start (exit code `{code}`)"
    if late:
        return f"the policies took the engine longer than `{seconds:g}` seconds"
    if code < 0:
        return f"the policies crashed the engine (signal `{signal.Signals(-code).name}`)"
    return f"the policies ended the engine (exit code `{code}`)"
