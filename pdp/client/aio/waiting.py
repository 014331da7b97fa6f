"""Wait until people have answered access requests: one watch for all calls of a client that wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

from pdp.client import tasks
from pdp.client.approvals import waits
from pdp.client.errors import OverloadedError, UnavailableError
from pdp.v1.access_pb2 import RequestedAccess

# How often a call that waits reads its request: while there is a watch, which misses what only expires, and without.
_WATCHED_SECONDS, _UNWATCHED_SECONDS = 15.0, 1.0
# The pause before a watch that has ended is opened again.
_REOPEN_SECONDS = 5.0


class AsyncAccessAnswers:
    """The answers of people, for one client. Tasks can share it.

    `begin` opens a watch of all requests of this caller, and `read` reads one request within some seconds. A watch is
    open while a call waits. It only says when to read: what counts is what `read` returns.
    """

    def __init__(
        self,
        begin: Callable[[], tasks.Feed],
        read: Callable[[str, float], Awaitable[RequestedAccess]],
        *,
        clock: Callable[[], float],
    ) -> None:
        self._begin = begin
        self._read = read
        self._clock = clock
        # Guards the two that follow.
        self._lock = tasks.Lock()
        self._waiting: list[_Waiting] = []
        self._watch: _Watch | None = None

    async def of(self, access_request_id: str, seconds: float) -> RequestedAccess:
        """Return a request once it no longer waits, or as it is after some seconds.

        Raise `PDPClientError` when it cannot be read.
        """
        waiting = _Waiting(access_request_id)
        await self._enter(waiting)
        try:
            return await self._answered(waiting, self._clock() + seconds)
        finally:
            await self._leave(waiting)

    async def close(self) -> None:
        """End the watch; calls that wait read their requests once more."""
        async with self._lock:
            watch, self._watch = self._watch, None
        if watch is not None and watch.background is not None:
            watch.end()
            await watch.background.join()

    async def _answered(self, waiting: _Waiting, deadline: float) -> RequestedAccess:
        while True:
            remaining = deadline - self._clock()
            try:
                found = await self._read(waiting.id, max(remaining, _UNWATCHED_SECONDS))
                if remaining <= 0 or not waits(found):
                    return found
            except (UnavailableError, OverloadedError):
                # A server that is away for a moment has not answered for the person.
                if remaining <= 0:
                    raise
            watched = self._watch is not None and self._watch.up
            pause = _WATCHED_SECONDS if watched else _UNWATCHED_SECONDS
            await waiting.signal.wait(max(0.0, min(pause, deadline - self._clock())))

    async def _enter(self, waiting: _Waiting) -> None:
        async with self._lock:
            self._waiting.append(waiting)
            if self._watch is None:
                self._watch = _Watch()
                self._watch.background = tasks.Background(self._follow, self._watch)

    async def _leave(self, waiting: _Waiting) -> None:
        async with self._lock:
            self._waiting.remove(waiting)
            watch = None if self._waiting else self._watch
            if watch is not None:
                self._watch = None
        if watch is not None:
            watch.end()

    async def _follow(self, watch: _Watch) -> None:
        """Read a watch until it is over, and open it again when it ends."""
        while not watch.over:
            with suppress(Exception):  # whatever ends a watch: meanwhile each call reads its own request
                await self._messages(watch)
            watch.up = False
            self._wake()
            await watch.pause.wait(_REOPEN_SECONDS)

    async def _messages(self, watch: _Watch) -> None:
        watch.feed = self._begin()
        try:
            while not watch.over and (message := await watch.feed.next()) is not None:
                if message.complete and not watch.up:
                    # What was answered before the watch began is not in it.
                    watch.up = True
                    self._wake()
                for request in message.access_requests:
                    if not waits(request):
                        self._wake(request.access_request_id)
        finally:
            watch.feed.cancel()

    def _wake(self, access_request_id: str = "") -> None:
        for waiting in tuple(self._waiting):
            if access_request_id in ("", waiting.id):
                waiting.signal.set()


class _Waiting:
    """A call that waits for the answer to a request."""

    def __init__(self, access_request_id: str) -> None:
        self.id = access_request_id
        self.signal = tasks.Signal()


class _Watch:
    """One watch: whether it is `up`, and whether it is `over`."""

    def __init__(self) -> None:
        self.up = self.over = False
        self.feed: tasks.Feed | None = None
        self.pause = tasks.Signal()
        self.background: tasks.Background | None = None

    def end(self) -> None:
        """End the watch, without waiting for it."""
        self.over = True
        self.pause.set()
        if self.feed is not None:
            self.feed.cancel()
        if self.background is not None:
            self.background.cancel()
