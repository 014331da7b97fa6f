"""Writers of one process take turns: in order, boundedly many, and none for ever."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from pdp.errors import OverloadedError
from pdp.sessions.turns import Turns
from pdp.testing.waiting import wait_until


def test_turns_are_taken_in_the_order_in_which_they_were_asked_for() -> None:
    """Whoever came first is first, however often others come back."""
    turns, order = Turns(most=50, seconds=60.0), list[int]()

    def write(number: int) -> None:
        with turns.turn():
            order.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(50)]
    with turns.turn():
        for count, thread in enumerate(threads, start=1):
            thread.start()
            wait_until(lambda count=count: len(turns._waiting) == count)  # type: ignore[misc]  # bound in the loop
    for thread in threads:
        thread.join()

    assert list(range(50)) == order


def test_nobody_waits_for_ever() -> None:
    """After its time a writer is told that nothing was done, and is out of the way of those who wait on."""
    turns = Turns(most=2, seconds=0.01)
    with turns.turn(), pytest.raises(OverloadedError, match="nothing was written"):
        turns.turn().__enter__()

    with turns.turn():
        assert not turns._waiting


def test_only_so_many_wait() -> None:
    """One more is refused at once."""
    turns = Turns(most=1, seconds=60.0)
    waits = threading.Thread(target=lambda: turns.turn().__enter__())
    with ExitStack() as held:
        held.enter_context(turns.turn())
        waits.start()
        wait_until(lambda: bool(turns._waiting))

        with pytest.raises(OverloadedError):
            turns.turn().__enter__()
    waits.join()


def test_who_presses_is_seen_while_it_waits() -> None:
    """Until it has its turn, or is refused."""
    turns = Turns(most=1, seconds=60.0)

    def press() -> None:
        with turns.turn(presses=True):
            seen.append(turns.pressed)

    seen, waits = list[bool](), threading.Thread(target=press)
    with turns.turn(presses=True):
        seen.append(turns.pressed)
        waits.start()
        wait_until(lambda: turns.pressed)
        with pytest.raises(OverloadedError):
            turns.turn(presses=True).__enter__()
    waits.join()

    assert [False, False, False] == [*seen, turns.pressed]


def test_who_presses_is_next() -> None:
    """Before all others that wait, and after those that press for longer."""
    turns, order = Turns(most=9, seconds=60.0), list[int]()

    def write(number: int) -> None:
        with turns.turn(presses=number >= 2):
            order.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    with turns.turn():
        for count, thread in enumerate(threads, start=1):
            thread.start()
            wait_until(lambda count=count: len(turns._waiting) + len(turns._pressing) == count)  # type: ignore[misc]  # bound in the loop
    for thread in threads:
        thread.join()

    assert [2, 3, 0, 1] == order
