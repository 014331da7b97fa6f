"""One connection that serves calls of gRPC, without I/O: bytes in, calls out; answers in, bytes out.

Every bound of a peer is kept here, before a call reaches a thread or a queue. The time is a parameter, in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from grpc import StatusCode

from pdp.serving.http2 import metadata
from pdp.serving.http2.bounds import Bounds
from pdp.serving.http2.engine import BrokenPeerError, Engine, Header
from pdp.serving.http2.floods import Flood
from pdp.serving.http2.requests import Requests
from pdp.serving.http2.stream import PREFIX_BYTES, Stream

_ANSWERED: Final[Sequence[Header]] = ((b":status", b"200"), (b"content-type", b"application/grpc"))
_WELL: Final[Sequence[Header]] = metadata.trailers(0)
_TOO_MANY: Final = StatusCode.RESOURCE_EXHAUSTED, "too many messages have begun and not ended"
_LATE: Final = StatusCode.DEADLINE_EXCEEDED, "the deadline has passed"
# In the words of gRPC, so that clients read the same whichever transport they meet.
_AGED: Final = StatusCode.UNAVAILABLE, "max connection age"
Trailers = Sequence[tuple[str, str | bytes]]


class Calls(Protocol):
    """Is told of calls, in order. None of it may wait."""

    def begun(self, stream: Stream) -> None:
        """Take a call whose headers have come."""
        ...

    def heard(self, stream: Stream) -> None:
        """Take note that a message of a call, or the end of its messages, can be taken."""
        ...

    def left(self, stream: Stream) -> None:
        """Take note that a call is over without an answer: its caller has left, or has broken a rule."""
        ...


class GRPCConnection:
    """A peer's connection. `paths` are the methods that it may call, and whether a call has just one message.

    `greeted` says that the peer has shown that it speaks HTTP/2. Once `closing` is true, nothing more is taken: send
    what `outgoing` has, and close.
    """

    def __init__(
        self, engine: Callable[[Bounds], Engine], paths: Mapping[str, bool], bounds: Bounds, calls: Calls
    ) -> None:
        self._engine = engine(bounds)
        self._paths = paths
        self._bounds = bounds
        self._calls = calls
        self._requests = Requests(bounds.header_bytes)
        self._streams: dict[int, Stream] = {}
        self._begun: list[Stream] = []
        self._heard: list[Stream] = []
        self._left: list[Stream] = []
        # Answers whose callers have not taken all of them: since when, and whether all of the call had come.
        self._unread: dict[int, tuple[float, bool]] = {}
        # Refusals of calls of which more is to come, and since when. gRPC's client for asyncio reads `INTERNAL` for a
        # status that comes while it writes its message.
        self._held: dict[int, tuple[float, Sequence[Header]]] = {}
        self._incoming = 0
        self._sent = self._taken = 0
        self._taken_at = -math.inf
        self._resets = Flood(bounds.resets, bounds.flood_seconds)
        self._controls = Flood(bounds.controls, bounds.flood_seconds)
        # Whether anything was answered since the last of them: then they count anew.
        self._has_answered = False
        self._now = 0.0
        self.greeted = self.closing = False

    @property
    def in_progress(self) -> int:
        """Return how many calls are not answered, or whose answers have not been taken."""
        return len(self._streams) + len(self._unread) + len(self._held)

    @property
    def waiting(self) -> int:
        """Return how many bytes of answers wait for the peer's windows."""
        return self._engine.waiting

    @property
    def unsent(self) -> int:
        """Return how many bytes `outgoing` has already."""
        return self._engine.unsent

    @property
    def taken(self) -> int:
        """Return how many bytes of answers the peer's windows have let through."""
        return self._sent - self._engine.waiting

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes. A call that is over within the same bytes is not told of."""
        self._now = now
        if self.closing:
            return
        try:
            self._engine.receive(data, self)
        except BrokenPeerError:
            self.close()
        if self._unread:
            self._reset_what_is_read()
        self._tell()

    def take(self, stream: Stream) -> bytes | None:
        """Take the next message of a call that has one, or None for their end."""
        if not stream.messages:
            return None
        message = stream.messages.popleft()
        if stream.kept and not stream.messages:
            self._give(stream)
        return message

    def send(self, stream: Stream, message: bytes) -> None:
        """Send a message of an answer; nothing is sent to a caller that has left."""
        if stream.over:
            return
        self._has_answered = True
        if not stream.answering:
            stream.answering = True
            self._engine.respond(stream.id, _ANSWERED)
        # A byte that says that it is not compressed, and four for its length.
        framed = len(message).to_bytes(PREFIX_BYTES) + message
        self._engine.send(stream.id, framed)
        self._sent += len(framed)

    def end(self, stream: Stream, code: StatusCode, text: str = "", details: Trailers = ()) -> None:
        """End a call with a status; `details` go out with it."""
        if stream.over:
            return
        self._has_answered = True
        if code is StatusCode.OK and not text and not details:
            ended = _WELL
        else:
            ended = metadata.trailers(int(code.value[0]), text, details)
        if stream.answering:
            self._engine.end(stream.id, ended)
            self._unread[stream.id] = self._now, stream.ended
        else:
            self._respond(stream.id, (*_ANSWERED, *ended), ended=stream.ended)
        self._forget(stream)

    def cancel(self, stream: Stream) -> None:
        """End a call without a word."""
        if not stream.over:
            self._forget(stream)
            self._engine.reset(stream.id, cancels=True)

    def all_taken(self, stream: Stream) -> bool:
        """Say whether the peer's windows have let through all that was sent to a call."""
        return not self._engine.queued(stream.id)

    @property
    def next_deadline(self) -> float:
        """Return the earliest deadline of the calls in progress; infinity without one."""
        return min((one.deadline_at for one in self._streams.values()), default=math.inf)

    def end_late(self, now: float) -> None:
        """End calls whose deadline has passed."""
        self._now = now
        for stream in [one for one in self._streams.values() if one.deadline_at <= now]:
            self._refuse(stream, *_LATE)
        self._tell()

    def tick(self, now: float) -> None:
        """End calls whose deadline has passed, and a connection whose peer does not read its answers."""
        self.end_late(now)
        for stream in [one for one, (since, _) in self._held.items() if now - since >= self._bounds.refused_seconds]:
            self._let_go(stream)
        self._reset_what_is_read()
        if self.taken != self._taken:
            self._taken, self._taken_at = self.taken, now
        since = next(iter(self._unread.values()), (math.inf, True))[0]
        if now - max(since, self._taken_at) >= self._bounds.reading_seconds:
            self.leave()
        self._tell()

    def ping(self) -> None:
        """Ask the peer for a sign of life."""
        self._engine.ping()

    def announce(self) -> None:
        """Tell the peer that this connection will end; calls that it begins now are served."""
        self._engine.announce()

    def drain(self) -> None:
        """Tell the peer to begin no more calls here; those in progress are answered."""
        self._engine.leave(at_once=False)

    def leave(self) -> None:
        """End the connection: it was too much."""
        if not self.closing:
            self._engine.leave(at_once=True)
            self.close()

    def end_aged(self) -> None:
        """End the calls that are still open on a connection that was to end, and the connection."""
        for stream in [*self._streams.values()]:
            self._refuse(stream, *_AGED)
        for held in tuple(self._held):
            self._let_go(held)
        self.close()

    def close(self) -> None:
        """Forget all calls."""
        self.closing = True
        for stream in [*self._streams.values()]:
            self._lose(stream)
        self._unread.clear()
        self._held.clear()
        self._tell()

    def outgoing(self) -> bytes:
        """Return the bytes for the peer since the last time."""
        out = self._engine.outgoing()
        if self._unread and not self.closing and self._reset_what_is_read():
            out += self._engine.outgoing()
        return out

    # What the engine tells.

    def begun(self, stream: int, headers: Sequence[Header], *, ended: bool) -> None:
        """Take the headers of a call, and refuse it if they are not those of gRPC."""
        if self.closing:
            return
        asked = self._requests.read(headers)
        if asked.unlike_grpc is not None:
            self._respond(stream, asked.unlike_grpc, ended=ended)
            return
        single = self._paths.get(asked.path)
        begun = self._streams[stream] = Stream(
            stream,
            path=asked.path,
            metadata=asked.metadata,
            single=bool(single),
            deadline_at=self._now + asked.timeout,
        )
        begun.ended = ended
        if asked.refused is not None:
            self._refuse(begun, *asked.refused)
        elif single is None:
            # In the words of gRPC, as for a message that is too large.
            self._refuse(begun, StatusCode.UNIMPLEMENTED, "Method not found!")
        else:
            self._begun.append(begun)

    def came(self, stream: int, data: bytes, *, ended: bool) -> None:
        """Take a part of a message; its length is known, and checked, before it is kept."""
        found = self._streams.get(stream)
        if self.closing:
            return
        if found is None:
            self._engine.give(stream, len(data))
            held = self._held.pop(stream, None) if ended else None
            if held is not None:
                self._engine.respond(stream, held[1], ends=True)
            return
        before = len(found.body)
        refused = found.take(data, ended=ended, most=self._bounds.message_bytes)
        self._incoming += len(found.body) - before
        unasked = found.told and found.single and not found.asked
        if refused is None and unasked and len(found.body) > self._bounds.unasked_bytes:
            refused = _TOO_MANY
        if refused is not None:
            self._refuse(found, *refused)
        elif found.kept and (found.single or not found.messages):
            self._give(found)
        if found.ready and not found.over:
            if found.deadline_at <= self._now:
                self._refuse(found, *_LATE)
            else:
                self._heard.append(found)
        while self._incoming > self._bounds.incoming_bytes:
            oldest = next(one for one in self._streams.values() if one.body)
            self._refuse(oldest, *_TOO_MANY)

    def over(self, stream: int, *, reset: bool) -> None:
        """Forget a call: it was answered in full, or its caller has left, or has had the library reset it."""
        self._unread.pop(stream, None)
        self._held.pop(stream, None)
        lost = self._streams.get(stream)
        if lost is not None:
            self._lose(lost)
        if (reset or lost is not None) and not self.closing and self._resets.is_too_much(self._now):
            self.leave()

    def controlled(self) -> None:
        """Count a ping, or settings, which are the first that a peer sends."""
        self.greeted = True
        if self._has_answered:
            self._has_answered = False
            self._controls.forget()
        if self._controls.is_too_much(self._now):
            self.leave()

    def _respond(self, stream: int, headers: Sequence[Header], *, ended: bool) -> None:
        """Answer with headers alone: at once if the call has `ended`, otherwise when it does, or has had its time."""
        if ended:
            self._engine.respond(stream, headers, ends=True)
            return
        self._held[stream] = self._now, headers
        if len(self._held) > self._bounds.refused:
            self._let_go(next(iter(self._held)))

    def _let_go(self, stream: int) -> None:
        """Send a refusal whose call has not ended, and want no more of the call."""
        _, headers = self._held.pop(stream)
        self._engine.respond(stream, headers, ends=True)
        self._engine.reset(stream, cancels=False)

    def _refuse(self, stream: Stream, code: StatusCode, text: str) -> None:
        """Refuse a call that breaks a rule."""
        details = (("grpc-accept-encoding", "identity"),) if code is StatusCode.UNIMPLEMENTED else ()
        self.end(stream, code, text, details)
        self._left.append(stream)

    def _lose(self, stream: Stream) -> None:
        self._forget(stream)
        self._left.append(stream)

    def _forget(self, stream: Stream) -> None:
        stream.over = True
        self._incoming -= len(stream.body)
        stream.body.clear()
        stream.messages.clear()
        if stream.kept:
            self._give(stream)
        self._streams.pop(stream.id, None)

    def _give(self, stream: Stream) -> None:
        if not self.closing:
            self._engine.give(stream.id, stream.kept)
        stream.kept = 0

    def _reset_what_is_read(self) -> bool:
        """Let go of answers that are taken, and of calls whose rest is not wanted then; say whether any was reset."""
        waiting, reset = self._engine.waiting, False
        for stream, (_, ended) in tuple(self._unread.items()):
            if waiting and self._engine.queued(stream):
                continue
            del self._unread[stream]
            if not ended:
                self._engine.reset(stream, cancels=False)
                reset = True
        return reset

    def _tell(self) -> None:
        """Tell of what has come, in order; not of calls that are over before they are told of."""
        begun, self._begun = self._begun, []
        heard, self._heard = self._heard, []
        left, self._left = self._left, []
        for stream in begun:
            if not stream.over:
                stream.told = True
                self._calls.begun(stream)
        for stream in heard:
            if not stream.over and stream.told:
                self._calls.heard(stream)
        for stream in left:
            if stream.told:
                self._calls.left(stream)
