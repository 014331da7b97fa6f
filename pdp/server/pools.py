"""Threads for handlers: they exist from the start, have stacks for the engine, and take on only so much."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

from pdp.stacks import start_on_large_stack

_LOG = logging.getLogger("pdp.server")

# How many threads a pool has at most when others take the place of those that are stuck.
MOST_THREADS = 64


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

    A thread that has been at one task for longer than `patience` seconds, say because a caller began a call and does
    not send its message, is stuck: another one takes its place when the next task comes, and it ends with its task.
    """

    def __init__(self, name: str, *, threads: int, bound: int, patience: float = math.inf) -> None:
        super().__init__(max_workers=threads)  # makes threads only for its own `submit`, which is never called
        self.bound = bound
        self._name, self._patience = name, patience
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        # INVARIANT: each number has one writer: gRPC's thread submits, each thread of ours counts what it finished, and
        # says since when it is at its task, infinity when it has none.
        self._submitted = 0
        self._finished: list[int] = []
        self._since: list[float] = []
        self._stuck: set[int] = set()
        self._workers: list[threading.Thread] = []
        for place in range(threads):
            self._start(place)
        self._stopping = threading.Event()
        self._looking = threading.Thread(target=self._look, name=f"pdp-{name}-look", daemon=True)
        self._looking.start()

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
        self._stopping.set()
        for _ in range(max(len(self._workers), MOST_THREADS)):
            self._tasks.put(None)
        if wait:
            # First whoever may be starting another worker just now.
            self._looking.join()
            for worker in self._workers:
                worker.join()

    def _start(self, place: int) -> None:
        """Start a thread in a new place, or in one whose thread has ended."""
        worker = threading.Thread(target=self._work, args=(place,), name=f"pdp-{self._name}_{place}", daemon=True)
        if place == len(self._workers):
            self._finished.append(0)
            self._since.append(math.inf)
            self._workers.append(worker)
        else:
            self._stuck.discard(place)
            self._workers[place] = worker
        start_on_large_stack(worker)

    def _look(self) -> None:
        while self._patience < math.inf and not self._stopping.wait(self._patience):
            self._replace_stuck(time.monotonic())

    def _replace_stuck(self, now: float) -> None:
        late = {place for place, since in enumerate(self._since) if now - since > self._patience} - self._stuck
        for place in late:
            ended = next((one for one in self._stuck if not self._workers[one].is_alive()), len(self._workers))
            if ended < MOST_THREADS:
                self._stuck.add(place)
                self._start(ended)

    def _work(self, place: int) -> None:
        while place not in self._stuck and (task := self._tasks.get()) is not None:
            self._since[place] = time.monotonic()
            task.run()
            self._finished[place] += 1
            self._since[place] = math.inf
