"""Threads for handlers: how many, how deep, and how much they take on."""

from __future__ import annotations

import ctypes
import platform
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import TypeVar

import pytest

from pdp.server.pools import BoundedPool
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
