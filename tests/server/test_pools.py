"""Threads for handlers: how many, how deep, and how much they take on."""

from __future__ import annotations

import ctypes
import math
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TypeVar

import pytest

from pdp import stacks
from pdp.server.pools import MOST_THREADS, BoundedPool
from pdp.testing.waiting import wait_until
from tests.server.running import PATIENCE

T = TypeVar("T")


@pytest.fixture
def pool() -> Iterator[BoundedPool]:
    """Return a pool of two threads that holds three tasks."""
    made = BoundedPool("test", threads=2, bound=3)
    yield made
    made.shutdown()


def result(pool: BoundedPool, work: Callable[[], T]) -> T:
    """Run some work in the pool and return what it returns."""
    results: SimpleQueue[T] = SimpleQueue()
    pool.submit(lambda: results.put(work()))
    return results.get(timeout=PATIENCE)


def test_threads_exist_from_the_start(pool: BoundedPool) -> None:
    """No call waits for a thread to be made, and no thread is made later with another stack."""
    names = {thread.name for thread in threading.enumerate() if thread.name.startswith("pdp-test")}

    assert len(names) == 2
    assert result(pool, lambda: threading.current_thread().name) in names


def test_others_take_the_place_of_threads_that_are_stuck() -> None:
    """Tasks that hang keep no other waiting, however many they are, and their threads end with them."""
    pool, gate, ended = BoundedPool("stuck", threads=2, bound=100, patience=0.01), threading.Event(), SimpleQueue[int]()

    def hang(number: int) -> None:
        gate.wait()
        ended.put(number)

    for number in range(20):
        pool.submit(hang, number)
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
    pool, gate, ends = BoundedPool("begun", threads=1, bound=10, patience=0.001), threading.Event(), SimpleQueue[str]()

    def end() -> None:
        problem = ""
        try:
            pool.shutdown()
        except RuntimeError as error:
            problem = str(error)
        ends.put(problem)

    with stacks._STARTING:
        pool.submit(gate.wait)
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
    pool, gate = BoundedPool("crowd", threads=2, bound=200, patience=0.01), threading.Event()
    for _ in range(MOST_THREADS + 10):
        pool.submit(gate.wait)
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


def test_full_counts_running_and_waiting(pool: BoundedPool, caplog: pytest.LogCaptureFixture) -> None:
    """Tasks count until they are done, also those that fail; a failure is logged and ends no thread."""
    gate = threading.Event()
    fullness = [pool.full]
    for task in (gate.wait, gate.wait, lambda: 1 // 0):
        pool.submit(task)
        fullness.append(pool.full)
    gate.set()

    assert result(pool, lambda: 1) == 1
    pool.shutdown()
    assert fullness == [False, False, False, True]
    assert not pool.full
    assert "ZeroDivisionError" in caplog.text


def test_done_callbacks_are_called_once(pool: BoundedPool) -> None:
    """Whether it is added before the end or after, a callback is called exactly once."""
    for _ in range(2000):
        called: SimpleQueue[object] = SimpleQueue()
        task = pool.submit(int)
        task.add_done_callback(called.put)
        task.add_done_callback(called.put)

        assert (task, task) == (called.get(timeout=PATIENCE), called.get(timeout=PATIENCE))
        assert called.empty()
