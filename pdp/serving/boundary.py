"""The boundary: the one wrapper around all handlers. It admits callers, decodes messages, and maps errors to statuses.

On the transport's own thread an RPC is admitted (authenticated, looked up in the table, counted in its lane) and its
message received. Only then does it get one of our threads, or at once its answer, if nothing has to be waited for. So a
caller without credentials, or one that begins a call and does not send its message, occupies no thread, and a refusal
needs none.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

from pdp.clock import Clock
from pdp.errors import InvalidRequestError, OverloadedError, PDPError, PermissionDeniedError
from pdp.foundation.rightofway import RightOfWay
from pdp.identity.authentication import Authenticator, Metadata, Peer
from pdp.model import Caller, Role
from pdp.observer import Observer
from pdp.serving import uploads
from pdp.serving.answering import PartByPart, answer_of
from pdp.serving.begun import BegunCalls, Group
from pdp.serving.decoding import read
from pdp.serving.feeds import Feed, OpenFeeds
from pdp.serving.idle import IdleWatch
from pdp.serving.lanes import BoundedPool
from pdp.serving.origin import ANONYMOUS, Origin, trace_parent
from pdp.serving.refusedcredentials import peer_address
from pdp.serving.refusing import Refuser, attempt, refusal_for
from pdp.serving.route import Route
from pdp.serving.rpc import PUBLIC, RPC, Lane, Shape
from pdp.serving.status import NotHereError, Refusal
from pdp.serving.transport import Context, Incoming
from pdp.serving.turns import HeldUp, Turns
from pdp.serving.watches import Watch

_LONGEST_ENTERING_SECONDS = 1.0


class Boundary:
    """Takes the calls of a transport: serves the routes that it is given, and nothing else.

    `lanes` are the threads, `begun` keeps the calls whose message has not arrived, and `idle` ends exchanges on which
    nothing happens. `observer` is notified of refusals, also on the transport's own thread, so it must not wait.
    `answers_left` is called there after each turn, once its answers have left, and on the thread that has answered part
    by part: it must neither wait nor take long. Turns have the right of `way`: its tasks begin between them.
    """

    def __init__(
        self,
        routes: Mapping[str, Route],
        lanes: Mapping[Lane, BoundedPool],
        *,
        authenticator: Authenticator,
        observer: Observer,
        clock: Clock,
        begun: BegunCalls,
        idle: IdleWatch,
        answers_left: Callable[[], None] = lambda: None,
        way: RightOfWay | None = None,
    ) -> None:
        self.routes = routes
        self.answers_left = answers_left
        self._lanes = lanes
        self._authenticator = authenticator
        self._clock = clock
        self._idle = idle
        self._refuser = Refuser(observer, clock)
        self._held_up = HeldUp()
        self._turns = Turns(self._queue, self._held_up, way or RightOfWay())
        self._begun = begun
        self._feeds = OpenFeeds(lanes[Lane.WATCHES].room.threads)

    def takes_calls(self) -> bool:
        """Say whether the transport's own thread is free, not held up by a call."""
        return time.monotonic() - self._held_up.since < _LONGEST_ENTERING_SECONDS

    def enter(self, route: Route, incoming: Incoming) -> None:
        """Take a call that has begun, on the transport's own thread. Never waits."""
        self._held_up.since = time.monotonic()
        try:
            self._admit(route, incoming)
        finally:
            self._held_up.since = math.inf

    def turn_over(self) -> None:
        """Answer what was begun in a turn, on the transport's own thread; call this before its answers leave."""
        self._turns.over()

    def turn_left(self) -> None:
        """End a turn, on the transport's own thread; call this once its answers have left."""
        self._turns.left()
        self.answers_left()

    def _admit(self, route: Route, incoming: Incoming) -> None:
        """Admit a call or refuse it, on the transport's own thread."""
        rpc, metadata = route.rpc, incoming.metadata
        caller = attempt(rpc, metadata, self._identify, route, metadata, incoming.auth_context)
        if isinstance(caller, Refusal):
            self._refuser.refuse(rpc, ANONYMOUS, incoming, caller)
            return
        lane = self._lanes[rpc.lane_for(caller)]
        public = rpc.roles == PUBLIC
        barred = None if public else attempt(rpc, metadata, self._require_admission, rpc, caller, lane)
        if barred is not None:
            self._refuser.refuse(rpc, caller, incoming, barred)
        elif rpc.shape is Shape.EXCHANGE:
            lane.put(caller.id, partial(incoming.exchange, partial(self._exchange, route, metadata)))
        else:
            call = _Call(self, self._begun, route, lane, caller, incoming)
            wire = incoming.at_hand()
            if wire is not None:
                self.arrived(call, wire)
            else:
                self._begun.begin(call)

    def arrived(self, call: _Call, wire: bytes | None) -> None:
        """Queue a call whose message has arrived; None means that there is none. On the transport's thread."""
        rpc = call.route.rpc
        if wire is None:
            self.give_up(call, InvalidRequestError("request", "is required"))
            return
        full = None
        if rpc.roles == PUBLIC:
            full = attempt(rpc, call.incoming.metadata, call.lane.enter, call.owner)
        if full is not None:
            self._refuser.refuse(rpc, call.caller, call.incoming, full)
        elif rpc.shape is Shape.WATCH:
            self._watch(call, wire)
        else:
            call.wire = wire
            if rpc.shape is Shape.FEED:
                call.feed = Feed()
                # In other lanes a feed has been counted before, and has a thread.
                if rpc.roles == PUBLIC:
                    self._feeds.add(call.feed)
            if not self._turns.takes(call):
                self._queue(call)

    def _queue(self, call: _Call) -> None:
        """Hand a call over to the threads of its lane."""
        call.latest = self._clock.now().boot_at + call.route.longest_wait
        # One call leaves too little to do for what it costs to begin.
        call.lane.put(call.owner, call.run, self.answers_left if call.route.parts is not None else None)

    def _watch(self, call: _Call, wire: bytes) -> None:
        """Hand a watch over to its handler, which must not wait. On the transport's thread."""
        rpc, metadata = call.route.rpc, call.incoming.metadata
        watch = Watch(
            call.caller,
            call.incoming.begin(),
            admits=partial(self._still_admits, call),
            refuse=lambda error: self._refuser.refuse(
                rpc, call.caller, call.incoming, refusal_for(rpc, metadata, error)
            ),
            leave=partial(call.lane.leave, call.owner),
        )
        refused = attempt(rpc, metadata, _begin_watch, call, wire, watch)
        if refused is not None:
            watch.close()
            self._refuser.refuse(rpc, call.caller, call.incoming, refused)

    def _still_admits(self, call: _Call) -> bool:
        """Say whether a watch may go on: its caller may have been removed, or lost its role. End it if not."""
        rpc, metadata, incoming = call.route.rpc, call.incoming.metadata, call.incoming
        caller = attempt(rpc, metadata, self._identify, call.route, metadata, incoming.auth_context)
        barred = caller if isinstance(caller, Refusal) else attempt(rpc, metadata, _require_role, rpc, caller)
        if barred is None and caller != call.caller:
            barred = refusal_for(rpc, metadata, PermissionDeniedError(f"`{call.caller.id}` is another caller now"))
        if barred is not None:
            self._refuser.refuse(rpc, call.caller, incoming, barred)
        return barred is None

    def give_up(self, call: _Call, error: PDPError) -> None:
        """End a call whose message does not arrive."""
        self.abandon(call)
        rpc = call.route.rpc
        if not call.incoming.cancelled:
            self._refuser.refuse(rpc, call.caller, call.incoming, refusal_for(rpc, call.incoming.metadata, error))

    def abandon(self, call: _Call) -> None:
        """Give the place of a call back that waited for its message."""
        if call.route.rpc.roles != PUBLIC:
            call.lane.leave(call.owner)

    def _require_admission(self, rpc: RPC, caller: Caller, lane: BoundedPool) -> None:
        _require_role(rpc, caller)
        self._begun.enter(lane, caller.id)

    def _identify(self, route: Route, metadata: Metadata, peer: Callable[[], Peer]) -> Caller:
        if route.elsewhere:
            raise NotHereError(f"`{route.rpc.name}` is not served at the control address: use the main address")
        if route.rpc.roles == PUBLIC:
            return ANONYMOUS
        needs_peer = self._authenticator.needs_peer(metadata)
        caller = self._authenticator.authenticate(metadata, peer() if needs_peer else None)
        return self._authenticator.present(caller, metadata) if route.rpc.presence else caller

    def _readmit(self, route: Route, metadata: Metadata, context: Context) -> Caller:
        """Return the caller, and end the RPC unless this caller may still call it."""
        rpc = route.rpc
        caller = attempt(rpc, metadata, self._identify, route, metadata, context.auth_context)
        if isinstance(caller, Refusal):
            self._refuser.end(rpc, ANONYMOUS, metadata, caller, context)
        barred = attempt(rpc, metadata, _require_role, rpc, caller)
        if barred is not None:
            self._refuser.end(rpc, caller, metadata, barred, context)
        return caller

    def unary(self, call: _Call, wire: bytes, context: Context) -> bytes:
        """Return the single answer to a call; nothing comes of one whose caller left before it had its thread."""
        rpc, metadata = call.route.rpc, call.incoming.metadata
        # What came too late is refused below, and told.
        if not context.is_active() and not rpc.done_anyway and context.time_remaining() > 0:
            return b""
        answer = attempt(rpc, metadata, self._begin, call, wire, context)
        if isinstance(answer, Refusal):
            self._refuser.end(rpc, call.caller, call.route.headers(wire) or metadata, answer, context)
        return answer

    def _begin(self, call: _Call, wire: bytes, context: Context) -> bytes:
        # After so long a wait the caller has probably tried again: an answer would only make others wait as long.
        if self._clock.now().boot_at > call.latest:
            raise OverloadedError(
                f"the call waited longer than {call.route.longest_wait:g} s (limit `wait_seconds`); try again"
            )
        request, parts = _request(call, wire), call.route.parts
        if parts is not None and (pieces := parts.of(request)) is not None:
            by_part = PartByPart(
                rpc=call.route.rpc,
                caller=call.caller,
                metadata=call.incoming.metadata,
                parts=parts,
                context=context,
                refuser=self._refuser,
            )
            return by_part.answer(pieces)
        return _work(call.route, call.caller, call.incoming.metadata, request, context)

    def _exchange(
        self, route: Route, metadata: Metadata, requests: Iterator[bytes], context: Context
    ) -> Iterator[bytes]:
        rpc = route.rpc
        with self._idle.watched(context.cancel) as touch:
            for wire in requests:
                touch()
                # The caller may have been removed, or lost its role, since the stream was opened.
                caller = self._readmit(route, metadata, context)
                answer = attempt(rpc, metadata, _read_and_work, route, caller, metadata, wire, context)
                if not isinstance(answer, Refusal):
                    yield answer
                elif route.in_band is None:
                    self._refuser.end(rpc, caller, metadata, answer, context)
                else:
                    self._refuser.tell(rpc, caller, route.headers(wire) or metadata, answer, peer_address(context))
                    yield route.in_band(wire, answer)

    def feed(self, call: _Call, feed: Feed, wire: bytes, context: Context) -> Iterator[bytes]:
        """Yield the answers to a call until it is over."""
        try:
            if not context.add_callback(feed.over.set):
                return
            # A caller that does not read holds up the thread, and its answers: it is idle.
            with self._idle.watched(context.cancel) if call.owner else nullcontext(_nothing) as touch:
                for answer in self._answers(call, feed, wire, context):
                    yield answer
                    touch()
        finally:
            self._feeds.discard(feed)

    def _answers(self, call: _Call, feed: Feed, wire: bytes, context: Context) -> Iterator[bytes]:
        rpc, metadata, caller = call.route.rpc, call.incoming.metadata, call.caller
        answers = attempt(rpc, metadata, _open_feed, call, wire, feed.over)
        if isinstance(answers, Refusal):
            self._refuser.end(rpc, caller, metadata, answers, context)
        while (answer := attempt(rpc, metadata, _next_of_feed, answers)) is not None:
            if isinstance(answer, Refusal):
                self._refuser.end(rpc, caller, metadata, answer, context)
            # The caller may have been removed, or lost its role, since the feed was opened.
            if rpc.roles != PUBLIC and self._readmit(call.route, metadata, context) != caller:
                return
            yield answer
        if feed.error is not None:
            self._refuser.end(rpc, caller, metadata, refusal_for(rpc, metadata, feed.error), context)


class _Call:
    """A call with one message: it waits first for the message and then for a thread."""

    __slots__ = (
        "_begun",
        "_boundary",
        "_has_arrived",
        "caller",
        "feed",
        "incoming",
        "lane",
        "latest",
        "owner",
        "route",
        "waits",
        "wire",
    )

    def __init__(
        self, boundary: Boundary, begun: BegunCalls, route: Route, lane: BoundedPool, caller: Caller, incoming: Incoming
    ) -> None:
        self._boundary, self._begun = boundary, begun
        self.route, self.lane, self.caller, self.incoming = route, lane, caller, incoming
        self.owner = caller.id
        self.wire, self.latest = b"", 0.0
        self._has_arrived = self.waits = False
        self.feed: Feed | None = None

    @property
    def group(self) -> Group:
        """Return its lane and its caller; empty without credentials."""
        return (self.lane, self.owner) if self.owner else ()

    def ask(self) -> bool:
        """Ask for the message; say whether it has come at once."""
        self.incoming.receive(self.arrived)
        return self._has_arrived

    def arrived(self, wire: bytes | None) -> None:
        """Go on with the message, or None for no message, unless it is too late. On the transport's thread."""
        self._has_arrived = True
        if not self.waits or self._begun.take(self):
            self._boundary.arrived(self, wire)

    def follow(self) -> None:
        """See that its place is given back when its caller leaves."""
        if not self.incoming.add_callback(self._left):
            self._left()

    def _left(self) -> None:
        if self._begun.take(self):
            self._boundary.abandon(self)

    def give_up(self, error: PDPError) -> None:
        """End without a message."""
        self._boundary.give_up(self, error)

    def run(self) -> None:
        """Answer, on a thread of the lane."""
        answer = partial(self._boundary.feed, self, self.feed) if self.feed else partial(self._boundary.unary, self)
        self.incoming.serve(answer, self.wire)


def _require_role(rpc: RPC, caller: Caller) -> None:
    if rpc.roles != PUBLIC and caller.roles.isdisjoint(rpc.roles):
        roles = " or ".join(f"`{role.value}`" for role in Role if role in rpc.roles)
        raise PermissionDeniedError(f"`{caller.id}` may not call `{rpc.name}`: that takes the role {roles}")


def _request(call: _Call, wire: bytes) -> Any:  # noqa: ANN401 - the RPC's message, or the messages of an upload
    rpc = call.route.rpc
    if rpc.shape is Shape.UPLOAD:
        return uploads.receive(rpc.request, wire, call.incoming, most=call.route.upload_bytes)
    return read(rpc.request, wire)


def _read_and_work(route: Route, caller: Caller, metadata: Metadata, wire: bytes, context: Context) -> bytes:
    return _work(route, caller, metadata, read(route.rpc.request, wire), context)


def _work(
    route: Route,
    caller: Caller,
    metadata: Metadata,
    request: Any,  # noqa: ANN401 - the RPC's message, or the messages of an upload
    context: Context,
) -> bytes:
    made: bytes = answer_of(route.handle, caller, metadata, request, context).SerializeToString()
    return made


def _open_feed(call: _Call, wire: bytes, over: threading.Event) -> Iterator[Any]:
    origin = Origin(caller=call.caller, parent=trace_parent(call.incoming.metadata))
    answers: Iterator[Any] = call.route.handle(read(call.route.rpc.request, wire), origin, over)
    return answers


def _begin_watch(call: _Call, wire: bytes, watch: Watch) -> None:
    origin = Origin(caller=call.caller, parent=trace_parent(call.incoming.metadata))
    call.route.handle(read(call.route.rpc.request, wire), origin, watch)


def _nothing() -> None:
    pass


def _next_of_feed(answers: Iterator[Any]) -> bytes | None:
    answer = next(answers, None)
    return None if answer is None else answer.SerializeToString()
