"""The boundary: the one wrapper around all handlers. Callers are admitted, bytes become messages, errors statuses.

An RPC is admitted (authenticated, looked up in the table, its lane not full) on gRPC's own thread before it gets one
of ours: a caller without credentials occupies no handler thread, whatever it does or does not send.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, ParamSpec, TypeVar

import grpc

from pdp.clock import Clock
from pdp.errors import InvalidRequestError, OverloadedError, PermissionDeniedError
from pdp.model import Caller
from pdp.observer import REFUSED, Event, Observer
from pdp.server.authentication import Authenticator, Metadata
from pdp.server.fields import read
from pdp.server.idle import IdleWatch
from pdp.server.origin import NOBODY, Origin, trace_id_of, trace_parent
from pdp.server.pools import BoundedPool
from pdp.server.refusedcredentials import RefusedCredentials, peer_address
from pdp.server.rpcs import PUBLIC, RPC, Shape
from pdp.server.status import DeadlinePassedError, MessageTooLargeError, Refusal, internal_error, refusal_of

_LOG = logging.getLogger("pdp.server")

T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """How one RPC is served: by which function on which threads, and how large its messages may be.

    `room` names what bounds the calls that are open at one time.
    A unary RPC that has waited for a thread longer than `longest_wait` seconds is not served any more.
    `in_band` writes a refusal as a message of an exchange, which then goes on; without it a refusal ends the exchange.
    """

    rpc: RPC
    handle: Callable[[Any, Any], Any]
    pool: BoundedPool
    room: str
    limit: str
    largest: int
    longest_wait: float = math.inf
    in_band: Callable[[bytes, Refusal], bytes] | None = None


class Boundary:
    """Serves the routes that it is given, and nothing else, as gRPC's generic handler."""

    def __init__(
        self,
        routes: Mapping[str, Route],
        *,
        authenticator: Authenticator,
        observer: Observer,
        clock: Clock,
        idle: IdleWatch,
    ) -> None:
        self._routes = routes
        self._authenticator = authenticator
        self._observer = observer
        self._clock = clock
        self._idle = idle
        self._refused = RefusedCredentials(clock)

    def service(self, call: Any) -> Any:  # noqa: ANN401 - gRPC has no types
        """Return what serves an RPC: its handler, or what refuses it; None for a path that is not served."""
        route = self._routes.get(call.method)
        if route is None:
            return None
        metadata = call.invocation_metadata
        if route.rpc.roles != PUBLIC and self._authenticator.needs_peer(metadata):
            return self._by_peer(route, metadata)
        return self._by_metadata(route, metadata)

    def _by_metadata(self, route: Route, metadata: Metadata) -> Any:  # noqa: ANN401 - gRPC has no types
        """Serve a caller that is known by what it sends, or refuse it before it gets a thread."""
        rpc = route.rpc
        caller = self._attempt(rpc, metadata, self._identify, rpc, metadata)
        if isinstance(caller, Refusal):
            return self._refusing(rpc, NOBODY, metadata, caller)
        barred = self._attempt(rpc, metadata, _require_admission, route, caller)
        if barred is not None:
            return self._refusing(rpc, caller, metadata, barred)
        match rpc.shape:
            case Shape.UNARY:
                behavior = self._on(route, self._unary, caller, metadata, self._latest(route))
                return grpc.unary_unary_rpc_method_handler(behavior)
            case Shape.EXCHANGE:
                return grpc.stream_stream_rpc_method_handler(self._on(route, self._exchange, metadata))
            case Shape.FEED:
                # As a stream too: gRPC's own handler would wait for the message without a bound.
                return grpc.stream_stream_rpc_method_handler(self._on(route, self._feed, metadata))

    def _by_peer(self, route: Route, metadata: Metadata) -> Any:  # noqa: ANN401 - gRPC has no types
        """Serve a caller that is known by its connection, which gRPC shows to handlers only."""
        full = self._attempt(route.rpc, metadata, _require_room, route)
        if full is not None:
            return self._refusing(route.rpc, NOBODY, metadata, full)
        # Unary ones as a stream too: gRPC's own handler would wait for the message before we know who is calling.
        # Feeds are public, so none comes here.
        if route.rpc.shape is Shape.UNARY:
            behavior = self._on(route, self._single, metadata, self._latest(route))
        else:
            behavior = self._on(route, self._exchange, metadata)
        return grpc.stream_stream_rpc_method_handler(behavior)

    def _identify(self, rpc: RPC, metadata: Metadata, context: Any = None) -> Caller:  # noqa: ANN401 - gRPC has no types
        if rpc.roles == PUBLIC:
            return NOBODY
        if context is not None and self._authenticator.needs_peer(metadata):
            return self._authenticator.authenticate(metadata, context.auth_context())
        return self._authenticator.authenticate(metadata)

    def _admit(self, rpc: RPC, metadata: Metadata, context: Any) -> Caller:  # noqa: ANN401 - gRPC has no types
        """Return who is calling, and end the RPC unless this caller may call it."""
        caller = self._attempt(rpc, metadata, self._identify, rpc, metadata, context)
        if isinstance(caller, Refusal):
            self._end(rpc, NOBODY, metadata, caller, context)
        barred = self._attempt(rpc, metadata, _require_role, rpc, caller)
        if barred is not None:
            self._end(rpc, caller, metadata, barred, context)
        return caller

    def _refusing(self, rpc: RPC, caller: Caller, metadata: Metadata, refusal: Refusal) -> Any:  # noqa: ANN401 - gRPC has no types
        def refuse(_: Iterator[bytes], context: Any) -> None:  # noqa: ANN401 - gRPC has no types
            self._end(rpc, caller, metadata, refusal, context)

        # A handler of streams waits for no message, so even a silent caller is refused at once. It runs on the
        # server's default thread: gRPC's own must not wait for an observer.
        return grpc.stream_stream_rpc_method_handler(refuse)

    def _on(self, route: Route, serve: Callable[..., Any], *what: object) -> partial[Any]:
        behavior = partial(serve, route, *what)
        # How gRPC learns on which threads to run a handler.
        behavior.experimental_thread_pool = route.pool  # type: ignore[attr-defined]  # gRPC's own convention
        return behavior

    def _latest(self, route: Route) -> float:
        """Return when a call that has just arrived will have waited too long, by the boot clock."""
        return self._clock.now().boot_at + route.longest_wait

    def _unary(
        self,
        route: Route,
        caller: Caller,
        metadata: Metadata,
        latest: float,
        wire: bytes,
        context: Any,  # noqa: ANN401 - gRPC has no types
    ) -> bytes:
        answer = self._attempt(route.rpc, metadata, self._begin, route, caller, metadata, latest, wire, context)
        if isinstance(answer, Refusal):
            self._end(route.rpc, caller, metadata, answer, context)
        return answer

    def _begin(
        self,
        route: Route,
        caller: Caller,
        metadata: Metadata,
        latest: float,
        wire: bytes,
        context: Any,  # noqa: ANN401 - gRPC has no types
    ) -> bytes:
        # Whoever waits so long has likely asked again: to answer all that wait would only make others wait as long.
        if self._clock.now().boot_at > latest:
            raise OverloadedError(
                f"the call waited longer than {route.longest_wait:g} s (limit `wait_seconds`); try again"
            )
        return _work(route, caller, metadata, wire, context)

    def _single(
        self,
        route: Route,
        metadata: Metadata,
        latest: float,
        requests: Iterator[bytes],
        context: Any,  # noqa: ANN401 - gRPC has no types
    ) -> Iterator[bytes]:
        caller = self._admit(route.rpc, metadata, context)
        for wire in requests:
            yield self._unary(route, caller, metadata, latest, wire, context)
            return

    def _exchange(self, route: Route, metadata: Metadata, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:  # noqa: ANN401 - gRPC has no types
        rpc = route.rpc
        if self._authenticator.needs_peer(metadata):
            self._admit(rpc, metadata, context)
        with self._idle.watched(context.cancel) as touch:
            for wire in requests:
                touch()
                # The caller may have been removed, or lost its role, since the stream was opened.
                caller = self._admit(rpc, metadata, context)
                answer = self._attempt(rpc, metadata, _work, route, caller, metadata, wire, context)
                if not isinstance(answer, Refusal):
                    yield answer
                elif route.in_band is None:
                    self._end(rpc, caller, metadata, answer, context)
                else:
                    self._tell(rpc, caller, metadata, answer, peer_address(context))
                    yield route.in_band(wire, answer)

    def _feed(self, route: Route, metadata: Metadata, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:  # noqa: ANN401 - gRPC has no types
        over = threading.Event()
        if not context.add_callback(over.set):
            return
        with self._idle.watched(context.cancel):
            wire = next(requests, None)
        answers = self._attempt(route.rpc, metadata, _open_feed, route, wire, over)
        if isinstance(answers, Refusal):
            self._end(route.rpc, NOBODY, metadata, answers, context)
        while (answer := self._attempt(route.rpc, metadata, _next_of_feed, answers)) is not None:
            if isinstance(answer, Refusal):
                self._end(route.rpc, NOBODY, metadata, answer, context)
            yield answer

    def _attempt(
        self, rpc: RPC, metadata: Metadata, work: Callable[P, T], *args: P.args, **more: P.kwargs
    ) -> T | Refusal:
        """Do some work; whatever goes wrong becomes a refusal, here and nowhere else."""
        try:
            return work(*args, **more)
        except Exception as error:  # noqa: BLE001 - the one place where whatever went wrong becomes a status
            refusal = refusal_of(error)
            if refusal is None:
                trace_id = trace_id_of(trace_parent(metadata))
                _LOG.exception("%s failed (trace id %s)", rpc.name, trace_id)
                refusal = internal_error(trace_id)
            return refusal

    def _end(self, rpc: RPC, caller: Caller, metadata: Metadata, refusal: Refusal, context: Any) -> NoReturn:  # noqa: ANN401 - gRPC has no types
        """End an RPC with a status. Never returns: gRPC unwinds its handler with an exception of its own."""
        self._tell(rpc, caller, metadata, refusal, peer_address(context))
        context.set_trailing_metadata(refusal.trailing_metadata)
        context.abort(refusal.code, refusal.details)
        raise AssertionError("gRPC's abort returned")

    def _tell(self, rpc: RPC, caller: Caller, metadata: Metadata, refusal: Refusal, peer: str) -> None:
        self._refused.tell(rpc.name, refusal, peer)
        facts = {"rpc": rpc.name, "status": refusal.code.name, "peer": peer}
        facts |= {"field": refusal.field} if refusal.field else {}
        facts |= Origin(caller=caller, parent=trace_parent(metadata)).trace
        at = self._clock.now().wall_at
        self._observer.event(Event(kind=REFUSED, at=at, caller_id=caller.id, tenant=caller.tenant, facts=facts))


def _require_admission(route: Route, caller: Caller) -> None:
    _require_role(route.rpc, caller)
    _require_room(route)


def _require_room(route: Route) -> None:
    if route.pool.full:
        raise OverloadedError(f"{route.pool.bound} calls are open, and that is all ({route.room}); try again")


def _require_role(rpc: RPC, caller: Caller) -> None:
    if rpc.roles != PUBLIC and caller.roles.isdisjoint(rpc.roles):
        raise PermissionDeniedError(f"`{caller.id}` may not call `{rpc.name}`")


def _work(route: Route, caller: Caller, metadata: Metadata, wire: bytes, context: Any) -> bytes:  # noqa: ANN401 - gRPC has no types
    if context.time_remaining() <= 0:
        raise DeadlinePassedError("the deadline has passed")
    origin = Origin(caller=caller, parent=trace_parent(metadata))
    answer: bytes = route.handle(_read(route, wire), origin).SerializeToString()
    return answer


def _read(route: Route, wire: bytes) -> Any:  # noqa: ANN401 - whatever message the RPC takes
    if len(wire) > route.largest:
        raise MessageTooLargeError(f"a message is larger than {route.largest} bytes (limit `{route.limit}`)")
    return read(route.rpc.request, wire)


def _open_feed(route: Route, wire: bytes | None, over: threading.Event) -> Iterator[Any]:
    if wire is None:
        raise InvalidRequestError("request", "is required")
    answers: Iterator[Any] = route.handle(_read(route, wire), over)
    return answers


def _next_of_feed(answers: Iterator[Any]) -> bytes | None:
    answer = next(answers, None)
    return None if answer is None else answer.SerializeToString()
