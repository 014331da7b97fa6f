"""Calls from gRPC: admitted on gRPC's own thread, received without a thread, served on one of ours.

By default a gRPC server gives each call a thread at once, and the thread waits for the message without a limit:
a client that begins calls and does not send messages holds every thread. gRPC has no public way to avoid this, so this
module uses its internals. No other module does, and `require_known_grpc` refuses a gRPC whose internals differ.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import grpc
from grpc._cython.cygrpc import ReceiveMessageOperation, SendMessageOperation, auth_context
from grpc._server import (
    _CANCELLED,
    _RECEIVE_MESSAGE_TOKEN,
    _SEND_INITIAL_METADATA_AND_SEND_MESSAGE_TOKEN,
    _SEND_MESSAGE_TOKEN,
    _get_initial_metadata_operation,
    _is_rpc_state_active,
    _receive_message,
    _send_message,
    _stream_response_in_pool,
    _unary_response_in_pool,
)

from pdp.errors import ConfigurationError
from pdp.serving.transport import Behavior

_LOG = logging.getLogger("pdp.server")

T = TypeVar("T")

_NO_FLAGS = 0
_ANSWERING = ("rpc_event", "state", "behavior", "argument_thunk", "request_deserializer", "response_serializer")
_KNOWN: Mapping[Any, tuple[str, ...]] = {
    _is_rpc_state_active: ("state",),
    _get_initial_metadata_operation: ("state", "metadata"),
    _receive_message: ("state", "call", "request_deserializer"),
    _send_message: ("state", "token"),
    _stream_response_in_pool: _ANSWERING,
    _unary_response_in_pool: _ANSWERING,
}


def require_known_grpc() -> None:
    """Raise `ConfigurationError` when the internals of this gRPC are not the ones used here."""
    for function, parameters in _KNOWN.items():
        if tuple(inspect.signature(function).parameters) != parameters:
            raise ConfigurationError(f"gRPC `{grpc.__version__}` is not supported: install an earlier version")


class GRPCIncoming:
    """A call that gRPC has begun to serve."""

    __slots__ = ("_answer", "_event", "_requests", "_run", "_state")

    def __init__(self, run: Any, answer: Any, event: Any, state: Any, requests: Any) -> None:  # noqa: ANN401 - gRPC has no types
        self._run, self._answer = run, answer
        self._event, self._state = event, state
        self._requests = requests

    @property
    def metadata(self) -> Sequence[tuple[str, str | bytes]]:
        """Return what the caller sent with its message."""
        return self._event.invocation_metadata  # type: ignore[no-any-return]  # gRPC has no types

    @property
    def cancelled(self) -> bool:
        """Say whether the caller has cancelled the call."""
        return self._state.client is _CANCELLED

    @property
    def in_turns(self) -> bool:
        """Return False: gRPC's own thread has a small stack, and takes calls one by one."""
        return False

    def answer(self, wire: bytes) -> None:
        """Answer with one message."""
        self.serve(lambda _, __: wire, b"")

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """Return what TLS has proved about the peer."""
        return {name.decode(): values for name, values in (auth_context(self._event.call) or {}).items()}

    def at_hand(self) -> None:
        """Return None: gRPC tells of each message later."""

    def receive(self, then: Callable[[bytes | None], None]) -> None:
        """Call `then` with the next message, or None without one, on gRPC's own thread.

        When the call is already over, `then` is called with None at once.
        """
        state = self._state
        keep = _receive_message(state, self._event.call, None)

        def received(event: Any) -> Any:  # noqa: ANN401 - gRPC has no types
            outcome = keep(event)
            wire, state.request = state.request, None
            _guarded(then, wire)
            return outcome

        with state.condition:
            # gRPC has forgotten a call that is over: forgetting it again would end gRPC's thread.
            active = _is_rpc_state_active(state)
            if active:
                self._event.call.start_server_batch((ReceiveMessageOperation(_NO_FLAGS),), received)
                state.due.add(_RECEIVE_MESSAGE_TOKEN)
        if not active:
            then(None)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Have `callback` called on gRPC's own thread when the call is over; return False when it already is."""
        state = self._state
        with state.condition:
            if state.callbacks is None:
                return False
            state.callbacks.append(callback)
            return True

    def begin(self) -> GRPCOutgoing:
        """Begin to answer with messages that are sent without waiting."""
        return GRPCOutgoing(self._event, self._state)

    def serve(self, behavior: Behavior, wire: bytes) -> None:
        """Answer with what `behavior` makes of a message."""
        self._run(self._answer, self._event, self._state, behavior, lambda: wire, None, None)

    def exchange(self, behavior: Behavior) -> None:
        """Answer with what `behavior` makes of the messages of a stream."""
        self._run(self._answer, self._event, self._state, behavior, self._requests, None, None)


class GRPCOutgoing:
    """The answers to a call, sent one after another without waiting.

    gRPC's own way waits until the client takes each message: a slow one would hold the thread.
    """

    __slots__ = ("_event", "_state")

    def __init__(self, event: Any, state: Any) -> None:  # noqa: ANN401 - gRPC has no types
        self._event, self._state = event, state

    @property
    def over(self) -> bool:
        """Say whether the call has ended."""
        return not _is_rpc_state_active(self._state)

    @property
    def idle(self) -> bool:
        """Say whether gRPC has passed on the last message. It keeps one for a client that does not read."""
        due: set[str] = self._state.due
        return due.isdisjoint((_SEND_MESSAGE_TOKEN, _SEND_INITIAL_METADATA_AND_SEND_MESSAGE_TOKEN))

    def cancel(self) -> None:
        """End the call without a word."""
        self._event.call.cancel()

    def send(self, wire: bytes) -> None:
        """Send a message, unless the call is over. It must be `idle`."""
        state = self._state
        with state.condition:
            if not _is_rpc_state_active(state):
                return
            operations: tuple[Any, ...] = (SendMessageOperation(wire, _NO_FLAGS),)
            token = _SEND_MESSAGE_TOKEN
            if state.initial_metadata_allowed:
                operations = (_get_initial_metadata_operation(state, None), *operations)
                state.initial_metadata_allowed = False
                token = _SEND_INITIAL_METADATA_AND_SEND_MESSAGE_TOKEN
            self._event.call.start_server_batch(operations, _send_message(state, token))
            state.due.add(token)


class Entrance(ThreadPoolExecutor):
    """Passes each call of a route to `take`, on gRPC's own thread; `take` must neither wait nor raise.

    It is an executor in name only, because gRPC accepts nothing else, and has no threads.
    """

    def __init__(self, take: Callable[[GRPCIncoming], None]) -> None:
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
        _guarded(self._take, GRPCIncoming(run, answer, event, state, requests))
        return self

    def add_done_callback(self, _: object) -> None:
        """Do nothing: gRPC would count calls for a limit of its own, which is not used."""


def _guarded(work: Callable[[T], None], what: T) -> None:
    try:
        work(what)
    except Exception:  # noqa: BLE001 - gRPC's own thread would end, and with it the server
        _LOG.exception("a call could not be accepted")


def entered_by(handler: Callable[..., Any], take: Callable[[GRPCIncoming], None]) -> Any:  # noqa: ANN401 - gRPC has no types
    """Return a gRPC handler, made by `handler`, whose calls go to `take`."""

    def behavior(_: Any, __: Any) -> None:  # noqa: ANN401 - gRPC has no types
        raise AssertionError("gRPC answers a call by itself")

    # gRPC reads here which executor gets the call.
    behavior.experimental_thread_pool = Entrance(take)  # type: ignore[attr-defined]  # gRPC's own convention
    return handler(behavior)
