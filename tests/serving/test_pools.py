"""Threads for handlers: how many, how deep, and how much they take on."""

from __future__ import annotations

import ctypes
import math
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TypeVar, cast

import pytest

from pdp.errors import OverloadedError
from pdp.foundation import threads as stacks
from pdp.serving.lanes import MOST_THREADS, BoundedPool, Room
from pdp.testing.waiting import wait_until
from tests.machinery.servers.running import PATIENCE

T = TypeVar("T")


def room(threads: int, bound: int, patience: float) -> Room:
    """Return the room of a pool in which one caller may have everything."""
    return Room(threads=threads, bound=bound, share=bound, patience=patience)


@pytest.fixture
def pool() -> Iterator[BoundedPool]:
    """Return a pool of two threads that holds three tasks."""
    made = BoundedPool("test", Room(threads=2, bound=3, share=3))
    yield made
    made.shutdown()


def result(pool: BoundedPool, work: Callable[[], T]) -> T:
    """Run some work in the pool and return what it returns."""
    results: SimpleQueue[T] = SimpleQueue()
    put(pool, lambda: results.put(work()))
    return results.get(timeout=PATIENCE)


def put(pool: BoundedPool, work: Callable[[], object], owner: str = "") -> None:
    """Have some work done in the pool."""
    pool.enter(owner)
    pool.put(owner, cast("Callable[[], None]", work))


def test_threads_exist_from_the_start(pool: BoundedPool) -> None:
    """No call waits for a thread to be made, and no thread is made later with another stack."""
    names = {thread.name for thread in threading.enumerate() if thread.name.startswith("pdp-test")}

    assert len(names) == 2
    assert result(pool, lambda: threading.current_thread().name) in names


def test_others_take_the_place_of_threads_that_are_stuck() -> None:
    """Tasks that hang keep no other waiting, however many they are, and their threads end with them."""
    pool, gate, ended = BoundedPool("stuck", room(2, 100, 0.01)), threading.Event(), SimpleQueue[int]()

    def hang(number: int) -> None:
        gate.wait()
        ended.put(number)

    for number in range(20):
        put(pool, partial(hang, number))
    answers = [result(pool, lambda: "answered") for _ in range(5)]
    gate.set()
    finished = {ended.get(timeout=PATIENCE) for _ in range(20)}
    # One that was taken for stuck just when it was done ends with its next task.
    wait_until(lambda: result(pool, lambda: "answered") == "answered" and len(alive("stuck")) == 2)
    pool.shutdown()

    assert answers == ["answered"] * 5
    assert finished == set(range(20))
    assert alive("stuck") == []


def test_the_end_waits_for_a_thread_that_is_being_started() -> None:
    """A pool that ends while another thread takes the place of a stuck one ends without an error."""
    pool, gate, ends = BoundedPool("begun", room(1, 10, 0.001)), threading.Event(), SimpleQueue[str]()

    def end() -> None:
        problem = ""
        try:
            pool.shutdown()
        except RuntimeError as error:
            problem = str(error)
        ends.put(problem)

    with stacks._STARTING:
        put(pool, gate.wait)
        wait_until(lambda: len(pool._workers) == 2)
        threading.Thread(target=end).start()
        gate.set()
        wait_until(lambda: not pool._workers[0].is_alive())
        # Nothing else tells that the end has come to the one that is not started yet.
        with suppress(Empty):
            ends.put(ends.get(timeout=0.2))

    assert ends.get(timeout=PATIENCE) == ""


def test_no_more_threads_than_a_bound() -> None:
    """Beyond the bound those that come wait, until one that is stuck is done."""
    pool, gate = BoundedPool("crowd", room(2, 200, 0.01)), threading.Event()
    for _ in range(MOST_THREADS + 10):
        put(pool, gate.wait)
    wait_until(lambda: len(alive("crowd")) == MOST_THREADS)
    for _ in range(5):
        pool._replace_stuck(math.inf)
    count = len(alive("crowd"))
    gate.set()
    answer = result(pool, lambda: "answered")
    pool.shutdown()

    assert count == MOST_THREADS
    assert answer == "answered"


def alive(name: str) -> list[threading.Thread]:
    """Return the threads of a pool that live."""
    return [thread for thread in threading.enumerate() if thread.name.startswith(f"pdp-{name}_")]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc how large a stack is")
def test_stacks_are_large(pool: BoundedPool) -> None:
    """The engine's recursion has 64 MiB, whatever the machine's default; other threads keep the default."""
    assert result(pool, stack_bytes) >= 64 * 1024 * 1024
    assert threading.stack_size() == 0


def stack_bytes() -> int:
    """Return the size of this thread's stack."""
    library = ctypes.CDLL(None)
    library.pthread_self.restype = ctypes.c_void_p
    attributes, size = ctypes.create_string_buffer(256), ctypes.c_size_t()
    assert library.pthread_getattr_np(ctypes.c_void_p(library.pthread_self()), attributes) == 0
    assert library.pthread_attr_getstacksize(attributes, ctypes.byref(size)) == 0
    return size.value


def test_what_is_open_counts_until_it_is_done(pool: BoundedPool, caplog: pytest.LogCaptureFixture) -> None:
    """Tasks count, running and waiting, until they are done, also those that fail; a failure ends no thread."""
    gate = threading.Event()
    for task in (gate.wait, gate.wait, lambda: 1 // 0):
        put(pool, task)
    with pytest.raises(OverloadedError, match=r"^3 calls are open, the most allowed \(lane `test`\); try again$"):
        pool.enter("anybody")
    gate.set()
    wait_until(lambda: has_room(pool))

    assert result(pool, lambda: 1) == 1
    pool.shutdown()
    assert "ZeroDivisionError" in caplog.text


def has_room(pool: BoundedPool, owner: str = "") -> bool:
    """Say whether a task would be taken."""
    try:
        pool.enter(owner)
    except OverloadedError:
        return False
    pool.leave(owner)
    return True


def test_one_owner_has_a_share() -> None:
    """Beyond its share an owner is refused while others are taken; there is room again when its tasks are done."""
    pool, gate = BoundedPool("shared", Room(threads=1, bound=4, share=2), limit="limit `x`"), threading.Event()
    for _ in range(2):
        put(pool, gate.wait, "greedy")

    with pytest.raises(OverloadedError, match=r"^`greedy` has 2 calls open, its full share of 4 \(limit `x`\); "):
        pool.enter("greedy")
    others = [has_room(pool, "modest"), has_room(pool)]
    gate.set()
    wait_until(lambda: has_room(pool, "greedy"))
    pool.shutdown()

    assert others == [True, True]
    assert pool._open == {}


def test_one_owner_leaves_threads_to_others() -> None:
    """Of an owner's tasks only so many run at one time; the others wait, also for a free thread, and run in order."""
    pool, gate = BoundedPool("turns", Room(threads=2, bound=100, share=50, turns=1)), threading.Event()
    done: SimpleQueue[int] = SimpleQueue()
    put(pool, gate.wait, "slow")
    for number in range(5):
        put(pool, partial(done.put, number), "slow")
    before = [result(pool, lambda: "answered") for _ in range(5)], done.empty()
    gate.set()
    order = [done.get(timeout=PATIENCE) for _ in range(5)]
    pool.shutdown()

    assert before == (["answered"] * 5, True)
    assert order == list(range(5))
    assert pool._turns == {}
