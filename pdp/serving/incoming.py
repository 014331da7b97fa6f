"""Calls as gRPC hands them over: admitted on gRPC's own thread, received without a thread, served on one of ours.

gRPC's server gives a call a thread first, on which it waits for the message without a bound: who begins calls and does
not send them holds every thread. gRPC has no public way to do better, so this module uses its inside. No other module
does, and `require_known_grpc` refuses a gRPC whose inside is not the one that is known here.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import grpc
from grpc._cython.cygrpc import ReceiveMessageOperation, auth_context
from grpc._server import (
    _CANCELLED,
    _RECEIVE_MESSAGE_TOKEN,
    _is_rpc_state_active,
    _receive_message,
    _stream_response_in_pool,
    _unary_response_in_pool,
)

from pdp.errors import ConfigurationError

_LOG = logging.getLogger("pdp.server")

T = TypeVar("T")

_NO_FLAGS = 0
_ANSWERING = ("rpc_event", "state", "behavior", "argument_thunk", "request_deserializer", "response_serializer")
_KNOWN: Mapping[Any, tuple[str, ...]] = {
    _is_rpc_state_active: ("state",),
    _receive_message: ("state", "call", "request_deserializer"),
    _stream_response_in_pool: _ANSWERING,
    _unary_response_in_pool: _ANSWERING,
}

# What answers on a thread of ours: the message, or the messages of a stream, and gRPC's context.
Behavior = Callable[[Any, Any], Any]


def require_known_grpc() -> None:
    """Raise `ConfigurationError` when this gRPC is another one inside than the one that is used here."""
    for function, parameters in _KNOWN.items():
        if tuple(inspect.signature(function).parameters) != parameters:
            raise ConfigurationError(f"this server does not know gRPC `{grpc.__version__}`: install an earlier one")


class Incoming:
    """One call that gRPC has begun to serve. Nothing here waits, but what `serve` and `exchange` run may."""

    __slots__ = ("_answer", "_event", "_requests", "_run", "_state")

    def __init__(self, run: Any, answer: Any, event: Any, state: Any, requests: Any) -> None:  # noqa: ANN401 - gRPC has no types
        self._run, self._answer = run, answer
        self._event, self._state = event, state
        self._requests = requests

    @property
    def metadata(self) -> Sequence[tuple[str, str | bytes]]:
        """Return what the caller sent beside its message."""
        return self._event.invocation_metadata  # type: ignore[no-any-return]  # gRPC has no types

    @property
    def cancelled(self) -> bool:
        """Say whether the caller has gone."""
        return self._state.client is _CANCELLED

    def peer(self) -> Mapping[str, Sequence[bytes]]:
        """Return what TLS has proved about the other end of the connection, as a context of gRPC has it."""
        return {name.decode(): values for name, values in (auth_context(self._event.call) or {}).items()}

    def receive(self, then: Callable[[bytes | None], None]) -> None:
        """Call `then` with the next message when it has come, on gRPC's own thread; with None when there is none.

        When the call is over already, it is called with None at once.
        """
        state = self._state
        keep = _receive_message(state, self._event.call, None)

        def received(event: Any) -> Any:  # noqa: ANN401 - gRPC has no types
            outcome = keep(event)
            wire, state.request = state.request, None
            _guarded(then, wire)
            return outcome

        with state.condition:
            # gRPC has forgotten a call that is over: to do so a second time would end its thread.
            active = _is_rpc_state_active(state)
            if active:
                self._event.call.start_server_batch((ReceiveMessageOperation(_NO_FLAGS),), received)
                state.due.add(_RECEIVE_MESSAGE_TOKEN)
        if not active:
            then(None)

    def serve(self, behavior: Behavior, wire: bytes) -> None:
        """Answer with what `behavior` makes of a message."""
        self._run(self._answer, self._event, self._state, behavior, lambda: wire, None, None)

    def exchange(self, behavior: Behavior) -> None:
        """Answer with what `behavior` makes of the messages of a stream."""
        self._run(self._answer, self._event, self._state, behavior, self._requests, None, None)


class Entrance(ThreadPoolExecutor):
    """Gives `take` each call of a route, on gRPC's own thread: it must neither wait nor raise.

    It is an executor by name, because gRPC takes no other, and has no threads.
    """

    def __init__(self, take: Callable[[Incoming], None]) -> None:
        super().__init__(max_workers=1)  # makes a thread only for its own `submit`, which is never called
        self._take = take

    def submit(  # type: ignore[override]  # gRPC uses no more of a future than `add_done_callback`
        self,
        run: Any,  # noqa: ANN401 - gRPC has no types
        answer: Any,  # noqa: ANN401 - the same
        event: Any,  # noqa: ANN401 - the same
        state: Any,  # noqa: ANN401 - the same
        behavior: Any,  # noqa: ANN401, ARG002 - the same
        requests: Any,  # noqa: ANN401 - the same
        *coders: Any,  # noqa: ANN401, ARG002 - the same
    ) -> Entrance:
        """Take a call."""
        _guarded(self._take, Incoming(run, answer, event, state, requests))
        return self

    def add_done_callback(self, _: object) -> None:
        """Tell gRPC nothing: it would count calls for a bound of its own, which is not used."""


def _guarded(work: Callable[[T], None], what: T) -> None:
    try:
        work(what)
    except Exception:  # noqa: BLE001 - gRPC's own thread would end, and with it the server
        _LOG.exception("a call could not be taken")


def entered_by(handler: Callable[[Behavior], Any], take: Callable[[Incoming], None]) -> Any:  # noqa: ANN401 - gRPC has no types
    """Return a handler of gRPC, made by one of its functions, whose calls are given to `take`."""

    def behavior(_: Any, __: Any) -> None:  # noqa: ANN401 - gRPC has no types
        raise AssertionError("gRPC answers a call by itself")

    # How gRPC learns whom to give a call.
    behavior.experimental_thread_pool = Entrance(take)  # type: ignore[attr-defined]  # gRPC's own convention
    return handler(behavior)
