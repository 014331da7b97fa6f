"""A connection on a socket: its TLS, what comes and goes, and when it ends. Only the loop's thread uses it."""

from __future__ import annotations

import logging
import math
import random
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from pdp.identity.authentication import Peer
from pdp.serving.http2.bounds import Bounds, Times
from pdp.serving.http2.connection import GRPCConnection
from pdp.serving.http2.loopcall import LoopCall
from pdp.serving.http2.stream import Stream
from pdp.serving.http2.tlssocket import RECORD_BYTES, TLSSocket

_LOG = logging.getLogger("pdp.server")

# What to wait for, as `poll` has it, and epoll too.
READ: Final = select.POLLIN
WRITE: Final = select.POLLOUT
_READ_BYTES: Final = RECORD_BYTES
# Reads of one connection in a turn of the loop, and after how many seconds it makes no more, so that the others have
# theirs: frames of one byte take a hundred times as long as the same bytes in one frame.
_READS: Final = 32
_READING_SECONDS: Final = 0.002
# Beyond this nothing more is read from a peer that does not take what it is sent.
_MOST_UNSENT: Final = 256 * 1024
_JITTER: Final = 0.1
_AGAIN: Final = (BlockingIOError, InterruptedError)


class Keeper(Protocol):
    """What a link needs of the loop that it is on."""

    def run(self, work: Callable[[], None], link: Link) -> None:
        """Run work for a link on the thread of the loop, and `touch` the link."""
        ...

    def interest(self, link: Link, events: int) -> None:
        """Wait for these events of a link's socket."""
        ...

    def touch(self, link: Link) -> None:
        """Have `turn` of a link called at the end of this turn of the loop."""
        ...

    def due(self, link: Link, at: float) -> None:
        """Have `late` of a link called at a time, if that comes before its next `tick`."""
        ...

    def gone(self, link: Link) -> None:
        """Forget a link, whose socket is closed."""
        ...


Enter = Callable[[str, LoopCall], None]


class Link:
    """One connection. `enter` takes each call that begins; `proved` reads what TLS has proved about the peer."""

    def __init__(
        self,
        sock: socket.socket | TLSSocket,
        address: str,
        *,
        keeper: Keeper,
        connection: Callable[[Link], GRPCConnection],
        enter: Enter,
        proved: Callable[[TLSSocket], tuple[Peer, float]],
        bounds: Bounds,
        times: Times,
        now: float,
    ) -> None:
        self.sock = sock
        self.address = address
        self.proof: Peer = {}
        self.callbacks = threading.Lock()
        self.connection = connection(self)
        self._keeper, self._enter, self._proved = keeper, enter, proved
        self._bounds, self._times = bounds, times
        self._calls: dict[int, LoopCall] = {}
        self._out = memoryview(b"")
        self._plain = not isinstance(sock, TLSSocket)
        self._shaking = not self._plain
        self._began_at, self._heard_at, self._busy_at, self._moved_at = now, now, now, now
        self._ends_at = now + times.age * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret
        self._proof_ends_at = math.inf
        self._announced_at = self._left_at = self._pinged_at = 0.0
        self._moved, self._sent = (0, 0), 0
        self._events = 0
        self._want_write = False
        self.closed = False

    @property
    def open_calls(self) -> int:
        """Return how many calls are open."""
        return len(self._calls)

    @property
    def waiting(self) -> int:
        """Return how many bytes wait for the peer."""
        return self._unsent + self.connection.waiting

    @property
    def _unsent(self) -> int:
        return len(self._out) + self.connection.unsent

    def run(self, work: Callable[[], None]) -> None:
        """Run work for a call of this connection on the loop's thread, and send what it leaves."""
        self._keeper.run(work, self)

    def forget(self, call: LoopCall) -> None:
        """Forget a call that is over."""
        self._calls.pop(call.number, None)

    # What the connection tells.

    def begun(self, stream: Stream) -> None:
        """Take a call whose headers have come."""
        self._keeper.due(self, stream.deadline_at)
        call = self._calls[stream.id] = LoopCall(self, stream)
        self._enter(stream.path, call)

    def heard(self, stream: Stream) -> None:
        """Tell a call that a message has come."""
        self._calls[stream.id].heard_now()

    def left(self, stream: Stream) -> None:
        """Tell a call that its caller has left."""
        self._calls[stream.id].left_now()

    # What the loop does.

    def ready(self, events: int, now: float) -> bool:
        """Read what has come; return True when there is more to read at once."""
        if events & ~READ:
            self._want_write = False
        self._keeper.touch(self)
        try:
            if self._shaking and not self._shake(now):
                return False
            return bool(self._events & READ) and self._read(now)
        except _AGAIN:
            return False
        except OSError:
            self.close()
            return False

    def turn(self) -> None:
        """Send what there is to send, and wait for what is expected of the peer."""
        if self.closed:
            return
        try:
            if not self._shaking:
                self._write()
        except OSError:
            self.close()
            return
        if self.connection.closing and not len(self._out):
            self.close()
            return
        blocked = self._want_write or len(self._out) > 0
        events = WRITE if blocked else 0
        # What is not blocked has left nothing unsent. While TLS has to write first, nothing that has come can be read,
        # and the loop would turn and turn for it.
        if not (self._want_write or self.connection.closing) and (not blocked or self._unsent <= _MOST_UNSENT):
            events |= READ
        if events != self._events:
            self._events = events
            self._keeper.interest(self, events)

    def tick(self, now: float) -> None:
        """End what has taken too long."""
        times = self._times
        if not self.connection.greeted:
            if now - self._began_at >= times.handshake:
                self.close()
            return
        if now >= self._proof_ends_at:
            self.connection.drain()
            self.connection.close()
        self.connection.tick(now)
        self._keeper.due(self, self.connection.next_deadline)
        self._watch_reading(now)
        if self._calls or self.connection.in_progress:
            self._busy_at = now
        if self.connection.closing:
            # What is left to say has a moment.
            self._left_at = self._left_at or now
            if now - self._left_at >= times.announced:
                self.close()
                return
        elif self._announced_at:
            self._go(now)
        elif now >= self._ends_at or now - self._busy_at >= times.idle:
            self._announced_at = now
            self.connection.announce()
        elif now - self._heard_at >= times.ping:
            self._ask(now)
        self._keeper.touch(self)

    def late(self, now: float) -> None:
        """End the calls whose deadline has passed."""
        self.connection.end_late(now)
        self._keeper.due(self, self.connection.next_deadline)
        self._keeper.touch(self)

    def drain(self, now: float) -> None:
        """Tell the peer to begin no more calls; end when those in progress are answered."""
        if self.connection.greeted and not self.connection.closing:
            self._announced_at = self._left_at = now
            self.connection.drain()
            if not self.connection.in_progress and not self.waiting:
                self.connection.close()
            self._keeper.touch(self)
        else:
            self.close()

    def expire(self, ends_at: float) -> None:
        """End with all calls at a time, announced before: then what TLS has proved holds no more."""
        self._proof_ends_at = ends_at
        self._ends_at = min(self._ends_at, ends_at - self._times.announced)

    def close(self) -> None:
        """Close the socket, and tell the calls in progress that their caller has left."""
        if self.closed:
            return
        self.closed = True
        self.connection.close()
        self._keeper.gone(self)
        self.sock.close()

    def _shake(self, now: float) -> bool:
        sock = self.sock
        assert isinstance(sock, TLSSocket)  # noqa: S101 - only such a one shakes hands
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLWantWriteError:
            self._want_write = True
            return False
        if sock.selected_alpn_protocol() != "h2":
            self.close()
            return False
        self.proof, ends_in = self._proved(sock)
        if ends_in <= 0:
            # Who resumes a session brings the certificate of its first handshake, and OpenSSL does not verify it again.
            self.close()
            return False
        self.expire(now + ends_in)
        self._shaking = False
        return True

    def _read(self, now: float) -> bool:
        until = time.monotonic() + _READING_SECONDS
        for _ in range(_READS):
            try:
                data = self.sock.recv(_READ_BYTES)
            except (ssl.SSLWantReadError, *_AGAIN):
                return False
            except ssl.SSLWantWriteError:
                self._want_write = True
                return False
            if not data:
                self.close()
                return False
            self._heard_at, self._pinged_at = now, 0.0
            self.connection.receive(data, now)
            if self._plain and len(data) < _READ_BYTES:
                return False
            if self.closed or self.connection.closing or self._unsent > _MOST_UNSENT:
                return False
            if time.monotonic() > until:
                break
        return True

    def _write(self) -> None:
        """Send what is left of before, and what the connection has now; tell calls what has been let through."""
        if len(self._out) and not self._flush():
            return
        self._out = memoryview(self.connection.outgoing())
        self._flush()
        # Also while the socket is full: the answers to others can keep it so, however much the peer reads.
        for call in tuple(self._calls.values()):
            call.read_now()

    def _flush(self) -> bool:
        """Send what is written; say whether the socket has taken all of it."""
        while len(self._out):
            try:
                sent = self.sock.send(self._out)
            except (ssl.SSLWantWriteError, *_AGAIN):
                return False
            self._sent += sent
            self._out = self._out[sent:]
        return True

    def _watch_reading(self, now: float) -> None:
        """End a connection whose peer does not take what it is sent."""
        moved = self.connection.taken, self._sent
        if moved != self._moved or not self.waiting:
            self._moved, self._moved_at = moved, now
        still = now - self._moved_at
        if self.waiting > self._bounds.waiting_bytes and still >= self._bounds.waiting_seconds:
            self.connection.leave()
        elif len(self._out) and still >= self._bounds.reading_seconds:
            self.close()
        elif self.waiting and still >= self._bounds.reading_seconds:
            # Its socket takes what it is told; its windows do not.
            self.connection.leave()

    def _go(self, now: float) -> None:
        """Go on with the end of a connection that was announced."""
        times = self._times
        if not self._left_at and now - self._announced_at >= times.announced:
            self._left_at = now
            self.connection.drain()
        if self._left_at and not self.connection.in_progress and not self._calls and not self.waiting:
            self.connection.close()
        elif now - self._announced_at >= times.grace:
            self.connection.end_aged()

    def _ask(self, now: float) -> None:
        if not self._pinged_at:
            self._pinged_at = now
            self.connection.ping()
        elif now - self._pinged_at >= self._times.ping_answer:
            self.close()
