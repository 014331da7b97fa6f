"""The load: a closed loop measures how much a server can do, an open one how long it takes.

In a closed loop the next call begins when the answer has arrived, so a slow server is asked less.
In an open loop calls begin on a schedule, independent of earlier ones, and the time that a call waits for its turn
counts: latency is measured from when a call should have begun.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

# A sleeping event loop wakes up to a millisecond late; it is kept awake for this long before a call is due.
AWAKE_SECONDS = 0.0015


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The result of one exchange: how many decisions, how many of them remembered, and how many new."""

    decisions: int
    remembered: int
    fresh: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The measurements of a loop. Times are seconds; `late` is the delay of each call of an open loop.

    Of `decisions`, `checked` were decoded, and `remembered` and `fresh` count only those. `again` is how often a call
    was asked again because the server had refused it unread; gRPC's client does not say how often it did so.
    """

    took: Sequence[float]
    decisions: int
    checked: int
    remembered: int
    fresh: int
    elapsed: float
    late: Sequence[float] = ()
    again: int = 0


# Asks, and raises `WrongAnswerError` when the answer is wrong.
Ask = Callable[[], Awaitable[Answered]]
Now = Callable[[], float]
Pause = Callable[[float], Awaitable[None]]


class _Tally:
    def __init__(self) -> None:
        self.took: list[float] = []
        self.late: list[float] = []
        self.decisions = 0
        self.remembered = 0
        self.fresh = 0

    def add(self, answered: Answered, took: float) -> None:
        self.took.append(took)
        self.decisions += answered.decisions
        self.remembered += answered.remembered
        self.fresh += answered.fresh

    def sample(self, elapsed: float) -> Sample:
        return Sample(
            took=self.took,
            decisions=self.decisions,
            checked=self.decisions,
            remembered=self.remembered,
            fresh=self.fresh,
            elapsed=elapsed,
            late=self.late,
        )


async def closed_loop(ask: Ask, *, concurrency: int, seconds: float, now: Now = perf_counter) -> Sample:
    """Keep `concurrency` calls in progress for `seconds`.

    Calls in progress at the end are finished and count.
    """
    tally = _Tally()

    async def work(end: float) -> None:
        # At least one call each, even if this process had to wait for long.
        while True:
            begun = now()
            answered = await ask()
            over = now()
            tally.add(answered, over - begun)
            if over >= end:
                return

    with undisturbed():
        started = now()
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work(started + seconds))
        return tally.sample(now() - started)


async def open_loop(
    ask: Ask, *, rate: float, seconds: float, now: Now = perf_counter, pause: Pause | None = None
) -> Sample:
    """Begin `rate` calls a second, evenly, independent of earlier ones.

    A call's time runs from when it was due, not from when the load began it.
    """
    tally, wait = _Tally(), pause or _pause

    async def work(due: float) -> None:
        tally.late.append(now() - due)
        answered = await ask()
        tally.add(answered, now() - due)

    with undisturbed():
        started = now()
        async with asyncio.TaskGroup() as group:
            for number in range(round(rate * seconds)):
                due = started + number / rate
                while (left := due - now()) > 0:
                    await wait(left)
                group.create_task(work(due))
        return tally.sample(now() - started)


def median_late(sample: Sample) -> float:
    """Return the median delay of an open loop's calls in ms; 0 for a closed loop."""
    return statistics.median(sample.late) * 1000 if sample.late else 0.0


async def _pause(seconds: float) -> None:
    await asyncio.sleep(seconds - AWAKE_SECONDS if seconds > AWAKE_SECONDS else 0)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep the garbage collector of this process out of the measurement."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
