"""Who goes first: what waits for a turn, how long, and in which order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue

from pdp.foundation.rightofway import RightOfWay, give_way
from pdp.testing.waiting import wait_until
from tests.machinery.servers.running import PATIENCE


@contextmanager
def running(way: RightOfWay, work: Callable[[], None]) -> Iterator[None]:
    """Run work that gives way on a thread, which has ended after the block."""
    thread = threading.Thread(target=way.run, args=(work,))
    thread.start()
    yield
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_nothing_waits_while_there_is_no_turn() -> None:
    """Also not for other work, nor after a turn."""
    way, done = RightOfWay(PATIENCE), list[str]()
    way.run(lambda: way.run(lambda: done.append("before")))
    way.take()
    way.release()
    way.run(lambda: done.append("after"))

    assert done == ["before", "after"]


def test_work_waits_for_the_end_of_a_turn() -> None:
    """One that is gone on with is the same turn."""
    way, done = RightOfWay(PATIENCE), SimpleQueue[bool]()
    way.take()
    way.take()
    with running(way, lambda: done.put(way._taken)):
        wait_until(lambda: len(way._waiting) == 1)
        early = done.empty()
        way.release()

    assert early
    assert not done.get_nowait()


def test_one_begins_after_each_turn_and_after_each_work() -> None:
    """Together they would each have a part of the interpreter, and the next turn would wait for all."""
    way, begun, go_on = RightOfWay(PATIENCE), SimpleQueue[str](), threading.Event()

    def work() -> None:
        begun.put(threading.current_thread().name)
        go_on.wait(PATIENCE)

    way.take()
    with running(way, work), running(way, work), running(way, work):
        wait_until(lambda: len(way._waiting) == 3)
        way.release()
        begun.get(timeout=PATIENCE)
        after_one = len(way._waiting)
        way.take()
        way.release()
        begun.get(timeout=PATIENCE)
        after_two = len(way._waiting)
        go_on.set()
        begun.get(timeout=PATIENCE)

    assert (after_one, after_two) == (2, 1)


def test_nothing_waits_for_long() -> None:
    """A thread that always has a turn keeps nothing from running, and what has run waits no more."""
    way, done = RightOfWay(0.001), list[str]()
    way.take()
    way.run(lambda: done.append("done"))

    assert done == ["done"]
    assert not way._waiting


def test_work_gives_way_in_between() -> None:
    """What computes for long lets turns go first, where it can; elsewhere there is nothing to wait for."""
    way, events = RightOfWay(PATIENCE), SimpleQueue[str]()
    half = threading.Event()

    def work() -> None:
        half.wait(PATIENCE)
        give_way()
        events.put("the rest")

    give_way()
    with running(way, work):
        way.take()
        half.set()
        wait_until(lambda: len(way._waiting) == 1)
        events.put("the turn is over")
        way.release()

    assert [events.get_nowait(), events.get_nowait()] == ["the turn is over", "the rest"]
