"""Threads for handlers: started in advance, with stacks for the engine, and with a limit on the tasks they accept."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue

from pdp.errors import OverloadedError
from pdp.foundation.repeating import Repeater
from pdp.foundation.rightofway import RightOfWay
from pdp.foundation.threads import start_on_large_stack

_LOG = logging.getLogger("pdp.server")

# The most threads that a pool can have when new threads replace those that are stuck.
MOST_THREADS = 64


# The id of the caller, or empty, the work, and what comes afterwards.
_Task = tuple[str, Callable[[], None], Callable[[], None] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How much a pool accepts: `threads`, and at most `bound` tasks, running and waiting together.

    One owner has at most `share` of these tasks, and at most `turns` of them run at a time; tasks without an owner have
    no such limits. A thread that has run one task for longer than `patience` seconds, for example because the store is
    locked, is stuck: another thread replaces it, and the stuck one ends with its task.
    """

    threads: int
    bound: int
    share: int
    turns: float = math.inf
    patience: float = math.inf


class BoundedPool:
    """The threads of a lane and the tasks that wait for them. Safe for threads.

    `put` does not refuse: `enter` a task first; after `put` the task leaves by itself when it has run. The pool has its
    own queue and threads, because futures and their locks cost a quarter of a call. `limit` names in a refusal the
    limit that applies. Each task gives way to the turns of `way`, if there is one.
    """

    def __init__(self, name: str, room: Room, *, limit: str = "", way: RightOfWay | None = None) -> None:
        self.room = room
        self._name, self._limit = name, limit or f"lane `{name}`"
        self._run: Callable[[Callable[[], None]], None] = way.run if way is not None else _run
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        # Guards the three counts.
        self._counting = threading.Lock()
        self._open: dict[str, int] = {}
        self._total = 0
        self._turns: dict[str, _Turns] = {}
        # INVARIANT: each entry has one writer: its thread notes when its task began, or infinity between tasks.
        self._since: list[float] = []
        self._stuck: set[int] = set()
        self._workers: list[threading.Thread] = []
        for index in range(room.threads):
            self._start(index)
        self._checker = Repeater(f"{name}-check", self._check, every=room.patience, at_once=False)
        if room.patience < math.inf:
            self._checker.start()

    def has_share(self, owner: str) -> bool:
        """Say whether an owner has less than its share, and can enter a task unless the pool is full."""
        return self._open.get(owner, 0) < self.room.share

    def enter(self, owner: str) -> None:
        """Count a task that will be put here. Raise `OverloadedError` when there is no room."""
        with self._counting:
            mine = self._open.get(owner, 0)
            if self._total >= self.room.bound:
                raise OverloadedError(f"{self.room.bound} calls are open, the most allowed ({self._limit}); try again")
            if owner and mine >= self.room.share:
                raise OverloadedError(
                    f"`{owner}` has {mine} calls open, its full share of {self.room.bound} ({self._limit}); try again"
                )
            self._open[owner] = mine + 1
            self._total += 1

    def leave(self, owner: str) -> None:
        """Stop counting a task: one that was entered and will not be put here, or one that has run."""
        with self._counting:
            self._total -= 1
            left = self._open[owner] - 1
            if left:
                self._open[owner] = left
            else:
                del self._open[owner]

    def put(self, owner: str, work: Callable[[], None], afterwards: Callable[[], None] | None = None) -> None:
        """Queue a task that was entered, without waiting. Errors that escape from it are logged.

        Its thread does `afterwards` once the task has left: its owner can have another one by then.
        """
        task = owner, work, afterwards
        if self._has_turn(task):
            self._tasks.put(task)

    def shutdown(self) -> None:
        """Let the threads finish what was put here before, and wait until they end."""
        # First stop the thread that could be starting another worker now.
        self._checker.stop()
        for _ in self._workers:
            self._tasks.put(None)
        for worker in self._workers:
            worker.join()

    def _has_turn(self, task: _Task) -> bool:
        """Say whether a task can run now; otherwise it waits for its owner's other tasks."""
        owner = task[0]
        if not owner or self.room.turns == math.inf:
            return True
        with self._counting:
            turns = self._turns.setdefault(owner, _Turns())
            if turns.taken < self.room.turns:
                turns.taken += 1
                return True
            turns.waiting.append(task)
            return False

    def _pass_turn(self, owner: str) -> None:
        """Let the next task of an owner run."""
        if not owner or self.room.turns == math.inf:
            return
        with self._counting:
            turns = self._turns[owner]
            if turns.waiting:
                self._tasks.put(turns.waiting.popleft())
            elif turns.taken > 1:
                turns.taken -= 1
            else:
                del self._turns[owner]

    def _start(self, index: int) -> None:
        """Start a thread in a new position, or in that of a thread that has ended."""
        worker = threading.Thread(target=self._work, args=(index,), name=f"pdp-{self._name}_{index}", daemon=True)
        if index == len(self._workers):
            self._since.append(math.inf)
            self._workers.append(worker)
        else:
            self._stuck.discard(index)
            self._workers[index] = worker
        start_on_large_stack(worker)

    def _check(self) -> None:
        self._replace_stuck(time.monotonic())

    def _replace_stuck(self, now: float) -> None:
        late = {index for index, since in enumerate(self._since) if now - since > self.room.patience} - self._stuck
        for index in late:
            ended = next((one for one in self._stuck if not self._workers[one].is_alive()), len(self._workers))
            if ended < MOST_THREADS:
                self._stuck.add(index)
                self._start(ended)

    def _work(self, index: int) -> None:
        while index not in self._stuck and (task := self._tasks.get()) is not None:
            owner, work, afterwards = task
            self._since[index] = time.monotonic()
            try:
                _do(partial(self._run, work))
            finally:
                self.leave(owner)
                self._pass_turn(owner)
                self._since[index] = math.inf
            if afterwards is not None:
                _do(afterwards)
            # What a call has held must not stay alive until the next one arrives.
            del task, work, afterwards


def _run(work: Callable[[], None]) -> None:
    work()


def _do(work: Callable[[], None]) -> None:
    try:
        work()
    except Exception:  # noqa: BLE001 - a thread that ends here would be missed by all later calls
        _LOG.exception("a handler failed outside of its wrapper")


class _Turns:
    """How many tasks of an owner have a turn, and the tasks that wait for one."""

    __slots__ = ("taken", "waiting")

    def __init__(self) -> None:
        self.taken = 0
        self.waiting: deque[_Task] = deque()
