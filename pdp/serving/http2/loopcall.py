"""A call on the loop, as the boundary has it: how it begins, while it is answered, and its answers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Final, NoReturn, Protocol, TypeVarTuple

from grpc import StatusCode

from pdp.identity.authentication import Peer
from pdp.serving.http2.connection import GRPCConnection
from pdp.serving.http2.stream import Stream
from pdp.serving.transport import Behavior

_LOG = logging.getLogger("pdp.server")

Ts = TypeVarTuple("Ts")

_WELL: Final = StatusCode.OK, ""


class Place(Protocol):
    """Where a call comes from: a connection and the thread that serves it."""

    connection: GRPCConnection
    address: str
    proof: Peer
    # Guards the callbacks of its calls.
    callbacks: threading.Lock

    def run(self, work: Callable[[], None]) -> None:
        """Run work on the thread of the connection: at once on that thread, otherwise soon, and always in order."""
        ...

    def forget(self, call: LoopCall) -> None:
        """Forget a call that is over, on the thread of the connection."""
        ...


class _AbortedError(Exception):
    """The call is to end with a status."""


class _CallerLeftError(Exception):
    """Nobody waits for an answer any more."""


class LoopCall:
    """A call. What begins with `_now` runs on the thread of its connection, all else on any."""

    __slots__ = (
        "_callbacks",
        "_ended",
        "_idle",
        "_left",
        "_place",
        "_status",
        "_stream",
        "_then",
        "_trailing",
        "metadata",
        "number",
    )
    in_turns: Final = True

    def __init__(self, place: Place, stream: Stream) -> None:
        self._place, self._stream = place, stream
        self.number, self.metadata = stream.id, stream.metadata
        self._then: Callable[[bytes | None], None] | None = None
        # They are None once the call is over.
        self._callbacks: list[Callable[[], None]] | None = []
        # Made with the first of several answers: most calls have one, and it costs a microsecond.
        self._idle: threading.Event | None = None
        self._left = self._ended = False
        self._status = _WELL
        self._trailing: Sequence[tuple[str, str | bytes]] = ()

    # How it begins.

    @property
    def cancelled(self) -> bool:
        """Say whether the caller has left the call."""
        return self._left

    def answer(self, wire: bytes) -> None:
        """Answer with one message. Raises nothing: the answers to other calls come after it."""
        if not self._told(self._end_now, wire):
            self._told(self._cancel_now)

    def at_hand(self) -> bytes | None:
        """Return the message if it came with the call, on the thread of the connection; None for one to `receive`."""
        return self._place.connection.take(self._stream) if self._stream.ready else None

    def receive(self, then: Callable[[bytes | None], None]) -> None:
        """Call `then` with the next message, or None without one, on the thread of the connection."""

        def take() -> None:
            self._stream.asked = True
            self._then = then
            self.heard_now()

        self._place.run(take)

    def begin(self) -> LoopCall:
        """Begin to answer with messages that are sent without waiting."""
        return self

    def serve(self, behavior: Behavior, wire: bytes) -> None:
        """Answer with what `behavior` makes of a message."""
        self._answer(behavior, wire)

    def refuse(self, code: StatusCode, details: str) -> None:
        """End a call that nothing answers."""
        self._status = code, details
        self._place.run(self._end_now)

    def exchange(self, behavior: Behavior) -> None:
        """Answer with what `behavior` makes of the messages of a stream."""
        self._answer(behavior, self._messages())

    # While it is answered.

    def is_active(self) -> bool:
        """Say whether the caller still waits for an answer."""
        return not self.over

    def time_remaining(self) -> float:
        """Return for how many seconds the caller still waits."""
        return max(0.0, self._stream.deadline_at - time.monotonic())

    def peer(self) -> str:
        """Return the address of the peer as gRPC writes it."""
        return self._place.address

    def auth_context(self) -> Peer:
        """Return what TLS has proved about the peer."""
        return self._place.proof

    def cancel(self) -> None:
        """End the call without a word."""
        self._place.run(self._cancel_now)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Have `callback` called when the call is over; return False when it already is."""
        with self._place.callbacks:
            if self._callbacks is None:
                return False
            self._callbacks.append(callback)
            return True

    def set_trailing_metadata(self, trailing_metadata: Sequence[tuple[str, str | bytes]]) -> None:
        """Set what goes out with the status."""
        self._trailing = trailing_metadata

    def abort(self, code: StatusCode, details: str) -> NoReturn:
        """End the call with a status."""
        self._status = code, details
        raise _AbortedError

    # Its answers.

    @property
    def over(self) -> bool:
        """Say whether the call has ended."""
        return self._left or self._ended

    @property
    def idle(self) -> bool:
        """Say whether the peer's window has let through the last message."""
        return self._idle is None or self._idle.is_set()

    def send(self, wire: bytes) -> None:
        """Send a message, unless the call is over. It must be `idle`."""
        if self._idle is None:
            self._idle = threading.Event()
        self._idle.clear()
        self._place.run(partial(self._send_now, wire))

    # What its connection tells.

    def heard_now(self) -> None:
        """Pass on a message, or the end of them, to whom waits for it."""
        stream, then = self._stream, self._then
        if then is None or not (stream.over or stream.ready):
            return
        self._then = None
        message = None if stream.over else self._place.connection.take(stream)
        if not self._told(then, message):
            self.refuse(StatusCode.INTERNAL, "internal error")

    def left_now(self) -> None:
        """Take note that the caller has left."""
        self._left = not self._ended
        self._over_now()

    def read_now(self) -> None:
        """Take note of what the peer's window has let through."""
        if not self.idle and self._place.connection.all_taken(self._stream):
            self._set_idle()

    def _set_idle(self) -> None:
        if self._idle is not None:
            self._idle.set()

    def _send_now(self, wire: bytes) -> None:
        if self._stream.over:
            self._set_idle()
        else:
            self._place.connection.send(self._stream, wire)

    def _end_now(self, wire: bytes | None = None) -> None:
        stream, connection = self._stream, self._place.connection
        if not stream.over:
            self._ended = True
            if wire is not None:
                connection.send(stream, wire)
            code, text = self._status
            connection.end(stream, code, text, self._trailing)
            self._over_now()

    def _cancel_now(self) -> None:
        if not self._stream.over:
            self._place.connection.cancel(self._stream)
            self.left_now()

    def _over_now(self) -> None:
        self._place.forget(self)
        self._set_idle()
        with self._place.callbacks:
            callbacks, self._callbacks = self._callbacks or (), None
        for callback in callbacks:
            self._told(callback)
        if self._then is not None:
            self.heard_now()

    def _told(self, tell: Callable[[*Ts], None], *args: *Ts) -> bool:
        """Tell what works on the call; return False for an error in that, which is no concern of other calls."""
        try:
            tell(*args)
        except Exception:  # noqa: BLE001 - an error of one call or connection must not end the loop, and with it the server
            _LOG.exception("a call to `%s` could not be told what has come of it", self._stream.path)
            return False
        return True

    # How it is answered.

    def _answer(self, behavior: Behavior, message: bytes | Iterator[bytes]) -> None:
        try:
            answer = behavior(message, self)
            if isinstance(answer, bytes):
                self._place.run(partial(self._end_now, answer))
                return
            self._send_all(answer)
        except _AbortedError:
            pass
        except _CallerLeftError:
            return
        except Exception:  # noqa: BLE001 - its caller must hear of an end, whatever the handler did
            self._status, self._trailing = (StatusCode.INTERNAL, "internal error"), ()
            _LOG.exception("a call to `%s` could not be answered", self._stream.path)
        self._place.run(self._end_now)

    def _send_all(self, answers: Iterator[bytes]) -> None:
        """Send answers one after another, each when the peer has taken the one before."""
        for wire in answers:
            if self._idle is not None:
                self._idle.wait()
            if self.over:
                close = getattr(answers, "close", None)
                if close is not None:
                    close()
                raise _CallerLeftError
            self.send(wire)

    def _messages(self) -> Iterator[bytes]:
        """Yield the messages of a stream, and wait for each."""
        arrived = SimpleQueue[bytes | None]()
        while True:
            self.receive(arrived.put)
            wire = arrived.get()
            if wire is None:
                if self._left:
                    raise _CallerLeftError
                return
            yield wire
