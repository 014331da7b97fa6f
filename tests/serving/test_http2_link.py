"""A connection on a socket: what it waits for, for how long, and how it ends. The time is a parameter."""

from __future__ import annotations

import itertools
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from pdp.bench import frames
from pdp.bench.frames import FrameReader, frame
from pdp.bench.hpack import read_block
from pdp.serving.http2.bounds import Bounds, Times
from pdp.serving.http2.connection import GRPCConnection
from pdp.serving.http2.link import READ, WRITE, Link
from pdp.serving.http2.loopcall import LoopCall
from pdp.serving.http2.nghttp2 import NGHTTP2Engine
from pdp.serving.http2.tls import TLSContexts
from pdp.serving.http2.tlssocket import TLSSocket
from pdp.serving.transport import Context
from tests.machinery.credentials.authority import Authority
from tests.machinery.servers.http2frames import PATH, headers, whole

# No jitter: a connection is as old as it is.
TIMES = Times(age=1000.0, idle=2000.0)


class Wire:
    """A link to a peer in this process, whose calls are kept open."""

    def __init__(
        self,
        times: Times = TIMES,
        bounds: Bounds = Bounds(),  # noqa: B008 - a frozen value
        *,
        secured: ssl.SSLContext | None = None,
        proved_for: float = 0.0,
    ) -> None:
        ours, self.peer = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        for one in (ours, self.peer):
            one.settimeout(0.0)
        self.calls: list[LoopCall] = []
        self.events = 0
        self.late_at: list[float] = []
        self.reader = FrameReader()
        self.link = Link(
            TLSSocket(ours, secured) if secured is not None else ours,
            "ipv4:127.0.0.1:1",
            keeper=self,
            connection=partial(GRPCConnection, NGHTTP2Engine, {PATH: True}, bounds),
            enter=lambda _, call: self.calls.append(call),
            proved=lambda _: ({}, proved_for),
            bounds=bounds,
            times=times,
            now=0.0,
        )
        self.link.turn()

    def run(self, work: Callable[[], None], _: Link) -> None:
        """Run work at once: there is one thread."""
        work()

    def interest(self, _: Link, events: int) -> None:
        """Keep what the link waits for."""
        self.events = events

    def touch(self, link: Link) -> None:
        """Do nothing: each step here ends with a turn."""

    def due(self, _: Link, at: float) -> None:
        """Keep when a call is late."""
        self.late_at.append(at)

    def gone(self, _: Link) -> None:
        """Wait for nothing more."""
        self.events = 0

    def send(self, sent: bytes, now: float) -> None:
        """Send bytes as the peer."""
        self.peer.send(sent)
        self.link.ready(READ, now)
        self.link.turn()

    def tick(self, now: float) -> list[int]:
        """Let time pass; return the kinds of frames that the peer has read since."""
        self.link.tick(now)
        self.link.turn()
        return [one.kind for one in self.frames()]

    def frames(self) -> list[frames.Frame]:
        """Return what the peer can read."""
        received = b""
        try:
            while part := self.peer.recv(1 << 20):
                received += part
                if not self.link.closed:
                    self.link.turn()
        except BlockingIOError:
            pass
        return [*self.reader.read(received)]

    def greet(self) -> Wire:
        """Send the preface and settings, with windows that let everything through."""
        settings = frames.settings_frame({frames.HEADER_TABLE_SIZE: 0, frames.INITIAL_WINDOW_SIZE: 1 << 30})
        self.send(frames.PREFACE + settings + frames.window_frame(0, 1 << 30), 0.0)
        self.frames()
        return self

    def answer(self, size: int) -> None:
        """Answer the last call with as many bytes."""
        self.calls[-1].receive(lambda _: None)
        self.calls[-1].serve(lambda *_: b"x" * size, b"")
        self.link.turn()


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Wire]]:
    """Return what makes a wire; its peer ends with the test."""
    monkeypatch.setattr("pdp.serving.http2.link._JITTER", 0.0)
    made: list[Wire] = []

    def make(*args: Any, **kwargs: Any) -> Wire:
        made.append(Wire(*args, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.link.close()
        one.peer.close()


Make = Callable[..., Wire]


@pytest.mark.parametrize("sent", [b"", b"P", frames.PREFACE])
def test_a_peer_must_greet_in_time(wire: Make, sent: bytes) -> None:
    """A peer that sends nothing, or no whole preface with its settings, holds a connection for ten seconds."""
    one = wire()
    if sent:
        one.send(sent, 0.0)
    one.tick(9.9)
    before = one.link.closed
    one.tick(10.0)

    assert (False, True) == (before, one.link.closed)


def test_a_peer_that_does_not_read_is_left(wire: Make) -> None:
    """After twenty seconds in which it takes nothing; each byte that it takes gives it as many more."""
    one = wire(bounds=Bounds(waiting_bytes=1 << 30)).greet()
    one.send(whole(1), 0.0)
    one.answer(1 << 20)
    one.link.tick(10.0)
    one.peer.recv(1 << 16)
    one.link.turn()
    one.link.tick(20.0)
    one.link.tick(39.9)
    before = one.link.closed
    one.link.tick(40.0)

    assert (False, True) == (before, one.link.closed)


def test_a_peer_that_gives_a_stream_no_window_is_left(wire: Make) -> None:
    """A stream that has not ended is no reason to wait longer for its reader."""
    one = wire()
    one.send(frames.PREFACE + frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 0}) + whole(1), 0.0)
    one.calls[0].begin().send(b"x" * 100)
    one.link.turn()
    one.tick(0.0)
    before = one.tick(19.9)
    told = one.tick(20.0)

    assert ([], [frames.GOAWAY]) == (before, told)
    assert (True, True) == (one.link.closed, one.calls[0].cancelled)


def test_a_peer_that_leaves_much_unread_is_left_sooner(wire: Make) -> None:
    """What waits for one connection is bounded, whether its socket or its windows hold it back."""
    one = wire(bounds=Bounds(waiting_bytes=100_000)).greet()
    one.send(whole(1), 0.0)
    one.answer(1 << 20)
    one.link.tick(0.5)
    one.link.tick(1.4)
    before = one.link.connection.closing
    one.link.tick(1.5)

    assert (False, True) == (before, one.link.connection.closing)


def test_a_large_answer_to_a_peer_that_reads_is_sent(wire: Make) -> None:
    """The bound is for what is not read: an answer may be larger."""
    one = wire(bounds=Bounds(waiting_bytes=100_000)).greet()
    one.send(whole(1), 0.0)
    one.answer(1 << 20)
    body = sum(len(found.payload) for found in one.frames() if found.kind == frames.DATA)

    assert ((1 << 20) + 5, False) == (body, one.link.closed)


def test_a_call_goes_on_while_others_fill_the_socket(wire: Make) -> None:
    """A peer that reads all the time, but never all there is, has taken the message of a call some time."""
    one = wire(bounds=Bounds(waiting_bytes=1 << 30)).greet()
    one.send(whole(1) + whole(3), 0.0)
    call = one.calls[0].begin()
    one.answer(100_000)
    call.send(b"message")
    received = b""
    for stream in range(5, 21, 2):
        one.send(whole(stream), 0.0)
        one.answer(50_000)
        while one.link.waiting > 100_000:
            received += one.peer.recv(1 << 13)
            one.link.turn()

    assert (True, True) == (b"message" in received, call.idle)


def test_nothing_is_read_from_a_peer_that_does_not_read(wire: Make) -> None:
    """Otherwise it could have us say ever more."""
    one = wire().greet()
    before = one.events
    one.send(whole(1), 0.0)
    one.answer(1 << 20)

    assert (READ, WRITE) == (before, one.events)


def test_nothing_is_read_while_tls_has_to_write_first(wire: Make) -> None:
    """Its peer could have new keys be made without end and read none of the answers: the loop waits for its reading."""
    one = wire().greet()
    socket_of_link = one.link.sock
    one.link.sock = cast(socket.socket, _Wanting())
    one.send(frame(frames.PING, 0, 0, bytes(8)), 0.0)
    wanting = one.events
    one.link.sock = socket_of_link
    one.link.ready(WRITE, 0.0)
    one.link.turn()

    assert (WRITE, READ) == (wanting, one.events)


class _Wanting:
    """A socket by TLS that can read only when it has written."""

    def recv(self, _: int) -> bytes:
        """Say so."""
        raise ssl.SSLWantWriteError


def test_bytes_that_take_long_leave_others_their_turn(wire: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of one byte do: what else has come waits for the next turn."""
    one, passed, taken = wire().greet(), itertools.count(), list[int]()
    monkeypatch.setattr("pdp.serving.http2.link.time.monotonic", lambda: float(next(passed)))
    monkeypatch.setattr(one.link.connection, "receive", lambda data, _: taken.append(len(data)))
    one.peer.send(bytes(3 * 16_384))
    more = [one.link.ready(READ, 0.0) for _ in range(4)]

    assert ([16_384] * 3, [True, True, True, False]) == (taken, more)


def test_what_a_peer_has_us_say_is_bounded(wire: Make) -> None:
    """While its socket takes nothing, what refusals and pings add counts as unread, and ends the reading."""
    one = wire().greet()
    one.send(whole(1), 0.0)
    one.answer(100_000)
    stream = 3
    while one.events & READ and stream < 10_000:
        refused = b"".join(headers(stream + 2 * index, {":path": "/none"}) for index in range(50))
        one.send(refused + frame(frames.PING, 0, 0, bytes(8)) * 90, 0.0)
        stream += 100

    assert (WRITE, False) == (one.events, one.link.connection.closing)
    assert 256 * 1024 < one.link.waiting < 512 * 1024


def test_an_old_connection_ends_in_two_steps(wire: Make) -> None:
    """First it is announced, so that no call gets lost; a call in progress is answered before the end."""
    one = wire().greet()
    one.tick(999.0)
    one.send(whole(1), 999.0)
    announced = one.tick(1000.0)
    one.send(whole(3), 1000.5)
    ended = one.tick(1001.0)
    calls = len(one.calls)
    for call in one.calls:
        call.serve(lambda *_: b"answer", b"")
    one.link.turn()
    answered = [found.stream for found in one.frames() if found.kind == frames.DATA]
    one.tick(1001.3)

    assert ([frames.GOAWAY], [frames.GOAWAY], 2) == (
        [kind for kind in announced if kind == frames.GOAWAY],
        [kind for kind in ended if kind == frames.GOAWAY],
        calls,
    )
    assert ([1, 3], True) == (answered, one.link.closed)


def test_an_old_connection_does_not_wait_for_ever(wire: Make) -> None:
    """A call that is still open after the grace is taken as over, and its caller hears why: it has done no wrong."""
    one = wire(replace(TIMES, grace=60.0)).greet()
    one.send(whole(1), 0.0)
    for now in (1000.0, 1001.0, 1059.9):
        one.tick(now)
    before = one.calls[0].cancelled
    one.link.tick(1060.0)
    one.link.turn()
    told = {part.kind: part for part in one.frames()}
    ended = dict(read_block(told[frames.HEADERS].payload))

    assert (False, True, True) == (before, one.calls[0].cancelled, one.link.closed)
    assert ("14", "max connection age") == (ended["grpc-status"], ended["grpc-message"])
    assert frames.GOAWAY not in told


def test_an_idle_connection_ends(wire: Make) -> None:
    """One without a call, after a while; a call begins it anew."""
    one = wire(Times(age=10_000.0, idle=100.0, ping=10_000.0)).greet()
    one.send(whole(1), 50.0)
    one.tick(50.0)
    one.answer(10)
    one.frames()
    one.tick(149.9)
    before = one.tick(149.9)

    assert ([], [frames.GOAWAY]) == (before, one.tick(150.0))


def test_a_silent_peer_is_asked_for_a_sign_of_life(wire: Make) -> None:
    """One that gives none is gone, and so are its calls; one that does goes on."""
    one = wire().greet()
    one.send(whole(1), 0.0)
    asked = one.tick(60.0)
    one.send(frame(frames.PING, frames.ACK, 0, bytes(8)), 79.0)
    one.tick(80.0)
    again = one.tick(139.0)
    one.tick(158.9)
    before = one.link.closed
    one.tick(159.0)

    assert (True, True) == (frames.PING in asked, frames.PING in again)
    assert (False, True, True) == (before, one.link.closed, one.calls[0].cancelled)


def test_what_tls_has_proved_holds_for_its_time(wire: Make) -> None:
    """A connection ends with the certificate of its client, announced a second before, and its open calls with it."""
    one = wire().greet()
    one.link.expire(50.0)
    one.send(whole(1), 40.0)
    before = one.tick(48.9)
    announced = one.tick(49.0)
    open_until = one.tick(49.9), one.calls[0].cancelled
    ended = one.tick(50.0)

    assert ([], [frames.GOAWAY], ([], False)) == (before, announced, open_until)
    assert ([frames.GOAWAY], True, True) == (ended, one.calls[0].cancelled, one.link.closed)


def test_a_call_ends_with_its_deadline(wire: Make) -> None:
    """Its link is looked at just then, and tells the caller; a call that has more time goes on."""
    one = wire().greet()
    one.send(whole(1, {"grpc-timeout": "20m"}), 10.0)
    one.send(whole(3, {"grpc-timeout": "1H"}), 10.0)
    asked_for = [*one.late_at]
    one.link.late(10.02)
    one.link.turn()
    answered = [found.stream for found in one.frames() if found.kind == frames.HEADERS]

    assert [10.02, 3610.0] == [round(at, 6) for at in asked_for]
    assert ([1], [True, False], 3610.0) == (answered, [call.cancelled for call in one.calls], one.late_at[-1])


@pytest.mark.parametrize(("proved_for", "closed"), [(1.0, False), (0.0, True), (-1.0, True)])
def test_a_certificate_that_has_expired_proves_nothing(
    wire: Make, tmp_path: Path, proved_for: float, *, closed: bool
) -> None:
    """A TLS session that is resumed brings it, and no call is taken from such a connection."""
    authority = Authority()
    server = TLSContexts(replace(authority.files(tmp_path), client_roots=None)).current()
    context = ssl.create_default_context(cadata=authority.roots.decode())
    # The authority of the tests leaves out what Python 3.13 asks for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["h2"])
    one = wire(secured=server, proved_for=proved_for)
    with context.wrap_socket(one.peer, server_hostname="localhost", do_handshake_on_connect=False) as peer:
        for _ in range(4):
            with suppress(ssl.SSLWantReadError):
                peer.do_handshake()
            one.link.ready(READ, 0.0)
            one.link.turn()

        assert (closed, "h2") == (one.link.closed, peer.selected_alpn_protocol())


def test_a_drained_connection_answers_and_ends(wire: Make) -> None:
    """Its peer is told to begin no more; a connection without calls ends at once."""
    one, idle = wire().greet(), wire().greet()
    one.send(whole(1), 0.0)
    for each in (one, idle):
        each.link.drain(1.0)
        each.link.turn()
    told = [found.kind for found in one.frames()]
    open_before = one.link.closed
    one.calls[0].serve(lambda *_: b"answer", b"")
    one.link.turn()
    answered = [found.payload for found in one.frames() if found.kind == frames.DATA]
    one.tick(1.3)

    assert (True, [frames.GOAWAY], False) == (idle.link.closed, told, open_before)
    assert ([b"\0\0\0\0\x06answer"], True) == (answered, one.link.closed)


def test_a_drained_connection_sends_all_of_its_last_answer(wire: Make) -> None:
    """Whoever reads slowly has what was answered before the end."""
    one = wire().greet()
    one.send(whole(1), 0.0)
    one.link.drain(1.0)
    one.answer(1 << 20)
    for now in (3.0, 3.3, 5.0):
        one.link.tick(now)
        one.link.turn()
    body = sum(len(found.payload) for found in one.frames() if found.kind == frames.DATA)
    one.tick(5.3)

    assert ((1 << 20) + 5, True) == (body, one.link.closed)


def _broken(*_: object) -> None:
    raise RuntimeError("broken")


def test_an_error_in_what_one_call_is_told_is_its_own(wire: Make) -> None:
    """The other calls of its connection are told, the socket is closed, and a call that went on has its answer."""
    one, told = wire().greet(), list[str]()
    for stream in (1, 3, 5):
        one.send(whole(stream), 0.0)
    first, second, third = one.calls
    first.receive(_broken)
    one.link.turn()
    statuses = [read_block(found.payload).get("grpc-status") for found in one.frames() if found.kind == frames.HEADERS]
    second.add_callback(_broken)
    third.add_callback(lambda: told.append("over"))
    one.link.close()

    assert (["13"], ["over"], -1) == (statuses, told, one.link.sock.fileno())


def test_an_answer_that_cannot_be_sent_ends_its_own_call(wire: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers of a turn are given one after another: the one after it goes out."""
    one = wire().greet()
    one.send(whole(1) + whole(3), 0.0)
    first, second = one.calls
    send = one.link.connection.send
    monkeypatch.setattr(one.link.connection, "send", lambda *_: 1 / 0)
    first.answer(b"x")
    monkeypatch.setattr(one.link.connection, "send", send)
    second.answer(b"x")
    one.link.turn()
    told = [(frame.kind, frame.stream) for frame in one.frames()]

    assert (frames.RST_STREAM, 1) in told
    assert [kind for kind, stream in told if stream == 3] == [frames.HEADERS, frames.DATA, frames.HEADERS]
    assert (first.over, second.over, one.link.open_calls) == (True, True, 0)


def test_a_peer_that_is_gone_is_told_of(wire: Make) -> None:
    """Its calls are over, what waits for them is woken, and a callback comes once."""
    one, told, heard = wire().greet(), list[str](), list[bytes | None]()
    one.send(whole(1)[:-1], 0.0)
    call: LoopCall = one.calls[0]
    context: Context = call
    added = context.add_callback(lambda: told.append("over"))
    call.receive(heard.append)
    one.peer.close()
    one.link.ready(READ, 1.0)
    late: list[bytes | None] = []
    call.receive(late.append)

    assert (True, ["over"], [None], [None]) == (added, told, heard, late)
    assert (False, True, False) == (context.is_active(), call.cancelled, context.add_callback(lambda: None))
