"""Carry decisions and events to a receiver: a bounded queue, and one thread that encodes and sends.

An observer adds an item and goes on. When the queue is full, new items are dropped and counted: a slow or absent
receiver costs only its own view.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import Generic, NamedTuple, Protocol, TypeVar

from pdp.telemetry.wire import Source, frame

_LOG = logging.getLogger("pdp.telemetry")

# Encoding holds the interpreter's lock; after this many items, the threads that answer calls get it for a moment.
_STRETCH = 256
_CLOSING_SECONDS = 1.0

QUEUE_FULL = "queue_full"
SHUT_DOWN = "already_shutdown"

REJECTED = "rejected"

T = TypeVar("T")


class Sent(NamedTuple):
    """The result of sending: the problem in one word, or empty, and how many items the receiver rejected."""

    problem: str = ""
    rejected: int = 0


class Sender(Protocol):
    """Sends export requests to a receiver."""

    def send(self, request: bytes) -> Sent:
        """Send a request and return the result. Never raises."""
        ...

    def hurry(self) -> None:
        """Try each request only once from now on."""
        ...

    def close(self) -> None:
        """Abort the request that is being sent, and send nothing more."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """How many items can wait, how many are sent together, and how many seconds an item waits at most."""

    capacity: int = 16384
    batch: int = 512
    delay: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """The work of a pipeline so far: counts by problem; an empty text is success."""

    queued: int
    capacity: int
    processed: Mapping[str, int]
    exported: Mapping[str, int]


class Pipeline(Generic[T]):
    """A queue of one kind of item and its thread. `what` names the items in the process's log: `spans`."""

    def __init__(
        self,
        what: str,
        encode: Callable[[T], bytes],
        source: Source,
        sender: Sender,
        settings: QueueSettings,
    ) -> None:
        self._encode = encode
        self._source = source
        self._sender = sender
        self._capacity = settings.capacity
        self._batch = min(settings.batch, settings.capacity)
        self._delay = settings.delay
        self._queue: deque[T] = deque()
        self._wake = Event()
        self._stopping = self._given_up = False
        self._lock = Lock()
        self._processed: dict[str, int] = {}
        self._exported: dict[str, int] = {}
        self._trouble = Trouble(what)
        self._thread = Thread(target=self._run, name=f"pdp-telemetry-{what}", daemon=True)
        self._thread.start()

    def put(self, one: T) -> None:
        """Add one item. Never waits and never raises."""
        queue = self._queue
        waiting = len(queue)
        if waiting >= self._capacity or self._stopping:
            self._count(self._processed, SHUT_DOWN if self._stopping else QUEUE_FULL, 1)
            return
        queue.append(one)
        if waiting + 1 >= self._batch and not self._wake.is_set():
            self._wake.set()

    def flow(self) -> Flow:
        """Return the counts so far."""
        with self._lock:
            processed, exported = dict(self._processed), dict(self._exported)
        return Flow(queued=len(self._queue), capacity=self._capacity, processed=processed, exported=exported)

    def shut_down(self, timeout: float) -> bool:
        """Take no more items and send those that wait.

        Return False when `timeout` seconds were not enough.
        """
        self._stopping = True
        self._sender.hurry()
        self._wake.set()
        self._thread.join(timeout)
        in_time = not self._thread.is_alive()
        self._sender.close()
        self._thread.join(_CLOSING_SECONDS)
        self._count(self._processed, SHUT_DOWN, len(self._queue))
        self._queue.clear()
        return in_time

    def _run(self) -> None:
        while not self._stopping:
            woken = self._wake.wait(self._delay)
            self._wake.clear()
            # A full batch is sent at once; the remaining items after the delay.
            self._send(least=self._batch if woken else 1)
        self._send(least=1)

    def _send(self, least: int) -> None:
        while len(self._queue) >= least and not self._given_up:
            count = min(len(self._queue), self._batch)
            problem, rejected = self._sender.send(self._request(count))
            self._count(self._processed, "", count)
            self._count(self._exported, problem, count - rejected)
            self._count(self._exported, REJECTED, rejected)
            # A shutdown does not wait for a receiver that takes nothing.
            self._given_up = self._stopping and bool(problem)
            self._trouble.say(problem or (REJECTED if rejected else ""))

    def _request(self, count: int) -> bytes:
        parts = []
        for place in range(1, count + 1):
            encoded = self._encode(self._queue.popleft())
            if encoded:
                parts.append(frame(encoded))
            if place % _STRETCH == 0:
                time.sleep(0)
        return self._source.request(parts)

    def _count(self, counts: dict[str, int], key: str, number: int) -> None:
        if number:
            with self._lock:
                counts[key] = counts.get(key, 0) + number


class Trouble:
    """Logs that items cannot be sent, and that they are sent again.

    It logs once when the trouble begins and once when it ends: a receiver can be away for days.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._problem = ""

    def say(self, problem: str) -> None:
        """Record the result of sending; an empty text is success."""
        if problem and not self._problem:
            _LOG.warning("%s are not sent: %s", self._what, problem)
        elif self._problem and not problem:
            _LOG.warning("%s are sent again", self._what)
        self._problem = problem
