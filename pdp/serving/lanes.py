"""Threads for handlers: they exist from the start, have stacks for the engine, and take on only so much."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue

from pdp.errors import OverloadedError
from pdp.foundation.repeating import Repeater
from pdp.foundation.threads import start_on_large_stack

_LOG = logging.getLogger("pdp.server")

# How many threads a pool has at most when others take the place of those that are stuck.
MOST_THREADS = 64


# Something to do, and for whom: the id of a caller, or empty.
_Task = tuple[str, Callable[[], None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How much a pool takes on: `threads`, and of tasks, running and waiting together, `bound`.

    Of these one owner has at most `share`, of which at most `turns` run at one time; what has no owner has no share.
    A thread that has been at one task for longer than `patience` seconds, say because the store is locked, is stuck:
    another one takes its place, and it ends with its task.
    """

    threads: int
    bound: int
    share: int
    turns: float = math.inf
    patience: float = math.inf


class BoundedPool:
    """The threads of a lane and the tasks that wait for them. Safe to use from many threads.

    It does not refuse by itself: `enter` a task first, and once it has been `put` it leaves when it has run. It has a
    queue and threads of its own: futures and their locks cost a quarter of a call. `limit` says in a refusal what
    bounds it.
    """

    def __init__(self, name: str, room: Room, *, limit: str = "") -> None:
        self.room = room
        self._name, self._limit = name, limit or f"lane `{name}`"
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        # Guards the three counts.
        self._counting = threading.Lock()
        self._open: dict[str, int] = {}
        self._total = 0
        self._turns: dict[str, _Turns] = {}
        # INVARIANT: each place has one writer: its thread says since when it is at its task, infinity when at none.
        self._since: list[float] = []
        self._stuck: set[int] = set()
        self._workers: list[threading.Thread] = []
        for place in range(room.threads):
            self._start(place)
        self._looking = Repeater(f"{name}-look", self._look, every=room.patience, at_once=False)
        if room.patience < math.inf:
            self._looking.start()

    def enter(self, owner: str) -> None:
        """Count a task that will be put here. Raise `OverloadedError` when there is no room for it."""
        with self._counting:
            mine = self._open.get(owner, 0)
            if self._total >= self.room.bound:
                raise OverloadedError(f"{self.room.bound} calls are open, and that is all ({self._limit}); try again")
            if owner and mine >= self.room.share:
                raise OverloadedError(
                    f"`{owner}` has {mine} calls open, and that is its share of {self.room.bound} ({self._limit}); "
                    "try again"
                )
            self._open[owner] = mine + 1
            self._total += 1

    def leave(self, owner: str) -> None:
        """Count a task no longer that was entered and will not be put here."""
        with self._counting:
            self._total -= 1
            left = self._open[owner] - 1
            if left:
                self._open[owner] = left
            else:
                del self._open[owner]

    def put(self, owner: str, work: Callable[[], None]) -> None:
        """Have a task run that was entered; never waits. What escapes from it is logged."""
        task = owner, work
        if self._has_turn(task):
            self._tasks.put(task)

    def shutdown(self) -> None:
        """End the threads when they have done what was put here before, and wait for them."""
        # First whoever may be starting another worker just now.
        self._looking.stop()
        for _ in self._workers:
            self._tasks.put(None)
        for worker in self._workers:
            worker.join()

    def _has_turn(self, task: _Task) -> bool:
        """Say whether a task may run now; otherwise it waits for one of the same owner."""
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

    def _start(self, place: int) -> None:
        """Start a thread in a new place, or in one whose thread has ended."""
        worker = threading.Thread(target=self._work, args=(place,), name=f"pdp-{self._name}_{place}", daemon=True)
        if place == len(self._workers):
            self._since.append(math.inf)
            self._workers.append(worker)
        else:
            self._stuck.discard(place)
            self._workers[place] = worker
        start_on_large_stack(worker)

    def _look(self) -> None:
        self._replace_stuck(time.monotonic())

    def _replace_stuck(self, now: float) -> None:
        late = {place for place, since in enumerate(self._since) if now - since > self.room.patience} - self._stuck
        for place in late:
            ended = next((one for one in self._stuck if not self._workers[one].is_alive()), len(self._workers))
            if ended < MOST_THREADS:
                self._stuck.add(place)
                self._start(ended)

    def _work(self, place: int) -> None:
        while place not in self._stuck and (task := self._tasks.get()) is not None:
            owner, work = task
            self._since[place] = time.monotonic()
            try:
                work()
            except Exception:  # noqa: BLE001 - a thread that ends here would be missed by all later calls
                _LOG.exception("a handler failed outside of its wrapper")
            finally:
                self.leave(owner)
                self._pass_turn(owner)
                self._since[place] = math.inf
            # What a call has held must not live until the next one comes.
            del task, work


class _Turns:
    """How many tasks of an owner are running or about to, and those that wait for their turn."""

    __slots__ = ("taken", "waiting")

    def __init__(self) -> None:
        self.taken = 0
        self.waiting: deque[_Task] = deque()
