"""The loop: one thread that serves the connections of a listener, and hands calls to the threads of their lanes."""

from __future__ import annotations

import logging
import math
import os
import select
import socket
import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, TypeVarTuple

from pdp.foundation.threads import start_on_large_stack
from pdp.serving.http2.link import READ, Link
from pdp.serving.http2.tlssocket import TLSSocket

_LOG = logging.getLogger("pdp.server")

# `selectors` would take twice the time, with each turn. Only epoll counts in seconds.
if sys.platform == "linux":
    _Poller, _SECOND = select.epoll, 1
else:
    _Poller, _SECOND = select.poll, 1000

_TICK_SECONDS: Final = 0.25
# Connections that are taken in one turn.
_ACCEPTS: Final = 64

Ts = TypeVarTuple("Ts")
Open = Callable[[socket.socket, str, "Loop", float], Link]


class Loop:
    """A thread with the sockets of a listener. `opened` makes a link of a connection that was accepted.

    `turn_over` is called when all that has come by now was read, and each time before answers are sent; `answers_left`
    when they are. All peers together may let `most_waiting` bytes wait, and have `most_links` connections.
    """

    def __init__(
        self,
        listening: Sequence[socket.socket],
        opened: Open,
        *,
        turn_over: Callable[[], None] = lambda: None,
        answers_left: Callable[[], None] = lambda: None,
        most_links: int,
        most_waiting: int,
    ) -> None:
        self._listening = listening
        self._opened = opened
        self._turn_over, self._answers_left = turn_over, answers_left
        self._most_links, self._most_waiting = most_links, most_waiting
        self._poller = _Poller()
        # By the number of their sockets: what is waited for.
        self._watched: dict[int, Link | socket.socket] = {}
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.settimeout(0.0)
        self._wake_write.settimeout(0.0)
        self._watch(self._wake_read, self._wake_read, READ)
        # INVARIANT: other threads append first and look at `_sleeping` then; the loop does both in the other order.
        self._work: deque[tuple[Callable[[], None], Link | None]] = deque()
        self._sleeping = self._over = False
        self._links: set[Link] = set()
        self._again: set[Link] = set()
        self._touched: dict[Link, None] = {}
        # Deadlines of calls that come before the next tick: the earliest of each link.
        self._due: dict[Link, float] = {}
        self._next_tick = 0.0
        self._accepts = False
        self._ends_at = math.inf
        self._thread = threading.Thread(target=self._run, name="pdp-loop", daemon=True)
        self._ident = 0

    @property
    def open_calls(self) -> int:
        """Return how many calls are open."""
        return sum(link.open_calls for link in tuple(self._links))

    def start(self) -> None:
        """Serve."""
        start_on_large_stack(self._thread)

    def stop(self, grace: float) -> None:
        """Take no connection and no call any more, end after `grace` seconds at most, and wait for that."""
        if self._thread.ident is not None:
            self.run(partial(self._drain, grace))
            self._thread.join()
        elif not self._over:
            self._release()

    def run(self, work: Callable[[], None], link: Link | None = None) -> None:
        """Run work on the loop's thread, and then touch a link: at once on that thread, otherwise soon, in order."""
        if threading.get_ident() == self._ident:
            self._work_now(work, link)
            return
        self._work.append((work, link))
        if self._over:
            # All calls are over: this tells whom it concerns.
            self._do_work()
        elif self._sleeping:
            try:
                self._wake_write.send(b"\0")
            except OSError:
                return  # it is awake as often as it needs to be, or has ended

    # What links ask for.

    def interest(self, link: Link, events: int) -> None:
        """Wait for these events of a link's socket."""
        self._watch(link.sock, link, events)

    def touch(self, link: Link) -> None:
        """Have a link send what it has at the end of this turn."""
        self._touched[link] = None

    def due(self, link: Link, at: float) -> None:
        """Have `late` of a link called at a time, if that comes before its next `tick`."""
        if at < self._next_tick:
            self._due[link] = min(at, self._due.get(link, at))

    def gone(self, link: Link) -> None:
        """Forget a link."""
        self.interest(link, 0)
        self._due.pop(link, None)
        self._links.discard(link)
        self._again.discard(link)
        self._touched.pop(link, None)

    def _watch(self, sock: socket.socket | TLSSocket, of: Link | socket.socket, events: int) -> None:
        number = sock.fileno()
        if not events:
            if self._watched.pop(number, None) is not None:
                self._poller.unregister(number)
        elif number in self._watched:
            self._poller.modify(number, events)
        else:
            self._poller.register(number, events)
            self._watched[number] = of

    def _run(self) -> None:
        self._ident = threading.get_ident()
        self._accept(on=True)
        self._next_tick = time.monotonic() + _TICK_SECONDS
        while self._links or self._ends_at == math.inf:
            self._turn()
            self._guarded(self._turn_over)
            now = time.monotonic()
            if now >= self._next_tick:
                self._next_tick = now + _TICK_SECONDS
                self._tick(now)
            elif self._due:
                self._end_late(now)
            self._send()
            self._guarded(self._answers_left)
        self._release()

    def _turn(self) -> None:
        self._sleeping = True
        wakes_at = min(self._due.values()) if self._due else self._next_tick
        timeout = 0.0 if self._work or self._again else max(0.0, wakes_at - time.monotonic())
        found = self._poller.poll(timeout * _SECOND)
        self._sleeping = False
        now = time.monotonic()
        again, self._again = self._again, set()
        for number, events in found:
            of = self._watched.get(number)
            if isinstance(of, Link):
                again.discard(of)
                self._serve(of, events, now)
            elif of is self._wake_read:
                self._wake_read.recv(4096)
            elif of is not None:
                self._take(of, now)
        for link in again:
            self._serve(link, READ, now)
        if self._work:
            self._do_work()

    def _serve(self, link: Link, events: int, now: float) -> None:
        if self._carefully(link, link.ready, events, now):
            self._again.add(link)

    def _end_late(self, now: float) -> None:
        for link in [one for one, at in self._due.items() if at <= now]:
            del self._due[link]
            self._carefully(link, link.late, now)

    def _tick(self, now: float) -> None:
        self._due.clear()
        for link in tuple(self._links):
            self._carefully(link, link.tick, now)
        while sum(link.waiting for link in self._links) > self._most_waiting:
            max(self._links, key=lambda link: link.waiting).close()
        if now >= self._ends_at:
            for link in tuple(self._links):
                link.close()
        elif self._ends_at == math.inf:
            self._accept(on=True)

    def _send(self) -> None:
        while self._touched:
            # Also what began since: a call that ends late, or with its connection, can let another one go on.
            self._guarded(self._turn_over)
            touched, self._touched = self._touched, {}
            for link in touched:
                self._carefully(link, link.turn)

    def _take(self, listening: socket.socket, now: float) -> None:
        for _ in range(_ACCEPTS):
            try:
                sock, peer = listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                # Too many files are open, for example: others may end until the next tick.
                _LOG.warning("no connection can be accepted now: %s", error)
                self._accept(on=False)
                return
            self._guarded(self._open, sock, peer, now)

    def _open(self, sock: socket.socket, peer: object, now: float) -> None:
        if len(self._links) >= self._most_links:
            sock.close()
            return
        try:
            sock.settimeout(0.0)
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = self._opened(sock, address_of(sock.family, peer), self, now)
        except (OSError, ssl.SSLError):
            sock.close()
            return
        self._links.add(link)
        self.touch(link)

    def _accept(self, *, on: bool) -> None:
        if on == self._accepts:
            return
        self._accepts = on
        for sock in self._listening:
            self._watch(sock, sock, READ if on else 0)

    def _drain(self, grace: float) -> None:
        self._accept(on=False)
        for sock in self._listening:
            sock.close()
        now = time.monotonic()
        self._ends_at = now + grace
        for link in tuple(self._links):
            if grace > 0:
                link.drain(now)
            else:
                link.close()

    def _release(self) -> None:
        self._over = True
        self._do_work()
        del self._poller
        self._wake_read.close()
        self._wake_write.close()

    def _do_work(self) -> None:
        for _ in range(len(self._work)):
            with suppress(IndexError):
                self._guarded(self._work_now, *self._work.popleft())

    def _work_now(self, work: Callable[[], None], link: Link | None) -> None:
        work()
        if link is not None:
            self.touch(link)

    def _carefully(self, link: Link, work: Callable[[*Ts], object], *args: *Ts) -> bool:
        """Do what a link has to do; an error in it ends the link alone."""
        try:
            return bool(work(*args))
        except Exception:  # noqa: BLE001 - an error of one call or connection must not end the loop, and with it the server
            _LOG.exception("a connection could not be served")
            link.close()
            return False

    def _guarded(self, work: Callable[[*Ts], None], *args: *Ts) -> None:
        try:
            work(*args)
        except Exception:  # noqa: BLE001 - an error of one call or connection must not end the loop, and with it the server
            _LOG.exception("a connection could not be served")


def address_of(family: int, peer: object) -> str:
    """Return the address of a peer as gRPC writes it."""
    if isinstance(peer, tuple):
        host, port = peer[:2]
        return f"ipv6:[{host}]:{port}" if family == socket.AF_INET6 else f"ipv4:{host}:{port}"
    return f"unix:{os.fsdecode(peer) if isinstance(peer, bytes) else peer or ''}"
