"""A connection to the loop: whatever its peer sends, what is answered is a whole message of an open call.

The first byte says how many bytes each read has, the second how the server goes on after each; the rest is what the
peer sends after its preface. A reader that knows frames, but no rule of HTTP/2, finds what the peer has sent.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from grpc import StatusCode

from pdp.bench import frames
from pdp.bench.frames import frame
from pdp.serving.http2.bounds import Bounds, Times
from pdp.serving.http2.connection import GRPCConnection
from pdp.serving.http2.link import Link
from pdp.serving.http2.loopcall import LoopCall
from pdp.serving.http2.nghttp2 import NGHTTP2Engine
from tests.machinery.servers.http2frames import PATH, data, headers, message, text, whole

STREAM = "/pdp.v1.AuthorizationService/AuthorizeStream"
PATHS = {PATH: True, STREAM: False}
WORDS = (
    *("content-type", "application/grpc", "te", "trailers", "grpc-timeout", "1n", "1S", "99999999H", "own-bin", "AAE="),
    *(":path", ":method", "POST", ":scheme", ":authority", PATH, STREAM, "grpc-encoding", "identity", "gzip", "cookie"),
    *("content-length", "connection", "transfer-encoding", "host", "expect", "CONNECT", "\x00\x00\x00\x00\x00"),
)
# How the server goes on, one bit each.
_LATER, _NEVER, _SLOWLY, _MUCH, _DRAINS, _AGES, _REFUSES, _CANCELS = (1 << bit for bit in range(8))
# What real clients have sent to a server on the loop, each on one connection.
RECORDED = sorted((Path(__file__).parent.parent / "recorded").glob("*"))
_RESET = frame(frames.RST_STREAM, 0, 1, b"\0\0\0\x08")
_SETTINGS = frames.settings_frame({})
_STREAM = headers(1, {":path": STREAM})
_CONVERSATIONS = (
    whole(1) + whole(3),
    whole(1, {"grpc-timeout": "1S"}) + _RESET,
    _STREAM + data(1, message(b"a") + message(b"b")[:-1], ended=False) + data(1, b"b"),
    headers(1, flags=frames.END_HEADERS | frames.END_STREAM),
    headers(1, flags=0) + frame(frames.CONTINUATION, frames.END_HEADERS, 1, b"\0" + text(b"own-bin") + text(b"AAE")),
    headers(1) + frame(frames.DATA, frames.PADDED | frames.END_STREAM, 1, b"\2" + message(b"question") + b"\0\0"),
    headers(1) + data(1, message(b"x"), ended=False) + frame(frames.HEADERS, 5, 1, b"\0" + text(b"own") + text(b"x")),
    frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 3}) + whole(1) + frames.window_frame(1, 9) + whole(3),
    frames.settings_frame({frames.HEADER_TABLE_SIZE: 0}) + whole(1) + frame(frames.GOAWAY, 0, 0, bytes(8)),
    whole(1, {":path": "/none"}) + whole(3, {"te": ""}) + frame(frames.PING, 0, 0, bytes(8)) + _SETTINGS,
    headers(1, {"content-length": "1"}) + data(1, message(b"question")) + frame(frames.PRIORITY, 0, 1, bytes(5)),
    headers(1) + data(1, b"\0\xff\xff\xff\xff", ended=False) + frame(frames.SETTINGS, frames.ACK, 0),
)
SEEDS = (
    *(bytes([0, 0]) + _SETTINGS + one for one in _CONVERSATIONS),
    *(bytes([7, way]) + _SETTINGS + one for way, one in enumerate(_CONVERSATIONS, start=17)),
    *(b"\x64\0" + path.read_bytes().removeprefix(frames.PREFACE) for path in RECORDED),
)
_BOUNDS = Bounds(message_bytes=1000, incoming_bytes=2000, streams=10, resets=20, controls=20)
_TIMES = Times(handshake=20.0, age=50.0, idle=30.0, grace=20.0, ping=10.0, ping_answer=5.0)
_LARGE = b"x" * 70_000
# What waits beside answers: other frames, which no window holds back.
_MOST_WAITING = 512 * 1024
_HEAD_BYTES = 9
_MOST_READS = 100
_SLOW_BYTES, _ALL_BYTES = 50, 1 << 30


class _Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes
    ends_at: int
    whole: bool


def _frames(sent: bytes) -> Iterator[_Frame]:
    """Yield frames, and at last what there is of one that is not whole."""
    at = 0
    while len(sent) - at >= _HEAD_BYTES:
        length = int.from_bytes(sent[at : at + 3])
        end = at + _HEAD_BYTES + length
        stream = int.from_bytes(sent[at + 5 : at + _HEAD_BYTES]) & 0x7FFF_FFFF
        yield _Frame(sent[at + 3], sent[at + 4], stream, sent[at + _HEAD_BYTES : end], end, end <= len(sent))
        at = end


class _Sent:
    """What the peer has sent: bodies, when streams have ended, when they were reset, and the window for answers."""

    def __init__(self, sent: bytes) -> None:
        self.bodies: dict[int, bytes] = {}
        self.ended_at: dict[int, int] = {}
        self.reset_at: dict[int, int] = {}
        self.begun: set[int] = set()
        self.window = frames.USUAL_WINDOW
        for one in _frames(sent):
            if one.kind == frames.HEADERS:
                self.begun.add(one.stream)
            elif one.kind == frames.DATA and one.stream not in self.ended_at:
                self.bodies[one.stream] = self.bodies.get(one.stream, b"") + _content(one)
            elif one.kind == frames.RST_STREAM:
                self.reset_at.setdefault(one.stream, one.ends_at)
            elif one.kind == frames.WINDOW_UPDATE and one.stream == 0:
                self.window += frames.number_of(one.payload)
            if one.kind in (frames.HEADERS, frames.DATA) and one.flags & frames.END_STREAM:
                self.ended_at.setdefault(one.stream, one.ends_at)


def _content(one: _Frame) -> bytes:
    if not one.flags & frames.PADDED:
        return one.payload
    padding = one.payload[0] if one.payload and one.whole else 0
    return one.payload[1 : len(one.payload) - padding]


class _Call:
    """One call as the server has it: what it was told, and what it has answered."""

    def __init__(self, call: LoopCall, path: str) -> None:
        self.call, self.single = call, PATHS[path]
        self.messages: list[bytes] = []
        self.answered = b""
        self.overs = 0
        assert call.add_callback(self._over)

    def _over(self) -> None:
        self.overs += 1


class _Server:
    """The loop with one link, whose socket is in memory."""

    def __init__(self, sent: bytes, way: int) -> None:
        self.sent, self.way = _Sent(sent), way
        self.came, self.at, self.now = b"", 0, 0.0
        self.out = bytearray()
        self.calls: dict[int, _Call] = {}
        self.waiting: list[Callable[[], None]] = []
        self.closed = False
        self.room = 0
        self.link = Link(
            self,  # type: ignore[arg-type]  # as much of a socket as a link needs
            "ipv4:127.0.0.1:1",
            keeper=self,
            connection=partial(GRPCConnection, NGHTTP2Engine, PATHS, _BOUNDS),
            enter=self._enter,
            proved=lambda _: ({}, 0.0),
            bounds=_BOUNDS,
            times=_TIMES,
            now=0.0,
        )
        self._turn()

    # The socket.

    def recv(self, size: int) -> bytes:
        """Give what has come."""
        if not self.came:
            raise BlockingIOError
        part, self.came = self.came[:size], self.came[size:]
        self.at += len(part)
        return part

    def send(self, wire: memoryview) -> int:
        """Take what is sent, or a little of it."""
        size = min(len(wire), self.room)
        if not size:
            raise BlockingIOError
        self.room -= size
        self.out += wire[:size]
        return size

    def close(self) -> None:
        """Take note of the end."""
        assert not self.closed
        self.closed = True

    # The keeper of the link.

    def run(self, work: Callable[[], None], _: Link) -> None:
        """Run work at once: there is one thread."""
        work()

    def interest(self, _: Link, __: int) -> None:
        """Do nothing: each step here reads and writes."""

    def touch(self, _: Link) -> None:
        """Do nothing: each step ends with a turn."""

    def due(self, _: Link, __: float) -> None:
        """Do nothing: deadlines are looked at in each step."""

    def gone(self, _: Link) -> None:
        """Do nothing: nothing waits for it."""

    # The calls.

    def _enter(self, path: str, call: LoopCall) -> None:
        number = call._stream.id
        assert number in self.sent.begun
        assert number not in self.calls
        assert all(isinstance(name, str) and value is not None for name, value in call.metadata)
        self.calls[number] = _Call(call, path)
        call.receive(partial(self._heard, number))

    def _heard(self, number: int, wire: bytes | None) -> None:
        one = self.calls[number]
        if one.call.cancelled:
            assert wire is None
            return
        self._judge(number, wire)
        if wire is not None:
            one.messages.append(wire)
        if one.single or wire is not None:
            self._soon(partial(self._answer, number, wire))
        if not one.single:
            self._soon(partial(self._go_on, number, wire))

    def _judge(self, number: int, wire: bytes | None) -> None:
        """Hold what was handed out against what has been sent."""
        one, sent = self.calls[number], self.sent
        assert sent.reset_at.get(number, self.at + 1) > self.at, "a call that was reset"
        if one.single or wire is None:
            assert sent.ended_at.get(number, self.at + 1) <= self.at, "a call that has not ended"
        told = b"".join(message(each) for each in (*one.messages, *(() if wire is None else (wire,))))
        body = sent.bodies.get(number, b"")
        assert body.startswith(told), "a message that was not sent"
        if one.single or wire is None:
            assert body == told, "a part of what was sent"

    def _soon(self, work: Callable[[], None]) -> None:
        if self.way & _NEVER:
            return
        if self.way & _LATER:
            self.waiting.append(work)
        else:
            work()

    def _answer(self, number: int, wire: bytes | None) -> None:
        one = self.calls[number]
        answer = b"!" + (wire or b"") + (_LARGE if self.way & _MUCH else b"")
        if one.call.over:
            return
        if self.way & _CANCELS and number % 4 == 1:
            one.call.cancel()
        elif one.single and self.way & _REFUSES:
            one.call.set_trailing_metadata((("own-bin", b"\xff"), ("own", "x")))
            one.call.refuse(StatusCode.ABORTED, "l\u00f6st 100 %\n")
        elif one.single:
            one.answered = message(answer)
            one.call.answer(answer)
        elif one.call.idle:
            one.answered += message(answer)
            one.call.begin().send(answer)

    def _go_on(self, number: int, wire: bytes | None) -> None:
        one = self.calls[number]
        if wire is None:
            one.call.refuse(StatusCode.OK, "")
        elif not one.call.over:
            one.call.receive(partial(self._heard, number))

    # What happens.

    def step(self, part: bytes) -> None:
        """Take bytes, and do what the loop does in a turn."""
        waiting, self.waiting = self.waiting, []
        self.came += part
        while self.came and not self.closed and self.link.ready(1, self.now):
            pass
        self.came = b"" if self.closed or self.link.connection.closing else self.came
        for work in waiting:
            work()
        self._turn()
        self.now += 1.0 if self.way & _AGES else 0.0
        if not self.closed:
            self.link.late(self.now)
            self.link.tick(self.now)
            self._turn()
        self.check()

    def _turn(self) -> None:
        self.room = _SLOW_BYTES if self.way & _SLOWLY else _ALL_BYTES
        self.link.turn()

    def check(self) -> None:
        """Hold what is kept to its bounds."""
        connection = self.link.connection
        kept = [len(stream.body) for stream in connection._streams.values()]
        assert sum(kept) == connection._incoming <= _BOUNDS.incoming_bytes
        assert len(kept) <= _BOUNDS.streams
        assert self.link.open_calls <= _BOUNDS.streams + len(self.calls)
        answered = sum(len(one.answered) for one in self.calls.values())
        assert self.link.waiting <= answered + _MOST_WAITING

    def end(self) -> None:
        """Let the peer leave: each call is over once, and what it has read are the answers that were given."""
        self.link.close()
        assert self.closed
        assert 0 == self.link.open_calls == self.link.connection.in_progress
        for one in self.calls.values():
            assert one.call.over
            assert 1 == one.overs
        self._read_answers()

    def _read_answers(self) -> None:
        bodies: dict[int, bytes] = {}
        ended: set[int] = set()
        for one in _frames(bytes(self.out)):
            if one.stream and one.kind in (frames.HEADERS, frames.DATA):
                assert one.stream in self.sent.begun, "an answer to no call"
                assert one.stream not in ended, "an answer that goes on after its end"
            if one.kind == frames.DATA:
                bodies[one.stream] = bodies.get(one.stream, b"") + one.payload
            if one.kind == frames.RST_STREAM or (one.kind == frames.HEADERS and one.flags & frames.END_STREAM):
                ended.add(one.stream)
        assert sum(map(len, bodies.values())) <= self.sent.window, "more than the peer's window"
        for stream, body in bodies.items():
            assert self.calls[stream].answered.startswith(body), "an answer that was not given"


class _Alarm(logging.Handler):
    """Raises what the loop would only write down."""

    def emit(self, record: logging.LogRecord) -> None:
        """Raise it."""
        raise AssertionError(record.getMessage())


def run(data: bytes) -> None:
    """Serve a connection until its peer leaves."""
    messages_of(data)


def messages_of(data: bytes) -> dict[int, list[bytes]]:
    """Serve a connection until its peer leaves; return the messages that were handed out, by stream."""
    size, way, sent = *data[:2].ljust(2, b"\0"), frames.PREFACE + data[2:]
    size = max(size or len(sent), len(sent) // _MOST_READS)
    log, alarm = logging.getLogger("pdp.server"), _Alarm()
    log.addHandler(alarm)
    try:
        server = _Server(data[2:], way)
        server.at = -len(frames.PREFACE)
        parts = [sent[at : at + size] for at in range(0, len(sent), size)]
        for place, part in enumerate((*parts, b"", b"")):
            if way & _DRAINS and place == len(parts) // 2 and not server.closed:
                server.link.drain(server.now)
            server.step(part)
        server.end()
        return {number: one.messages for number, one in server.calls.items()}
    finally:
        log.removeHandler(alarm)


def mutate(data: bytes, most: int, seed: int, usual: Callable[[bytes, int], bytes]) -> bytes:
    """Change frames, and keep their lengths right: otherwise nearly all that is tried ends at the first."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    found = [(one.kind, one.flags, one.stream, one.payload) for one in _frames(data[2:])]
    if not found or chance.random() < 0.2:
        return bytes(usual(data, most))
    way = bytearray(data[:2])
    for _ in range(chance.choice((1, 1, 2, 4))):
        _change(found, chance, usual)
    if chance.random() < 0.2:
        way[chance.randrange(2)] = chance.choice((0, 1, 7, 9, 64, 1 << chance.randrange(8), chance.randrange(256)))
    return (bytes(way) + b"".join(frame(*one) for one in found))[:most]


def _change(found: list[Any], chance: random.Random, usual: Callable[[bytes, int], bytes]) -> None:
    place = chance.randrange(len(found)) if found else 0
    what = chance.randrange(8) if found else 0
    kind, flags, stream, payload = found[place] if found else (0, 0, 0, b"")
    if what == 0:
        seed = chance.choice(SEEDS)
        added = [(one.kind, one.flags, one.stream, one.payload) for one in _frames(seed[2:])]
        found[place:place] = added if chance.random() < 0.5 else [chance.choice(added)]
    elif what == 1:
        del found[place]
    elif what == 2:
        found.insert(chance.randrange(len(found) + 1), found[place])
    elif what == 3:
        found[place] = kind, flags ^ 1 << chance.choice((0, 2, 3, 5)), stream, payload
    elif what == 4:
        found[place] = kind, flags, chance.choice((0, 1, 3, 5, stream + 2, stream, 2)), payload
    elif what == 5:
        at = chance.randrange(len(payload) + 1)
        found[place : place + 1] = (kind, flags & ~1, stream, payload[:at]), (kind, flags, stream, payload[at:])
    elif what == 6:
        found[place] = chance.randrange(12), flags, stream, payload
    else:
        found[place] = kind, flags, stream, bytes(usual(payload or b"\0", 600))
