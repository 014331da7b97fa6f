"""Threads for handlers: they exist from the start, have stacks for the engine, and take on only so much."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

# The engine walks policies and arguments by recursion. Only the pages that are touched take memory.
_STACK_BYTES = 64 * 1024 * 1024
_STARTING = threading.Lock()


class BoundedPool(ThreadPoolExecutor):
    """A pool of `threads` threads that holds at most `bound` tasks, running and waiting together.

    It does not refuse by itself, because gRPC must be able to submit: whoever fills it asks `full` first. gRPC asks
    and submits on one thread, so the bound holds.
    """

    def __init__(self, name: str, *, threads: int, bound: int) -> None:
        super().__init__(max_workers=threads, thread_name_prefix=f"pdp-{name}")
        self._bound = bound
        self._taken = 0
        self._counting = threading.Lock()
        self._start(threads)

    @property
    def full(self) -> bool:
        """Say whether the bound is reached."""
        return self._taken >= self._bound

    def submit(self, task: Callable[..., Any], /, *args: Any, **more: Any) -> Future[Any]:  # noqa: ANN401 - as the base class has it
        """Run a task on one of the threads."""
        with self._counting:
            self._taken += 1
        future = super().submit(task, *args, **more)
        future.add_done_callback(self._done)
        return future

    def _done(self, _: Future[Any]) -> None:
        with self._counting:
            self._taken -= 1

    def _start(self, threads: int) -> None:
        # The pool makes a thread for each task that finds none idle: tasks that wait for each other make all of them.
        gate = threading.Barrier(threads + 1)
        # The size of new stacks is a setting of the process.
        with _STARTING:
            before = threading.stack_size(_STACK_BYTES)
            try:
                started = [super(BoundedPool, self).submit(gate.wait) for _ in range(threads)]
            finally:
                threading.stack_size(before)
        gate.wait()
        for future in started:
            future.result()
