"""Refuse calls: turn errors into refusals, and end calls with them. Observers and the log are told of each."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NoReturn, TypeVar, TypeVarTuple

from pdp.clock import Clock
from pdp.identity.authentication import Metadata
from pdp.model import Caller
from pdp.observer import Event, EventKind, Observer
from pdp.serving.origin import Origin, trace_id_of, trace_parent
from pdp.serving.refusedcredentials import RefusedCredentials, peer_address
from pdp.serving.rpc import RPC
from pdp.serving.status import Refusal, internal_error, refusal_of
from pdp.serving.transport import Context, Incoming

_LOG = logging.getLogger("pdp.server")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Refuser:
    """Refuses calls, also on the transport's own thread, so `observer` must not wait."""

    def __init__(self, observer: Observer, clock: Clock) -> None:
        self._observer = observer
        self._clock = clock
        self._credentials = RefusedCredentials(clock)

    def refuse(self, rpc: RPC, caller: Caller, incoming: Incoming, refusal: Refusal) -> None:
        """End a call at once, on this thread: its status is sent without waiting."""

        def refuse(_: bytes, context: Context) -> NoReturn:
            self.end(rpc, caller, incoming.metadata, refusal, context)

        incoming.serve(refuse, b"")

    def end(self, rpc: RPC, caller: Caller, metadata: Metadata, refusal: Refusal, context: Context) -> NoReturn:
        """End an RPC with a status. Never returns: the transport unwinds its handler with an exception of its own."""
        self.tell(rpc, caller, metadata, refusal, peer_address(context))
        context.set_trailing_metadata(refusal.trailing_metadata)
        context.abort(refusal.code, refusal.details)

    def tell(self, rpc: RPC, caller: Caller, metadata: Metadata, refusal: Refusal, peer: str) -> None:
        """Tell the observer and the log of a refusal: also of one after which the call goes on."""
        self._credentials.tell(rpc.name, refusal, peer)
        facts = {"rpc": rpc.name, "status": refusal.code.name, "peer": peer}
        facts |= {"field": refusal.field} if refusal.field else {}
        facts |= Origin(caller=caller, parent=trace_parent(metadata)).trace
        at = self._clock.now().wall_at
        self._observer.event(
            Event(kind=EventKind.REQUEST_REFUSED, at=at, caller_id=caller.id, tenant=caller.tenant, facts=facts)
        )


def attempt(rpc: RPC, metadata: Metadata, work: Callable[[*Ts], T], *args: *Ts) -> T | Refusal:
    """Do some work; turn any error into a refusal, here and nowhere else."""
    try:
        return work(*args)
    except Exception as error:  # noqa: BLE001 - the one place that turns errors into statuses
        return refusal_for(rpc, metadata, error)


def refusal_for(rpc: RPC, metadata: Metadata, error: Exception) -> Refusal:
    """Return what the caller receives for an error, and log an unforeseen one."""
    refusal = refusal_of(error)
    if refusal is None:
        trace_id = trace_id_of(trace_parent(metadata))
        _LOG.error("%s failed (trace id %s)", rpc.name, trace_id, exc_info=error)
        refusal = internal_error(trace_id)
    return refusal
