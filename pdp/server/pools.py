"""Threads for handlers: they exist from the start, have stacks for the engine, and take on only so much."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

_LOG = logging.getLogger("pdp.server")

# The engine walks policies and arguments by recursion. Only the pages that are touched take memory.
_STACK_BYTES = 64 * 1024 * 1024
_STARTING = threading.Lock()


class Task:
    """One handler to run, with what gRPC wants to be told when it is done.

    Lock-free: a callback is taken from the list before it is called, so it is called once, by whoever comes last.
    """

    __slots__ = ("_args", "_callbacks", "_done", "_work")

    def __init__(self, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._work = work
        self._args = args
        self._callbacks: list[Callable[[Any], Any]] = []
        self._done = False

    def add_done_callback(self, callback: Callable[[Any], Any]) -> None:
        """Call `callback` once, when the handler has returned or raised; at once if it has."""
        self._callbacks.append(callback)
        if self._done:
            self._call_back()

    def run(self) -> None:
        """Run the handler. gRPC's own handlers answer their errors; what still escapes is logged."""
        try:
            self._work(*self._args)
        except Exception:  # noqa: BLE001 - a thread that ends here would be missed by all later calls
            _LOG.exception("a handler failed outside of its wrapper")
        finally:
            self._done = True
            self._call_back()

    def _call_back(self) -> None:
        while True:
            try:
                callback = self._callbacks.pop()
            except IndexError:
                return
            callback(self)


class BoundedPool(ThreadPoolExecutor):
    """A pool of `threads` threads that holds at most `bound` tasks, running and waiting together.

    It is an executor by name, because gRPC takes no other, and has a queue and threads of its own: futures and their
    locks cost a quarter of a call. It does not refuse by itself, because gRPC must be able to submit: whoever fills
    it asks `full` first.
    """

    def __init__(self, name: str, *, threads: int, bound: int) -> None:
        super().__init__(max_workers=threads)  # makes threads only for its own `submit`, which is never called
        self.bound = bound
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        # INVARIANT: each number has one writer: gRPC's thread submits, each thread of ours counts what it finished.
        self._submitted = 0
        self._finished = [0] * threads
        # The size of new stacks is a setting of the process.
        with _STARTING:
            before = threading.stack_size(_STACK_BYTES)
            try:
                self._workers = [
                    threading.Thread(target=self._work, args=(place,), name=f"pdp-{name}_{place}", daemon=True)
                    for place in range(threads)
                ]
                for worker in self._workers:
                    worker.start()
            finally:
                threading.stack_size(before)

    @property
    def full(self) -> bool:
        """Say whether the bound is reached."""
        return self._submitted - sum(self._finished) >= self.bound

    def submit(self, task: Callable[..., Any], /, *args: Any) -> Task:  # type: ignore[override]  # noqa: ANN401 - gRPC uses no more than this of a future
        """Run a task on one of the threads. For one thread at a time."""
        self._submitted += 1
        made = Task(task, args)
        self._tasks.put(made)
        return made

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 - as the base class has it
        """End the threads when they have done what was submitted before."""
        for _ in self._workers:
            self._tasks.put(None)
        if wait:
            for worker in self._workers:
                worker.join()

    def _work(self, place: int) -> None:
        while (task := self._tasks.get()) is not None:
            task.run()
            self._finished[place] += 1
