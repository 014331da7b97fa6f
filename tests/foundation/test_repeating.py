"""Work that is done again and again."""

from __future__ import annotations

import threading
from queue import SimpleQueue

import pytest

from pdp.foundation.repeating import Repeater

PATIENCE = 30.0


def test_it_is_done_at_once_and_again() -> None:
    """On a thread of its own, which ends with the block."""
    turns: SimpleQueue[threading.Thread] = SimpleQueue()

    with Repeater("test", lambda: turns.put(threading.current_thread()), every=0.001):
        found = {turns.get(timeout=PATIENCE) for _ in range(3)}

    assert [(one.name, one.is_alive()) for one in found] == [("pdp-test", False)]


@pytest.mark.parametrize(("at_once", "turns"), [(True, 1), (False, 0)])
def test_the_first_turn_waits_where_that_is_wanted(at_once: bool, turns: int) -> None:  # noqa: FBT001 - a parameter
    """Then one that is stopped before has done nothing."""
    done, began = [], threading.Event()

    def work() -> None:
        done.append(1)
        began.set()

    with Repeater("test", work, every=3600.0, at_once=at_once):
        assert began.wait(PATIENCE if at_once else 0.05) == at_once

    assert len(done) == turns


def test_it_is_done_when_it_is_wanted() -> None:
    """Long before its time."""
    turns: SimpleQueue[None] = SimpleQueue()

    with Repeater("test", lambda: turns.put(None), every=3600.0, at_once=False) as repeater:
        repeater.wake()
        turns.get(timeout=PATIENCE)


def test_a_turn_that_waits_leaves_when_it_is_to_stop() -> None:
    """And `stop` waits for the turn."""
    left: list[bool] = []
    began = threading.Event()

    def work() -> None:
        began.set()
        left.append(repeater.pause(PATIENCE))

    repeater = Repeater("test", work, every=0.001)
    repeater.start()
    assert began.wait(PATIENCE)
    repeater.stop()

    assert left == [True]


def test_one_that_never_began_stops() -> None:
    """Nothing waits for it."""
    Repeater("test", lambda: None, every=1.0).stop()
