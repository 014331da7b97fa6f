"""The queue between decisions and a receiver: bounded, counted, never in the way."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from pdp.telemetry.pipeline import Flow, Pipeline, QueueSettings, Sent
from pdp.telemetry.wire import Span, source, span
from pdp.testing.waiting import wait_until
from tests.machinery.servers.running import PATIENCE

SOURCE = source({"service.name": "pdp"}, "pdp", "1")
# So many are encoded ahead together.
_TOGETHER = "abcdefgh"


class Receiver:
    """Takes requests, or says what `problems` hold; while `held` is unset, sending waits."""

    def __init__(self) -> None:
        self.arrived: list[list[str]] = []
        self.problems: list[str] = []
        self.rejected = 0
        self.held = Event()
        self.held.set()
        self.busy = Event()
        self.hurried = self.closed = False

    def send(self, request: bytes) -> Sent:
        """Take a request."""
        self.busy.set()
        self.held.wait()
        if self.closed:
            return Sent("closed")
        if self.problems:
            return Sent(self.problems.pop(0))
        (resource,) = ExportTraceServiceRequest.FromString(request).resource_spans
        self.arrived.append([one.name for one in resource.scope_spans[0].spans])
        return Sent(rejected=self.rejected)

    def hurry(self) -> None:
        """Take note."""
        self.hurried = True

    def close(self) -> None:
        """Let go of what waits."""
        self.closed = True
        self.held.set()


def _encoded(name: str) -> bytes:
    return span(Span(name=name, trace_id="a" * 32, span_id="b" * 16, start=1, end=2, attributes={}))


@contextmanager
def _pipeline(
    receiver: Receiver,
    *,
    encode: Callable[[str], bytes] = _encoded,
    now: Callable[[], float] = lambda: 0.0,
    capacity: int = 100,
    batch: int = 3,
    delay: float = 60.0,
) -> Iterator[Pipeline[str]]:
    settings = QueueSettings(capacity=capacity, batch=batch, delay=delay)
    pipeline = Pipeline("spans", encode, SOURCE, receiver, settings, now=now)
    try:
        yield pipeline
    finally:
        pipeline.shut_down(timeout=PATIENCE)


def test_a_full_batch_goes_at_once() -> None:
    """What fills a batch is sent together, in order; the rest waits."""
    receiver = Receiver()

    with _pipeline(receiver) as pipeline:
        for number in range(5):
            pipeline.put(str(number))

        wait_until(lambda: len(receiver.arrived) == 1)
        assert [["0", "1", "2"]] == receiver.arrived


def test_what_is_left_goes_after_the_delay() -> None:
    """A batch that does not fill up is sent when its time has come."""
    receiver = Receiver()

    with _pipeline(receiver, delay=0.05) as pipeline:
        pipeline.put("a")

        wait_until(lambda: receiver.arrived == [["a"]])


def test_shutting_down_sends_what_waits() -> None:
    """Nothing that waits is lost at the end, and the sender is told to hurry."""
    receiver = Receiver()

    with _pipeline(receiver) as pipeline:
        pipeline.put("a")
        pipeline.put("b")
        assert pipeline.shut_down(timeout=PATIENCE)

    assert [["a", "b"]] == receiver.arrived
    assert receiver.hurried


def test_a_full_queue_drops_what_comes_and_counts_it() -> None:
    """While the receiver hangs, the queue fills to its bound and no further, and the rest is counted."""
    receiver = Receiver()
    receiver.held.clear()

    with _pipeline(receiver, capacity=4, batch=2) as pipeline:
        for number in range(2):
            pipeline.put(str(number))
        assert receiver.busy.wait(PATIENCE)
        for number in range(2, 20):
            pipeline.put(str(number))

        flow = pipeline.flow()
        assert flow.queued == flow.capacity == 4
        assert {"queue_full": 14} == flow.processed
        receiver.held.set()


def test_what_is_not_taken_is_counted_by_reason() -> None:
    """A batch that the receiver does not take is gone and counted."""
    receiver = Receiver()
    receiver.problems = ["UNAVAILABLE"]

    with _pipeline(receiver) as pipeline:
        for number in range(4):
            pipeline.put(str(number))
        wait_until(lambda: pipeline.flow().exported == {"UNAVAILABLE": 3})
        pipeline.shut_down(timeout=PATIENCE)

    assert {"": 1, "UNAVAILABLE": 3} == pipeline.flow().exported
    assert {"": 4} == pipeline.flow().processed


def test_what_a_receiver_does_not_want_is_counted() -> None:
    """A receiver can take a request and not all of it; the rest is not sent again."""
    receiver = Receiver()
    receiver.rejected = 2

    with _pipeline(receiver) as pipeline:
        for number in range(3):
            pipeline.put(str(number))
        wait_until(lambda: len(receiver.arrived) == 1)
        pipeline.shut_down(timeout=PATIENCE)

    assert {"": 1, "rejected": 2} == pipeline.flow().exported


def test_no_more_is_rejected_than_was_sent() -> None:
    """A receiver can say any number; what was sent stays the sum of what is counted, and fits into 64 bits."""
    receiver = Receiver()
    receiver.rejected = 2**63 - 1

    with _pipeline(receiver) as pipeline:
        for number in range(6):
            pipeline.put(str(number))
        wait_until(lambda: len(receiver.arrived) == 2)
        pipeline.shut_down(timeout=PATIENCE)

    assert {"rejected": 6} == pipeline.flow().exported


def test_what_is_encoded_ahead_goes_in_order() -> None:
    """What another thread has encoded is older than what waits, and is encoded once."""
    receiver, encoded = Receiver(), list[str]()

    def noted(name: str) -> bytes:
        encoded.append(name)
        return _encoded(name)

    with _pipeline(receiver, encode=noted, batch=100) as pipeline:
        for name in _TOGETHER:
            pipeline.put(name)
        pipeline.encode_ahead()
        ahead = list(encoded)
        pipeline.put("later")
        queued = pipeline.flow().queued

    assert ([*_TOGETHER], 9, [*_TOGETHER, "later"]) == (ahead, queued, encoded)
    assert [[*_TOGETHER, "later"]] == receiver.arrived


def test_a_few_are_not_encoded_ahead() -> None:
    """One by one they would take twice the time of the thread that answers calls; they are sent all the same."""
    receiver, encoded = Receiver(), list[str]()

    def noted(name: str) -> bytes:
        encoded.append(name)
        return _encoded(name)

    with _pipeline(receiver, encode=noted, batch=100) as pipeline:
        for name in _TOGETHER[1:]:
            pipeline.put(name)
            pipeline.encode_ahead()
        ahead = list(encoded)

    assert ([], [[*_TOGETHER[1:]]]) == (ahead, receiver.arrived)


def test_a_batch_that_is_encoded_ahead_goes_at_once() -> None:
    """Whoever has encoded the last of it wakes the thread, and not whoever has added it."""
    receiver = Receiver()

    with _pipeline(receiver) as pipeline:
        for name in "abc":
            pipeline.put(name)
            pipeline.encode_ahead()

        wait_until(lambda: receiver.arrived == [["a", "b", "c"]])


@pytest.mark.parametrize("capacity", [10, 100])
def test_a_few_that_fill_a_batch_go_with_it_at_once(capacity: int) -> None:
    """They are too few to be encoded ahead, and with what was they are a batch, or all that the queue takes."""
    receiver = Receiver()

    with _pipeline(receiver, capacity=capacity, batch=10) as pipeline:
        for name in (*_TOGETHER, "i", "j"):
            pipeline.put(name)
            pipeline.encode_ahead()

        wait_until(lambda: receiver.arrived == [[*_TOGETHER, "i", "j"]])


def test_encoding_ahead_takes_a_moment() -> None:
    """A thread that answers calls goes back to them, whatever waits; the rest is for the next time."""
    encoded: list[str] = []
    costly = _Costly(encoded)

    with _pipeline(Receiver(), encode=costly, now=costly.now, batch=100) as pipeline:
        for number in range(40):
            pipeline.put(str(number))
        pipeline.encode_ahead()
        first = len(encoded)
        pipeline.encode_ahead()

        assert (3, 6) == (first, len(encoded))


class _Costly:
    """An encoder that takes a fifth of a millisecond for each item."""

    def __init__(self, encoded: list[str]) -> None:
        self._encoded = encoded

    def __call__(self, name: str) -> bytes:
        """Encode an item."""
        self._encoded.append(name)
        return _encoded(name)

    def now(self) -> float:
        """Return the time, which only encoding takes."""
        return len(self._encoded) * 0.0002


def test_no_more_than_a_batch_is_encoded_ahead() -> None:
    """While the receiver hangs, what waits takes no more memory than without."""
    receiver, encoded = Receiver(), list[str]()
    receiver.held.clear()

    def noted(name: str) -> bytes:
        encoded.append(name)
        return _encoded(name)

    with _pipeline(receiver, encode=noted, capacity=6) as pipeline:
        for number in range(3):
            pipeline.put(str(number))
        assert receiver.busy.wait(PATIENCE)
        for number in range(3, 12):
            pipeline.put(str(number))
            pipeline.encode_ahead()

        assert (6, 6, {"queue_full": 3}) == (len(encoded), pipeline.flow().queued, pipeline.flow().processed)
        receiver.held.set()


def test_encoding_ahead_waits_for_nobody() -> None:
    """While the pipeline's thread encodes, a thread that answers calls goes on without."""
    receiver, began, go_on = Receiver(), Event(), Event()

    def slow(name: str) -> bytes:
        began.set()
        assert go_on.wait(PATIENCE)
        return _encoded(name)

    with _pipeline(receiver, encode=slow, batch=1) as pipeline:
        pipeline.put("a")
        assert began.wait(PATIENCE)
        pipeline.put("b")
        pipeline.encode_ahead()
        go_on.set()

    assert [["a"], ["b"]] == receiver.arrived


@pytest.mark.parametrize("ahead", [False, True])
def test_what_cannot_be_encoded_is_counted(caplog: pytest.LogCaptureFixture, *, ahead: bool) -> None:
    """It costs itself alone: neither the thread, nor one that encodes ahead, ends or raises; the log says it once."""
    receiver = Receiver()

    def careless(name: str) -> bytes:
        return _encoded(name) if name.isalpha() else _encoded(str(int(name) // 0))

    with caplog.at_level(logging.ERROR, "pdp.telemetry"), _pipeline(receiver, encode=careless) as pipeline:
        for name in ("1", "a", "2", "3", "4", "5", "b"):
            pipeline.put(name)
            if ahead:
                pipeline.encode_ahead()

        assert pipeline.shut_down(timeout=PATIENCE)

    assert ["a", "b"] == [name for names in receiver.arrived for name in names]
    assert {"": 2, "encoding_failed": 5} == pipeline.flow().processed
    assert ["some spans cannot be encoded, and are dropped"] == caplog.messages


def test_shutting_down_gives_up_on_a_hanging_receiver() -> None:
    """A receiver that never answers cannot hold the process back; what was lost with it is counted."""
    receiver = Receiver()
    receiver.held.clear()

    with _pipeline(receiver, batch=2) as pipeline:
        for number in range(5):
            pipeline.put(str(number))
        assert receiver.busy.wait(PATIENCE)

        assert not pipeline.shut_down(timeout=0.05)

    assert receiver.closed
    assert (
        Flow(queued=0, capacity=100, processed={"": 2, "already_shutdown": 3}, exported={"closed": 2})
        == pipeline.flow()
    )


def test_threads_lose_nothing() -> None:
    """What many threads add and encode is sent once, also when the interpreter changes threads all the time."""
    receiver = Receiver()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with _pipeline(receiver, capacity=10_000, batch=64) as pipeline, ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: _put_many(pipeline, number), range(8)))
    finally:
        sys.setswitchinterval(interval)

    arrived = [name for request in receiver.arrived for name in request]
    assert sorted(f"{number}-{one}" for number in range(8) for one in range(500)) == sorted(arrived)


def _put_many(pipeline: Pipeline[str], number: int) -> None:
    for one in range(500):
        pipeline.put(f"{number}-{one}")
        pipeline.encode_ahead()


def test_what_comes_after_the_end_is_counted() -> None:
    """Putting something down never raises, not even at the end."""
    with _pipeline(Receiver()) as pipeline:
        pipeline.shut_down(timeout=PATIENCE)

        pipeline.put("late")

    assert {"already_shutdown": 1} == pipeline.flow().processed


def test_a_receiver_that_is_away_is_mentioned_once(caplog: pytest.LogCaptureFixture) -> None:
    """The process's log says when it begins and when it is over, and nothing in between."""
    receiver = Receiver()
    receiver.problems = ["UNAVAILABLE", "timeout", "UNAVAILABLE"]

    with caplog.at_level(logging.WARNING, "pdp.telemetry"), _pipeline(receiver, batch=1) as pipeline:
        for number in range(6):
            pipeline.put(str(number))
        wait_until(lambda: len(receiver.arrived) > 1)

    assert ["spans are not sent: UNAVAILABLE", "spans are sent again"] == caplog.messages


def test_what_the_end_loses_is_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    """A process that ends before the first attempt is over does not go without a word."""
    receiver = Receiver()
    receiver.problems = ["UNAVAILABLE"]

    with caplog.at_level(logging.WARNING, "pdp.telemetry"), _pipeline(receiver) as pipeline:
        pipeline.put("one")

    assert ["spans are not sent: UNAVAILABLE"] == caplog.messages
