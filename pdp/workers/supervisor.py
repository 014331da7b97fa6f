"""Keep the workers running: start them, replace those that end, and stop them together.

One thread and no locks: every event is a readable descriptor or a point in time.
"""

from __future__ import annotations

import logging
import math
import selectors
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from pdp.errors import ConfigurationError, PDPError
from pdp.workers.exchange import Exchange
from pdp.workers.port import SharedPort
from pdp.workers.process import WorkerProcess
from pdp.workers.words import Alive, Report, Signal, Word

_LOG = logging.getLogger("pdp")

_CHECK_SECONDS = 1.0
# An idle worker uses less core time than this in some seconds; one that is short of core time uses more.
_NOTHING_SECONDS = 0.02


class WorkersFailedError(PDPError):
    """A worker repeatedly ends soon after its start: correct the reported problem, and restart the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """When ended workers are replaced, and when workers are killed; times in seconds.

    After `steady` of serving, a worker is replaced at once, and so after its first early end. After the next early end
    there is a pause of `first`, which doubles each time up to `longest`; after `deaths` early ends in a row the server
    stops. A stopping worker has `closing` beyond the grace of its calls, to send telemetry and sync the record. A
    worker that is silent, has used no core time for `silent` and waits for neither a core nor a disk is stopped or
    hangs, and is killed. Any other silent one may only get too little of the machine, and has `busy`.
    """

    steady: float = 10.0
    first: float = 0.5
    longest: float = 8.0
    deaths: int = 6
    closing: float = 15.0
    silent: float = 5.0
    busy: float = 30.0

    def pause(self, deaths: int) -> float:
        """Return the pause after this many early ends in a row."""
        return min(self.first * 2 ** (deaths - 2), self.longest) if deaths > 1 else 0.0


@dataclass(slots=True, kw_only=True)
class _Slot:
    """The slot of one worker: its process, since when it serves, and its early ends."""

    number: int
    name: str
    worker: WorkerProcess | None = None
    serves_since: float | None = None
    problem: str = ""
    deaths: int = 0
    next_at: float = 0.0
    # When its last word came.
    heard_at: float = 0.0
    # Since when it has used no core time to speak of, and how much it had used by then.
    idle_since: float = 0.0
    used: float = 0.0


class Supervisor:
    """Runs `count` workers on a shared port until it is stopped. For one thread.

    `spawn` starts the worker of a number, counted from 1. With `control` there is one more process, which serves no
    calls and is supervised like the others. `until`, in the methods, is a descriptor, for example of a pipe of signals:
    the method returns when it becomes readable.
    """

    def __init__(
        self,
        spawn: Callable[[int], WorkerProcess],
        *,
        count: int,
        port: SharedPort,
        control: bool = False,
        patience: Patience | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spawn = spawn
        self._port = port
        self._patience = patience or Patience()
        self._monotonic = monotonic
        self._slots = [_Slot(number=number, name=f"worker {number}") for number in range(1, count + 1)]
        if control:
            self._slots.append(_Slot(number=count + 1, name="the control process"))
        self._exchange = Exchange()
        self._selector = selectors.DefaultSelector()
        self._checked_at = monotonic()

    @property
    def address(self) -> str:
        """Return the address to connect to, with the actual port."""
        return self._port.address

    def start(self, *, until: int) -> bool:
        """Start all workers. Return True when they serve, False when `until` became readable.

        The first worker begins alone, so that work to be done once, on the store and the bundle, is done before the
        others begin. Their processes already exist, and wait. Raise `ConfigurationError` with the problem when one of
        them cannot start.
        """
        try:
            with self._watched(until):
                for slot in self._slots:
                    self._fill(slot)
                return self._start(self._slots[:1], until) and self._start(self._slots[1:], until)
        except BaseException:
            self.stop(0.0)
            raise

    def tend(self, *, until: int) -> None:
        """Replace workers that end. Raise `WorkersFailedError` when one ends repeatedly."""
        with self._watched(until):
            over = False
            while not over:
                ended, over = self._wait(min(self._until_next(), _CHECK_SECONDS), until)
                for slot in ended:
                    self._mourn(slot)
                now = self._monotonic()
                for slot in self._slots:
                    if slot.worker is None and slot.next_at <= now and not over:
                        self._fill(slot)
                        self._begin(slot)
                self._end_silent(now)

    def reload_callers(self) -> None:
        """Make every worker read the file of callers again."""
        self._signal(signal.SIGHUP)

    def stop(self, grace: float) -> None:
        """Make every worker take no new calls, finish the others within `grace` seconds, and end."""
        self._signal(signal.SIGTERM)
        end = self._monotonic() + grace + self._patience.closing
        while self._selector.get_map() and (left := end - self._monotonic()) > 0:
            self._wait(left)
        for slot in self._slots:
            if slot.worker is not None:
                _LOG.error("%s does not end in time: it is killed", slot.name)
                slot.worker.kill()
                self._bury(slot, slot.worker)
        self._selector.close()
        self._port.close()

    def _start(self, slots: list[_Slot], until: int) -> bool:
        for slot in slots:
            self._begin(slot)
        over = False
        while not over and any(slot.serves_since is None for slot in slots):
            ended, over = self._wait(None, until)
            for slot in ended:
                raise ConfigurationError(slot.problem)
        return not over

    def _fill(self, slot: _Slot) -> None:
        slot.worker, slot.problem = self._spawn(slot.number), ""
        self._selector.register(slot.worker, selectors.EVENT_READ, slot)

    def _begin(self, slot: _Slot) -> None:
        worker = cast("WorkerProcess", slot.worker)
        worker.begin()
        self._exchange.join(worker)

    def _wait(self, seconds: float | None, until: int | None = None) -> tuple[list[_Slot], bool]:
        """Wait for the next event. Return the slots whose workers ended, and whether `until` is readable."""
        happened = [key for key, _ in self._selector.select(seconds)]
        heard = [(key.data, cast("WorkerProcess", key.fileobj)) for key in happened if key.fd != until]
        ended = [slot for slot, worker in heard if self._hear(slot, worker)]
        return ended, any(key.fd == until for key in happened)

    def _until_next(self) -> float:
        starts = [slot.next_at for slot in self._slots if slot.worker is None]
        return max(0.0, min(starts, default=math.inf) - self._monotonic())

    def _end_silent(self, now: float) -> None:
        """Kill serving workers that have been silent for too long. Their ends are noticed like any other."""
        # Words that came while this process was stopped or got no core time have not been read yet.
        late, self._checked_at = now - self._checked_at > _CHECK_SECONDS + self._patience.silent / 2, now
        for slot in self._slots:
            if slot.worker is None or slot.serves_since is None:
                continue
            if late:
                self._heard(slot, slot.worker)
            elif self._hangs(slot, slot.worker, now):
                _LOG.error("%s has been silent for %d s: it is killed", slot.name, now - slot.heard_at)
                slot.worker.kill()
                self._heard(slot, slot.worker)

    def _hangs(self, slot: _Slot, worker: WorkerProcess, now: float) -> bool:
        silent = now - slot.heard_at
        if silent < self._patience.silent / 2:
            return False
        # What it did between its last word and its stop is not taken for work that goes on. Where the system does not
        # report core time, the comparison is false.
        used = worker.cpu_seconds()
        if not used - slot.used < _NOTHING_SECONDS:
            slot.idle_since, slot.used = now, used
        if silent >= self._patience.busy:
            return True
        return now - slot.idle_since >= self._patience.silent and not worker.waits_for_the_machine()

    def _heard(self, slot: _Slot, worker: WorkerProcess) -> None:
        slot.heard_at = slot.idle_since = self._monotonic()
        slot.used = worker.cpu_seconds()

    def _hear(self, slot: _Slot, worker: WorkerProcess) -> bool:
        """Handle the words of a worker; say whether it has ended."""
        words = worker.hear()
        self._heard(slot, worker)
        for word in words or ():
            self._take(slot, worker, word)
        if words is None:
            self._bury(slot, worker)
        return words is None

    def _take(self, slot: _Slot, worker: WorkerProcess, word: Word) -> None:
        if isinstance(word, Signal | Alive):
            return  # `Signal` is never sent here, and the worker's life is already noted
        if not isinstance(word, Report):
            self._exchange.take(worker, word)
            return
        slot.problem = "\n".join(word.problems)
        if not slot.problem:
            slot.serves_since = self._monotonic()
            _LOG.info("%s (process %d) serves", slot.name, worker.pid)

    def _bury(self, slot: _Slot, worker: WorkerProcess) -> None:
        self._selector.unregister(worker)
        self._exchange.leave(worker)
        slot.worker, how = None, worker.bury()
        slot.problem = slot.problem or f"{slot.name} ended with {how}"

    def _mourn(self, slot: _Slot) -> None:
        """Decide when another worker starts in this slot."""
        now, since = self._monotonic(), slot.serves_since
        early = since is None or now - since < self._patience.steady
        slot.serves_since, slot.deaths = None, slot.deaths + 1 if early else 0
        if slot.deaths >= self._patience.deaths:
            raise WorkersFailedError(f"{slot.name} ended {slot.deaths} times soon after its start\n{slot.problem}")
        pause = self._patience.pause(slot.deaths)
        slot.next_at = now + pause
        _LOG.error("%s; a new one starts in %g s", slot.problem.replace("\n", "; "), pause)

    def _signal(self, number: signal.Signals) -> None:
        for slot in self._slots:
            if slot.worker is not None:
                slot.worker.tell(Signal(signal=number))

    @contextmanager
    def _watched(self, until: int) -> Iterator[None]:
        self._selector.register(until, selectors.EVENT_READ)
        try:
            yield
        finally:
            self._selector.unregister(until)
