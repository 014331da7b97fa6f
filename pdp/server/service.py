"""The server: builds its lanes, routes and listener, and starts, drains and stops them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self

from pdp.audit.coverage import Coverage
from pdp.audit.searchable import SearchableRecord
from pdp.bundles.keeper import BundleKeeper
from pdp.clock import Clock
from pdp.decision.authorizer import Authorizer
from pdp.decision.explainer import Explainer
from pdp.errors import ConfigurationError
from pdp.foundation.repeating import Repeater
from pdp.foundation.rightofway import RightOfWay
from pdp.identity.authentication import Authenticator
from pdp.limits import DEFAULT_LIMITS, Limits
from pdp.model import Head
from pdp.observer import Event, EventKind, Observer
from pdp.record.segmentcheck import SegmentCheck
from pdp.registry.access import Approvals
from pdp.registry.calltokens import CallTokens
from pdp.registry.following import Following
from pdp.registry.freezing import Freezer
from pdp.registry.outcomes import Outcomes
from pdp.registry.reach import Reaching
from pdp.registry.registrar import Registrar
from pdp.server.access import AccessHandlers
from pdp.server.audit import AuditHandlers
from pdp.server.authorization import (
    AuthorizationHandlers,
    calls_at_once,
    independent_parts,
    stream_error,
    trace_headers_of,
)
from pdp.server.callers import CallerHandlers
from pdp.server.calltokens import CallTokenHandlers
from pdp.server.fencing import fenced
from pdp.server.fields import in_fields
from pdp.server.following import SessionFollowers
from pdp.server.freezes import FreezeHandlers
from pdp.server.links import NO_LINKS, Links
from pdp.server.policies import Evaluator, PolicyHandlers
from pdp.server.reach import ReachHandlers
from pdp.server.reflection import ReflectionHandlers
from pdp.server.rpcs import (
    ACCESS,
    AUDIT,
    AUTHORIZATION,
    CALL_TOKENS,
    CALLERS,
    CONTROL,
    FREEZES,
    OLD_REFLECTION,
    POLICIES,
    REACH,
    RECORD,
    REFLECTION,
    RPCS,
    SESSIONS,
    STORE,
)
from pdp.server.sessions import SessionHandlers
from pdp.serving.begun import BegunCalls
from pdp.serving.boundary import Boundary
from pdp.serving.health import HEALTH, HealthHandlers
from pdp.serving.idle import IdleWatch
from pdp.serving.lanes import BoundedPool, Room
from pdp.serving.listener import Listener
from pdp.serving.route import Route
from pdp.serving.rpc import RPC, Lane
from pdp.serving.transports import GRPC, transport_of
from pdp.sessions.fences import Fences

_LOG = logging.getLogger("pdp.server")

# Measured: more threads make calls slower, because all threads share one interpreter lock.
CALL_THREADS = 4
# The limit of a lane, where it is a setting.
LIMITS_OF_LANES: Mapping[Lane, str] = {Lane.CALLS: "limit `concurrent_calls`", Lane.STREAMS: "limit `streams`"}
# The room for the framing of a bundle's files in an upload.
_BUNDLE_FACTOR = 2
# The memory for messages without credentials that have begun to arrive and are incomplete.
_UNKNOWN_BYTES = 16 * 1024 * 1024
_CHECK_SECONDS = 1.0
# Calls and probes take milliseconds. One that takes this long is waiting for a locked store, and others must not wait
# for it.
_PATIENCE_SECONDS = 0.5


class PDPServer:
    """The PDP over gRPC. Use it as a context manager, or call `start` and `stop`.

    `healthy` says whether there are a bundle and a live store; it is called for each probe and never raises.
    `record_healthy` says whether the record is healthy, and `store_healthy` whether the store can be written.
    `fences` are those of its store.
    `observer` is notified of refusals on the transport's own thread, where it must not wait. Without a `searchable`
    record and a `segment_check`, `AuditService` answers that it is unavailable; `coverage` says what its answers lack.
    With `control` it serves what ends authority, and health, and nothing else. `share_port` lets several worker
    processes listen on one port. `transport` is one of `serving.transports`. `answers_left` is called on the loop's
    thread after the answers of each turn, and on the thread that has answered a batch; it must not wait.
    `check_seconds` is the interval of the checks for health watchers and idle streams. Raise `ConfigurationError` when
    it cannot listen.
    """

    def __init__(
        self,
        listener: Listener,
        *,
        authorizer: Authorizer,
        registrar: Registrar,
        outcomes: Outcomes,
        call_tokens: CallTokens,
        approvals: Approvals,
        freezer: Freezer,
        following: Following,
        reaching: Reaching,
        keeper: BundleKeeper,
        evaluator: Evaluator,
        explainer: Explainer,
        searchable: SearchableRecord | None = None,
        segment_check: SegmentCheck | None = None,
        coverage: Coverage | None = None,
        authenticator: Authenticator,
        observer: Observer,
        clock: Clock,
        healthy: Callable[[], bool],
        record_healthy: Callable[[], bool] = lambda: True,
        store_healthy: Callable[[], bool] = lambda: True,
        limits: Limits = DEFAULT_LIMITS,
        links: Links = NO_LINKS,
        fences: Fences | None = None,
        reflection: bool = False,
        call_threads: int = CALL_THREADS,
        share_port: bool = False,
        control: bool = False,
        transport: str = GRPC,
        answers_left: Callable[[], None] = lambda: None,
        check_seconds: float = _CHECK_SECONDS,
    ) -> None:
        self._listener, self._control = listener, control
        self._observer = observer
        self._clock = clock
        of_parts = {RECORD: record_healthy, STORE: store_healthy}
        self._health = HealthHandlers(
            {**dict.fromkeys(("", AUTHORIZATION, SESSIONS, POLICIES), healthy), **of_parts}, every=check_seconds
        )
        self._access = AccessHandlers(approvals, limits, clock, every=check_seconds, searchable=searchable)
        self._followers = SessionFollowers(following, clock, limits, every=check_seconds)
        services: dict[str, object] = {
            AUTHORIZATION: AuthorizationHandlers(authorizer, outcomes, call_tokens, limits, links),
            SESSIONS: SessionHandlers(registrar, limits, self._followers, links),
            ACCESS: self._access,
            FREEZES: FreezeHandlers(freezer, limits),
            POLICIES: PolicyHandlers(keeper, evaluator, explainer, limits),
            AUDIT: AuditHandlers(
                searchable, segment_check, coverage=coverage or Coverage(None), clock=clock, limits=limits
            ),
            CALLERS: CallerHandlers(),
            REACH: ReachHandlers(reaching, keeper, searchable, clock=clock, limits=limits),
            CALL_TOKENS: CallTokenHandlers(call_tokens, limits),
            HEALTH: self._health,
        }
        if reflection:
            described = ReflectionHandlers((*services, REFLECTION, OLD_REFLECTION))
            services |= {REFLECTION: described, OLD_REFLECTION: described}
        serving = transport_of(transport)
        way = RightOfWay()
        lanes = {
            lane: BoundedPool(
                lane.value,
                room,
                limit=LIMITS_OF_LANES.get(lane, ""),
                # What ends authority gives way to nothing.
                way=way if lane is Lane.CALLS else None,
            )
            for lane, room in rooms(limits, call_threads=call_threads).items()
            if lane in CONTROL or not control
        }
        self._pools = tuple(lanes.values())
        idle = IdleWatch(clock, limit=limits.stream_idle_seconds)
        begun = BegunCalls(clock, limit=limits.message_seconds, unknown=max(1, _UNKNOWN_BYTES // limits.message_bytes))
        self._boundary = Boundary(
            _routes(services, limits, fences or Fences(), following.head, control=control),
            lanes,
            authenticator=authenticator,
            observer=observer,
            clock=clock,
            begun=begun,
            idle=idle,
            answers_left=answers_left,
            way=way,
        )

        def sweep() -> None:
            idle.sweep()
            begun.sweep()

        self._sweeper = Repeater("sweep", sweep, every=check_seconds)
        self._transport = serving(listener, self._boundary, limits, share_port=share_port)
        self._port = 0
        self._released = False

    @property
    def address(self) -> str:
        """Return the address to connect to, with the actual port."""
        if self._listener.socket or not self._port:
            return self._listener.address
        return f"{self._listener.address.rpartition(':')[0]}:{self._port}"

    @property
    def port(self) -> int:
        """Return the port, once started."""
        return self._port

    def start(self) -> None:
        """Listen and serve. Raise `ConfigurationError` when it cannot listen; the server is unusable then."""
        try:
            self._port = self._transport.bind()
        except ConfigurationError:
            self._release()
            raise
        self._sweeper.start()
        self._followers.start()
        self._transport.start()
        if self._control:
            _LOG.info("requests that end authority are also served at `%s`", self.address)
        self._tell(EventKind.SERVER_STARTED)

    def takes_calls(self) -> bool:
        """Say whether calls are taken; False while something blocks them all. Never waits."""
        return self._boundary.takes_calls()

    def drain(self) -> None:
        """Tell probes that the server no longer serves, and go on serving: the first half of a soft end."""
        self._health.drain()

    def stop(self, grace: float = 0.0) -> None:
        """Take no new calls, give open ones `grace` seconds, and end. Calling it twice is harmless."""
        self.drain()
        self._access.end()
        self._followers.stop()
        self._transport.stop(grace)
        if not self._released:
            self._release()
            if self._port:
                self._tell(EventKind.SERVER_STOPPED)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the server has stopped; return False after `timeout` seconds."""
        return self._transport.wait(timeout)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _release(self) -> None:
        self._released = True
        self._sweeper.stop()
        for pool in self._pools:
            pool.shutdown()

    def _tell(self, kind: EventKind) -> None:
        self._observer.event(Event(kind=kind, at=self._clock.now().wall_at, facts={"address": self.address}))


def rooms(limits: Limits, *, call_threads: int) -> Mapping[Lane, Room]:
    """Return how much each lane accepts, and the share of one caller.

    Where tasks can take long, one caller gets half of the threads, so that there is always one for the others.
    """
    calls, streams = limits.concurrent_calls, limits.streams
    return {
        Lane.CALLS: Room(threads=call_threads, bound=calls, share=_half(calls), patience=_PATIENCE_SECONDS),
        Lane.STREAMS: Room(threads=streams, bound=streams, share=_half(streams)),
        Lane.REPORTS: Room(threads=2, bound=calls, share=_half(calls), patience=_PATIENCE_SECONDS),
        Lane.ENDING: Room(threads=4, bound=64, share=16, turns=2),
        Lane.GATEWAY_ENDING: Room(threads=4, bound=128, share=32, turns=2),
        Lane.ACTIVATION: Room(threads=2, bound=16, share=4, turns=1),
        Lane.AUTHORING: Room(threads=2, bound=16, share=8, turns=1),
        Lane.AUDIT: Room(threads=2, bound=16, share=8, turns=1),
        Lane.REVIEWS: Room(threads=2, bound=64, share=16, turns=1),
        # One more watch of a caller is refused, and ends no other.
        Lane.ACCESS_WATCHES: Room(threads=16, bound=16, share=8),
        Lane.GATEWAY_ACCESS_WATCHES: Room(threads=24, bound=24, share=8),
        # They hold no thread: what all of them take is bounded by their number.
        Lane.SESSION_WATCHES: Room(threads=0, bound=2048, share=1024),
        Lane.PROBES: Room(threads=2, bound=32, share=32, patience=_PATIENCE_SECONDS),
        # One more watch ends the oldest, and waits for its thread.
        Lane.WATCHES: Room(threads=8, bound=16, share=16),
    }


def _half(bound: int) -> int:
    return max(1, bound // 2)


def _routes(
    services: Mapping[str, object], limits: Limits, fences: Fences, head: Callable[[], Head], *, control: bool
) -> dict[str, Route]:
    served = {path: rpc for path, rpc in RPCS.items() if rpc.service in services}
    routes = {path: _route(rpc, services[rpc.service], limits, fences, head) for path, rpc in served.items()}
    if not control:
        return routes
    return {path: replace(route, elsewhere=route.rpc.lane not in CONTROL) for path, route in routes.items()}


def _route(rpc: RPC, service: object, limits: Limits, fences: Fences, head: Callable[[], Head]) -> Route:
    parts = at_once = None
    if isinstance(service, AuthorizationHandlers):
        parts = independent_parts(service) if rpc.method == "BatchAuthorize" else None
        at_once = calls_at_once(service) if rpc.method == "Authorize" else None
    return Route(
        rpc=rpc,
        handle=in_fields(rpc.method, fenced(rpc.method, getattr(service, rpc.handler), fences, head)),
        upload_bytes=limits.bundle_bytes * _BUNDLE_FACTOR,
        longest_wait=limits.wait_seconds if rpc.lane is Lane.CALLS else math.inf,
        in_band=stream_error if rpc.method == "AuthorizeStream" else None,
        parts=parts,
        at_once=at_once,
        headers=partial(trace_headers_of, rpc.method),
    )
