# Generated from pdp/client/aio/underway.py by `make client`; never edited.

"""Stop calls that are under way when their session is over: one watch for all calls of a client.

The watch makes it fast and allows nothing. What it may have missed is read session by session.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from pdp.client import threads
from pdp.client.errors import OverloadedError, UnavailableError
from pdp.client.following import Followed, Known
from pdp.client.values import Answer, ToolCallStopped
from pdp.v1.session_pb2 import Session, WatchSessionsResponse

# How often there is a message at least, and the pause before a watch that has ended is opened again.
HEARTBEAT_SECONDS, _REOPEN_SECONDS = 1.0, 1.0
# How often a session is read while there is no watch and while there is one, and how long that may take. A server that
# is read from can know less than the one that is watched, so what was read once does not count for ever.
_LOOK_SECONDS, _READ_AGAIN_SECONDS, _READ_SECONDS = 1.0, 15.0, 2.0


class CallUnderWay:
    """A call that is under way within `with`, which stops when its session is over.

    Entering raises `ToolCallStopped` when it is over already, and `NotFoundError` when this gateway is not told of it.
    """

    def __init__(self, calls: CallsUnderWay, answer: Answer, stopping: threads.Stopping, unheard: float | None) -> None:
        self._calls = calls
        self._stopping = stopping
        self.answer = answer
        self.unheard = unheard
        # Why it must stop; empty while it may go on.
        self.why = ""

    def __enter__(self) -> Self:
        self._stopping.begin()
        self._calls.enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._calls.leave(self)
        if not self._stopping.interrupted(kind) and self.why:
            raise ToolCallStopped(self.answer, self.why) from None

    def on_stop(self, stop: Callable[[], object]) -> None:
        """Have `stop` called, which must not wait, when the call must stop; at once if it must already."""
        self._stopping.set(stop)

    def stop(self, why: str) -> None:
        """Stop it, once."""
        if not self.why:
            self.why = why
            self._stopping.stop()


class CallsUnderWay:
    """The calls of one client that are under way. Threads can share it.

    `begin` opens a watch from a revision on, and `read` reads one session within some seconds. `clock` returns seconds,
    and `wall` unix seconds. The watch is open from the first call until `close`.
    """

    def __init__(
        self,
        begin: Callable[[str], threads.Feed],
        read: Callable[[str, float], Session],
        *,
        clock: Callable[[], float],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._begin = begin
        self._read = read
        self._clock = clock
        self._wall = wall
        # Guards what follows; nothing waits while it is held.
        self._mutex = threads.Mutex()
        self._calls: list[CallUnderWay] = []
        self._followed = Followed()
        self._watch: _Watch | None = None

    def enter(self, call: CallUnderWay) -> None:
        """Begin to follow a call."""
        session_id = call.answer.session_id
        with self._mutex:
            watch, unread = self._watching(), self._followed.must_be_read(session_id, self._wall())
        if unread:
            # Whoever is not told of the session learns it before the tool is called.
            with suppress(UnavailableError, OverloadedError):
                self._read_now(session_id)
        with self._mutex:
            # From here on it is stopped by what the watch tells.
            self._calls.append(call)
            call.why = call.why or self._why(call, watch)
        if call.why:
            self.leave(call)
            raise ToolCallStopped(call.answer, call.why)
        watch.wake.set()

    def leave(self, call: CallUnderWay) -> None:
        """Follow a call no longer."""
        with self._mutex:
            if call in self._calls:
                self._calls.remove(call)

    def close(self) -> None:
        """End the watch; calls that are under way go on."""
        with self._mutex:
            watch, self._watch = self._watch, None
            self._calls.clear()
        if watch is not None:
            watch.end()
            for background in watch.backgrounds:
                background.join()

    def _watching(self) -> _Watch:
        if self._watch is None:
            self._watch = _Watch(self._clock())
            self._watch.backgrounds = [
                threads.Background(work, self._watch) for work in (self._follow, self._look_again)
            ]
        return self._watch

    def _follow(self, watch: _Watch) -> None:
        """Read the watch until it is over, and open it again when it ends."""
        while not watch.over:
            with suppress(Exception):  # whatever ends a watch: meanwhile sessions are read one by one
                self._messages(watch)
            if not watch.up:
                # The server may not take the revision.
                watch.revision = ""
            watch.up = False
            watch.wake.set()
            watch.pause.wait(_REOPEN_SECONDS)

    def _messages(self, watch: _Watch) -> None:
        watch.feed = self._begin(watch.revision)
        try:
            while not watch.over and (message := watch.feed.next()) is not None:
                self._take(watch, message)
        finally:
            watch.feed.cancel()

    def _take(self, watch: _Watch, message: WatchSessionsResponse) -> None:
        with self._mutex:
            if message.reset or not watch.revision:
                # What happened before such a message is not told.
                self._followed.forget()
            self._followed.take(message)
            watch.revision, watch.up = message.revision, True
            watch.known_at = self._clock() - message.age.ToMicroseconds() / 1e6
        self._stop_what_is_over(watch)
        watch.wake.set()

    def _look_again(self, watch: _Watch) -> None:
        """Read sessions that the watch does not tell of now, and stop what is over."""
        while not watch.over:
            for session_id in self._unread(watch):
                with suppress(Exception):  # whatever it is: it is read again
                    self._read_now(session_id)
            self._stop_what_is_over(watch)
            watch.wake.wait(_LOOK_SECONDS)

    def _unread(self, watch: _Watch) -> set[str]:
        now = self._clock()
        with self._mutex:
            again = not watch.up or now >= watch.read_again_at
            if again:
                watch.read_again_at = now + _READ_AGAIN_SECONDS
            ids = {call.answer.session_id for call in self._calls}
            return {one for one in ids if again or self._followed.must_be_read(one, self._wall())}

    def _read_now(self, session_id: str) -> None:
        """Read a session, and note how it is."""
        with self._mutex:
            before = self._followed.forgotten
        session = self._read(session_id, _READ_SECONDS)
        found = Known.of(session)
        with self._mutex:
            # That it goes on may be from before what was forgotten meanwhile, and is then read again.
            if found.why or self._followed.forgotten == before:
                self._followed.note(session.session_id, found)

    def _stop_what_is_over(self, watch: _Watch) -> None:
        with self._mutex:
            over = [(call, why) for call in self._calls if (why := self._why(call, watch))]
            self._followed.keep({call.answer.session_id for call in self._calls})
        for call, why in over:
            call.stop(why)

    def _why(self, call: CallUnderWay, watch: _Watch) -> str:
        if call.unheard is not None and self._clock() - watch.known_at > call.unheard:
            return f"nothing was heard of its session for {call.unheard:g} s"
        return self._followed.why_over(call.answer.session_id)


class _Watch:
    """One watch: whether it is `up` or `over`, its latest `revision`, and until when everything is known."""

    def __init__(self, known_at: float) -> None:
        self.up = self.over = False
        self.revision = ""
        self.known_at = known_at
        self.read_again_at = known_at + _READ_AGAIN_SECONDS
        self.feed: threads.Feed | None = None
        self.pause, self.wake = threads.Signal(), threads.Signal()
        self.backgrounds: list[threads.Background] = []

    def end(self) -> None:
        """End the watch, without waiting for it."""
        self.over = True
        self.pause.set()
        self.wake.set()
        if self.feed is not None:
            self.feed.cancel()
        for background in self.backgrounds:
            background.cancel()
