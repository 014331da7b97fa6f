"""The load by raw frames: closed and open loops that need little CPU for a call, so that they can see a quick server.

Calls are prepared beforehand and go over one connection or several, with one thread and without gRPC. Each answer must
have a length that right answers to its question have had; one in four, and each of another length, is decoded and
compared. A call that the server refuses unread is asked again, a few times and after a pause, and its time runs on.
"""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from heapq import heappop, heappush
from itertools import chain, count, islice
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from ssl import SSLContext, SSLWantReadError, SSLWantWriteError, create_default_context
from time import perf_counter
from typing import Final

from pdp.bench.callids import DIGITS, before_id
from pdp.bench.dialects import Dialect
from pdp.bench.exchanges import Asked, supplied
from pdp.bench.failure import WrongAnswerError
from pdp.bench.frameconnection import PREFIX_BYTES, Exchange, FrameConnection
from pdp.bench.load import AWAKE_SECONDS, Now, Sample, undisturbed
from pdp.bench.plan import Measurement, Shape
from pdp.bench.questions import Question, Workload
from pdp.bench.servers import Target

_PATIENCE_SECONDS: Final = 30.0
_RECEIVED_BYTES: Final = 256 * 1024
_CHECKED_EVERY: Final = 4
# A stall has many calls open at once on one connection, and gRPC's own server then refuses some unread. Asked again at
# once, they would be refused again, and cost the server what it needs to catch up. Each pause is twice the one before,
# as with gRPC's client; all of them are two seconds, which is longer than most stalls.
PAUSE_SECONDS: Final = 0.01
_LONGEST_PAUSE_SECONDS: Final = 0.1
_MOST_REFUSALS: Final = 22
# How many calls that were never made before are prepared for each second: more than a server has answered.
_FRESH_A_SECOND: Final = 20_000


@contextmanager
def frame_load(target: Target, measurement: Measurement, workload: Workload, seconds: float) -> Iterator[FrameLoad]:
    """Connect to a server, and yield a load whose calls are prepared."""
    dialect = target.dialect
    tls = create_default_context(cafile=target.authorities) if target.authorities else None
    if tls:
        tls.set_alpn_protocols(["h2"])
    supply = supplied(workload, measurement.misses, lambda asked: framed(dialect, asked), size=1)
    if measurement.misses:
        supply = chain([*islice(supply, round(_FRESH_A_SECOND * seconds))], supply)
    fields = (
        (":method", "POST"),
        (":scheme", "https" if tls else "http"),
        (":path", dialect.path(Shape.FRAMES) or ""),
        (":authority", target.address),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *dialect.metadata,
    )
    next_number = count(1).__next__
    with ExitStack() as opened:
        selector = opened.enter_context(DefaultSelector())
        lines = []
        for _ in range(measurement.connections):
            connected = opened.enter_context(_connected(target.address, tls))
            lines.append(_Line(connected, FrameConnection(fields, next_number), selector))
        yield FrameLoad(lines, selector, supply, Checks(dialect, every=len(workload.repeated)))


def framed(dialect: Dialect, questions: Sequence[Question]) -> bytes:
    """Return the frame of gRPC for a message, without the digits of its id, which its length includes."""
    message = dialect.encode(Shape.FRAMES, questions) + before_id(dialect.id_field)
    return b"\x00" + (len(message) + DIGITS).to_bytes(PREFIX_BYTES - 1) + message


class FrameLoad:
    """Loops over connections of one server. They raise `WrongAnswerError` for every failure."""

    def __init__(
        self,
        lines: Sequence[_Line],
        selector: DefaultSelector,
        supply: Iterator[Asked],
        checks: Checks,
        now: Now = perf_counter,
    ) -> None:
        self._lines = lines
        self._selector = selector
        self._supply = supply
        self._checks = checks
        self._now = now
        self._in_progress = 0
        # What was refused, the first to be asked again first, and how often that was done.
        self._refused: list[tuple[float, int, _Line, Exchange]] = []
        self._refusals = count()
        self._again = 0
        # The connections that may have something to send.
        self._touched = {*lines}

    def ask_each(self, calls: int) -> None:
        """Make so many calls one after the other, with the connections in turn."""
        for number in range(calls):
            self._ask(self._lines[number % len(self._lines)], self._now())
            while self._in_progress:
                for _, answered in self._answered(_PATIENCE_SECONDS):
                    for one in answered:
                        self._checks.check(one)

    def run(self, measurement: Measurement, seconds: float) -> Sample:
        """Run the loop of a measurement."""
        self._checks.begin()
        self._again = 0
        with undisturbed():
            if measurement.rate is not None:
                sample = self._open_loop(measurement.rate, seconds)
            else:
                sample = self._closed_loop(measurement.concurrency, seconds)
        return replace(sample, again=self._again)

    def _closed_loop(self, concurrency: int, seconds: float) -> Sample:
        took: list[float] = []
        started = self._now()
        end = over = started
        end += seconds
        for number in range(concurrency):
            self._ask(self._lines[number % len(self._lines)], started)
        while self._in_progress:
            for line, answered in self._answered(_PATIENCE_SECONDS):
                over = self._now()
                for one in answered:
                    took.append(over - one.begun)
                    self._checks.check(one)
                    if over < end:
                        self._ask(line, self._now())
        return self._checks.sample(took, over - started)

    def _open_loop(self, rate: float, seconds: float) -> Sample:
        took: list[float] = []
        late: list[float] = []
        total, number = round(rate * seconds), 0
        started = over = self._now()
        while number < total or self._in_progress:
            while number < total and (due := started + number / rate) <= (now := self._now()):
                late.append(now - due)
                self._ask(self._lines[number % len(self._lines)], due)
                number += 1
            left = started + number / rate - self._now() if number < total else _PATIENCE_SECONDS
            for _, answered in self._answered(_pause(left), patient=number < total):
                over = self._now()
                for one in answered:
                    took.append(over - one.begun)
                    self._checks.check(one)
        return self._checks.sample(took, over - started, late)

    def _ask(self, line: _Line, begun: float) -> None:
        line.connection.ask(Exchange(next(self._supply), begun))
        self._in_progress += 1
        self._touched.add(line)

    def _answered(self, seconds: float, *, patient: bool = False) -> Iterator[tuple[_Line, list[Exchange]]]:
        """Send what there is to send, wait for bytes, and yield the calls that they answer; `patient` allows none."""
        if self._refused:
            seconds, patient = min(seconds, self._ask_again()), True
        for line in self._touched:
            line.send()
        self._touched.clear()
        ready = self._selector.select(seconds)
        if not ready and not patient:
            raise WrongAnswerError(f"no answer within {_PATIENCE_SECONDS:g} s")
        for key, events in ready:
            self._touched.add(key.data)
            if events & EVENT_READ:
                answered = key.data.receive()
                self._take_refused(key.data)
                self._in_progress -= len(answered)
                yield key.data, answered

    def _take_refused(self, line: _Line) -> None:
        for one in line.connection.refused():
            one.refused += 1
            if one.refused > _MOST_REFUSALS:
                raise WrongAnswerError(f"no answer: the server refused a call {one.refused} times")
            pause = min(PAUSE_SECONDS * 2 ** (one.refused - 1), _LONGEST_PAUSE_SECONDS)
            heappush(self._refused, (self._now() + pause, next(self._refusals), line, one))

    def _ask_again(self) -> float:
        """Ask again what was refused and is due. Return how long the next one may wait, in seconds."""
        while self._refused:
            due, _, line, one = self._refused[0]
            if (left := due - self._now()) > 0:
                return left
            heappop(self._refused)
            self._again += 1
            line.connection.ask(one)
            self._touched.add(line)
        return _PATIENCE_SECONDS


class Checks:
    """Checks the answers of a load, `every` of them once for each repeated question, and counts what was decoded."""

    def __init__(self, dialect: Dialect, *, every: int) -> None:
        self._dialect = dialect
        self._every = every
        self._lengths: defaultdict[Hashable, set[int]] = defaultdict(set)
        self.begin()

    def begin(self) -> None:
        """Count from here on."""
        self._seen = self._decoded = self._remembered = self._fresh = 0

    def check(self, one: Exchange) -> None:
        """Check one answer. Raise `WrongAnswerError` when it is wrong."""
        message, asked = one.message(), one.asked
        # Which of four is another in each turn of the repeated questions, of which one in four is denied.
        turn, self._seen = self._seen + self._seen // self._every, self._seen + 1
        lengths = self._lengths[asked.questions[0].allowed if asked.fresh else asked.wire]
        if turn % _CHECKED_EVERY and len(message) in lengths:
            return
        self._remembered += self._dialect.check(Shape.FRAMES, message, asked.questions)
        self._decoded += 1
        self._fresh += asked.fresh
        lengths.add(len(message))

    def sample(self, took: Sequence[float], elapsed: float, late: Sequence[float] = ()) -> Sample:
        """Return the measurements of a loop."""
        return Sample(
            took=took,
            decisions=len(took),
            checked=self._decoded,
            remembered=self._remembered,
            fresh=self._fresh,
            elapsed=elapsed,
            late=late,
        )


class _Line:
    """A connection and its socket."""

    def __init__(self, connected: socket.socket, connection: FrameConnection, selector: DefaultSelector) -> None:
        self.connection = connection
        self._socket = connected
        self._selector = selector
        self._unsent = b""
        self._events = EVENT_READ
        selector.register(connected, EVENT_READ, self)

    def send(self) -> None:
        """Send what the socket takes."""
        data = self._unsent + self.connection.outgoing()
        if data:
            self._unsent = data[self._sent(data) :]
            events = EVENT_READ | EVENT_WRITE if self._unsent else EVENT_READ
            if events != self._events:
                self._events = events
                self._selector.modify(self._socket, events, self)

    def receive(self) -> list[Exchange]:
        """Return the calls that are answered by what the socket has."""
        try:
            data = self._socket.recv(_RECEIVED_BYTES)
        except (BlockingIOError, SSLWantReadError):
            # Only a part of what TLS sends at a time has come, or nothing of the connection's own.
            return []
        except OSError as error:
            raise _broken(error) from None
        if not data:
            raise WrongAnswerError("the server closed the connection")
        return self.connection.receive(data)

    def _sent(self, data: bytes) -> int:
        try:
            return self._socket.send(data)
        except (BlockingIOError, SSLWantWriteError):
            return 0
        except OSError as error:
            raise _broken(error) from None


@contextmanager
def _connected(address: str, tls: SSLContext | None) -> Iterator[socket.socket]:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        connected = socket.create_connection((host, int(port)), timeout=_PATIENCE_SECONDS)
        if tls:
            connected = tls.wrap_socket(connected, server_hostname=host)
    except OSError as error:
        raise _broken(error) from None
    with connected:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setblocking(False)  # noqa: FBT003 - the one argument of a standard method
        yield connected


def _broken(error: OSError) -> WrongAnswerError:
    return WrongAnswerError(f"the connection broke: {(error.strerror or 'input failed').lower()}")


def _pause(left: float) -> float:
    """Return how long to wait for bytes: what sleeps wakes up late, so a call that is due soon is waited for awake."""
    return max(0.0, left - AWAKE_SECONDS)
