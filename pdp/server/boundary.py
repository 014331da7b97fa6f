"""The boundary: the one wrapper around all handlers. Callers are admitted, bytes become messages, errors statuses.

An RPC is admitted (authenticated, looked up in the table, its lane not full) on gRPC's own thread before it gets one
of ours: a caller without credentials occupies no handler thread, whatever it does or does not send.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import grpc

from pdp.clock import Clock
from pdp.errors import InvalidRequestError, OverloadedError, PermissionDeniedError
from pdp.model import Caller
from pdp.observer import Event, Observer
from pdp.server.authentication import Authenticator, Metadata
from pdp.server.fields import read
from pdp.server.idle import IdleWatch
from pdp.server.origin import NOBODY, Origin, trace_parent
from pdp.server.pools import BoundedPool
from pdp.server.rpcs import PUBLIC, RPC, Shape
from pdp.server.status import DeadlinePassedError, MessageTooLargeError, Refusal, internal_error, refusal_of

_LOG = logging.getLogger("pdp.server")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """How one RPC is served: by which function on which threads, and how large its messages may be.

    `in_band` writes a refusal as a message of an exchange, which then goes on; without it a refusal ends the exchange.
    """

    rpc: RPC
    handle: Callable[[Any, Any], Any]
    pool: BoundedPool
    limit: str
    largest: int
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

    def service(self, call: Any) -> Any:  # noqa: ANN401 - gRPC has no types
        """Return what serves an RPC: its handler, or what refuses it; None for a path that is not served."""
        route = self._routes.get(call.method)
        if route is None:
            return None
        metadata: Metadata = call.invocation_metadata
        origin = Origin(caller=NOBODY, parent=trace_parent(metadata))
        caller = self._attempt(route.rpc, origin, lambda: self._admit(route, metadata))
        if isinstance(caller, Refusal):
            # A handler of streams waits for no message, so even a silent caller is refused at once.
            return grpc.stream_stream_rpc_method_handler(partial(_refuse, caller))
        origin = Origin(caller=caller, parent=origin.parent)
        match route.rpc.shape:
            case Shape.UNARY:
                return grpc.unary_unary_rpc_method_handler(self._on(route, partial(self._unary, route, origin)))
            case Shape.EXCHANGE:
                exchange = partial(self._exchange, route, origin, metadata)
                return grpc.stream_stream_rpc_method_handler(self._on(route, exchange))
            case Shape.FEED:
                # As a stream too: gRPC's own handler would wait for the message without a bound.
                return grpc.stream_stream_rpc_method_handler(self._on(route, partial(self._feed, route, origin)))

    def _admit(self, route: Route, metadata: Metadata) -> Caller:
        caller = self._identify(route.rpc, metadata)
        if route.pool.full:
            raise OverloadedError(f"too many open calls (lane `{route.rpc.lane.value}`); try again")
        return caller

    def _identify(self, rpc: RPC, metadata: Metadata) -> Caller:
        if rpc.roles == PUBLIC:
            return NOBODY
        caller = self._authenticator.authenticate(metadata)
        if caller.roles.isdisjoint(rpc.roles):
            raise PermissionDeniedError(f"`{caller.id}` may not call `{rpc.name}`")
        return caller

    def _on(self, route: Route, behavior: partial[Any]) -> partial[Any]:
        # How gRPC learns on which threads to run a handler.
        behavior.experimental_thread_pool = route.pool  # type: ignore[attr-defined]  # gRPC's own convention
        return behavior

    def _unary(self, route: Route, origin: Origin, wire: bytes, context: Any) -> bytes:  # noqa: ANN401 - gRPC has no types
        answer = self._attempt(route.rpc, origin, lambda: _work(route, origin, wire, context))
        return _end(context, answer) if isinstance(answer, Refusal) else answer

    def _exchange(
        self,
        route: Route,
        origin: Origin,
        metadata: Metadata,
        requests: Iterator[bytes],
        context: Any,  # noqa: ANN401 - gRPC has no types
    ) -> Iterator[bytes]:
        with self._idle.watched(context.cancel) as touch:
            for wire in requests:
                touch()
                # The caller may have been removed since the stream was opened.
                caller = self._attempt(route.rpc, origin, lambda: self._identify(route.rpc, metadata))
                if isinstance(caller, Refusal):
                    _end(context, caller)
                    return
                now = Origin(caller=caller, parent=origin.parent)
                answer = self._attempt(route.rpc, now, partial(_work, route, now, wire, context))
                if isinstance(answer, Refusal):
                    answer = route.in_band(wire, answer) if route.in_band else _end(context, answer)
                yield answer

    def _feed(self, route: Route, origin: Origin, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:  # noqa: ANN401 - gRPC has no types
        over = threading.Event()
        if not context.add_callback(over.set):
            return
        with self._idle.watched(context.cancel):
            wire = next(requests, None)
        answers = self._attempt(route.rpc, origin, lambda: _open_feed(route, wire, over))
        while not isinstance(answers, Refusal):
            answer = self._attempt(route.rpc, origin, partial(_next_of_feed, answers))
            if answer is None:
                return
            if isinstance(answer, Refusal):
                answers = answer
            else:
                yield answer
        _end(context, answers)

    def _attempt(self, rpc: RPC, origin: Origin, work: Callable[[], T]) -> T | Refusal:
        """Do some work; whatever goes wrong becomes a refusal, here and nowhere else."""
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - the one place where whatever went wrong becomes a status
            refusal = refusal_of(error)
            if refusal is None:
                trace_id = origin.trace_id
                _LOG.exception("%s failed (trace id %s)", rpc.name, trace_id)
                refusal = internal_error(trace_id)
        facts = {"rpc": rpc.name, "status": refusal.code.name}
        facts |= {"field": refusal.field} if refusal.field else {}
        facts |= {"traceparent": origin.parent.traceparent} if origin.parent.traceparent else {}
        caller, at = origin.caller, self._clock.now().wall_at
        self._observer.event(
            Event(kind="request.refused", at=at, caller_id=caller.id, tenant=caller.tenant, facts=facts)
        )
        return refusal


def _work(route: Route, origin: Origin, wire: bytes, context: Any) -> bytes:  # noqa: ANN401 - gRPC has no types
    if context.time_remaining() <= 0:
        raise DeadlinePassedError("the deadline has passed")
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


def _refuse(refusal: Refusal, _: Iterator[bytes], context: Any) -> Iterator[bytes]:  # noqa: ANN401 - gRPC has no types
    _end(context, refusal)
    return iter(())


def _end(context: Any, refusal: Refusal) -> Any:  # noqa: ANN401 - gRPC has no types
    """End an RPC with a status; never returns, as gRPC unwinds the handler with an exception of its own."""
    context.set_trailing_metadata(refusal.trailing_metadata)
    context.abort(refusal.code, refusal.details)
