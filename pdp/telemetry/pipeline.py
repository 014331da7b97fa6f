"""Carry decisions and events to a receiver: a bounded queue, and one thread that encodes and sends.

An observer adds an item and goes on. When the queue is full, new items are dropped and counted: a slow or absent
receiver costs only its own view. A thread with time to spare can encode ahead, so that the sending thread, which shares
the interpreter with those that answer calls, does not keep it for a whole batch.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import Generic, NamedTuple, Protocol, TypeVar

from pdp.telemetry.wire import Source, frame

_LOG = logging.getLogger("pdp.telemetry")

# Encoding holds the interpreter's lock; after this many items, the threads that answer calls get it for a moment.
_STRETCH = 256
# How many items `encode_ahead` waits for, and how long it goes on: one by one, each takes twice the time, since what
# encodes it has left the processor's caches.
_AHEAD_ITEMS, _AHEAD_SECONDS = 8, 0.0005
_CLOSING_SECONDS = 1.0

QUEUE_FULL = "queue_full"
SHUT_DOWN = "already_shutdown"
UNENCODED = "encoding_failed"

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
        *,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._what = what
        self._encode = encode
        self._source = source
        self._sender = sender
        self._capacity = settings.capacity
        self._batch = min(settings.batch, settings.capacity)
        self._together = min(_AHEAD_ITEMS, self._batch)
        self._delay = settings.delay
        self._now = now
        self._queue: deque[T] = deque()
        # What was encoded ahead: older than all that is in the queue, and at most one batch.
        self._encoded: deque[bytes] = deque()
        # Held while items are taken from either, and while the encoder, which is for one thread at a time, works.
        self._encoding = Lock()
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
        if len(queue) + len(self._encoded) >= self._capacity or self._stopping:
            self._count(self._processed, SHUT_DOWN if self._stopping else QUEUE_FULL, 1)
            return
        queue.append(one)
        # What was encoded ahead is not counted: whoever does that wakes the thread when it has.
        if len(queue) >= self._batch and not self._wake.is_set():
            self._wake.set()

    def encode_ahead(self) -> None:
        """Encode what waits, up to a batch, for half a millisecond at most. Never waits and never raises.

        A few items are left for later, or for the thread.
        """
        enough = len(self._queue) >= self._together and not self._stopping
        if enough and self._encoding.acquire(blocking=False):
            try:
                end = self._now() + _AHEAD_SECONDS
                while self._queue and len(self._encoded) < self._batch and self._now() < end:
                    if encoded := self._encode_next():
                        self._encoded.append(encoded)
            finally:
                self._encoding.release()
        # Also a few can fill the batch, and with it the queue.
        if len(self._encoded) + len(self._queue) >= self._batch and not self._wake.is_set():
            self._wake.set()

    def flow(self) -> Flow:
        """Return the counts so far."""
        with self._lock:
            processed, exported = dict(self._processed), dict(self._exported)
        queued = len(self._queue) + len(self._encoded)
        return Flow(queued=queued, capacity=self._capacity, processed=processed, exported=exported)

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
        self._count(self._processed, SHUT_DOWN, len(self._queue) + len(self._encoded))
        self._queue.clear()
        self._encoded.clear()
        return in_time

    def _run(self) -> None:
        while not self._stopping:
            woken = self._wake.wait(self._delay)
            self._wake.clear()
            # A full batch is sent at once; the remaining items after the delay.
            self._send(least=self._batch if woken else 1)
        self._send(least=1)

    def _send(self, least: int) -> None:
        while not self._given_up and (taken := self._take(least)):
            parts = [part for part in taken if part]
            if parts:
                self._send_parts(parts)

    def _send_parts(self, parts: Sequence[bytes]) -> None:
        problem, rejected = self._sender.send(self._source.request(parts))
        # A receiver can say any number; a sum beyond 64 bits could not be reported.
        rejected = min(rejected, len(parts))
        # A shutdown does not wait for a receiver that takes nothing.
        self._given_up = self._stopping and bool(problem)
        self._count(self._processed, "", len(parts))
        self._count(self._exported, problem, len(parts) - rejected)
        self._count(self._exported, REJECTED, rejected)
        self._trouble.say(problem or (REJECTED if rejected else ""))

    def _take(self, least: int) -> list[bytes]:
        """Return the oldest items, encoded: a batch or all that wait; none when fewer than `least` do."""
        taken: list[bytes] = []
        while len(taken) < self._batch:
            with self._encoding:
                waiting = len(self._encoded) + len(self._queue)
                if waiting < least and not taken:
                    return []
                wanted = min(waiting, self._batch - len(taken), _STRETCH)
                taken += [self._encoded.popleft() if self._encoded else self._encode_next() for _ in range(wanted)]
            if not wanted:
                break
            time.sleep(0)
        return taken

    def _encode_next(self) -> bytes:
        """Return the oldest item of the queue, encoded and framed; nothing, and count it, when it cannot be encoded."""
        try:
            encoded = self._encode(self._queue.popleft())
        except Exception:  # noqa: BLE001 - an error of one item must not end the thread, or reach one that answers calls
            if UNENCODED not in self._processed:
                _LOG.exception("some %s cannot be encoded, and are dropped", self._what)
            self._count(self._processed, UNENCODED, 1)
            return b""
        return frame(encoded) if encoded else b""

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
