"""The two loops, on a clock that the test moves: what is waited for counts in the open one."""

from __future__ import annotations

import asyncio

import pytest

from pdp.bench.load import Answered, closed_loop, open_loop


class Clock:
    """A clock that advances when the load waits, or when the server makes it."""

    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> float:
        """Return the time in seconds."""
        return self.at

    async def pause(self, seconds: float) -> None:
        """Let others have their turn while the time goes on."""
        end = self.at + seconds
        await asyncio.sleep(0)
        self.at = max(self.at, end)


class Stalling:
    """A server that takes a second for its first answer and none for the others, and everybody waits."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._answers = 0

    async def ask(self) -> Answered:
        """Answer."""
        self._clock.at += 0.0 if self._answers else 1.0
        self._answers += 1
        return Answered(decisions=2, remembered=1, fresh=1)


def test_open_loop_counts_the_time_that_calls_wait() -> None:
    """One stall of a second makes every call wait that was due in it, for as long as was left of it."""
    clock = Clock()

    sample = asyncio.run(open_loop(Stalling(clock).ask, rate=10, seconds=1, now=clock.now, pause=clock.pause))

    assert [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1] == pytest.approx(sample.took)


def test_open_loop_says_how_late_calls_were_begun() -> None:
    """The delay of the load itself is a figure of its own, and is part of the time."""
    clock = Clock()

    sample = asyncio.run(open_loop(Stalling(clock).ask, rate=10, seconds=0.3, now=clock.now, pause=clock.pause))

    assert [0.0, 0.9, 0.8] == pytest.approx(sample.late)


def test_open_loop_asks_as_often_as_was_said() -> None:
    """The schedule decides how many calls there are, not the server."""
    clock = Clock()

    sample = asyncio.run(open_loop(Stalling(clock).ask, rate=250, seconds=2, now=clock.now, pause=clock.pause))

    assert (500, 1000, 500, 500) == (len(sample.took), sample.decisions, sample.remembered, sample.fresh)


def test_closed_loop_asks_a_stalled_server_no_more() -> None:
    """The same stall is one slow call here: the others were never begun. Hence the open loop."""
    clock = Clock()

    sample = asyncio.run(closed_loop(Stalling(clock).ask, concurrency=1, seconds=1, now=clock.now))

    assert [1.0] == sample.took


def test_closed_loop_keeps_so_many_under_way() -> None:
    """Never more calls are under way than were asked for, and that many are."""
    clock, under_way, seen = Clock(), 0, []

    async def ask() -> Answered:
        nonlocal under_way
        under_way += 1
        seen.append(under_way)
        await clock.pause(0.01)
        under_way -= 1
        return Answered(decisions=1, remembered=0, fresh=0)

    sample = asyncio.run(closed_loop(ask, concurrency=4, seconds=1, now=clock.now))

    assert 4 == max(seen)
    assert len(seen) == sample.decisions
