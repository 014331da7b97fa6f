"""What the boundary needs of a transport: calls as they begin, and each call while it is answered.

No handler knows which transport brought its call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, Protocol

from grpc import StatusCode

from pdp.identity.authentication import Metadata, Peer


class Context(Protocol):
    """A call while it is answered, on one of our threads. gRPC's own context is one."""

    def is_active(self) -> bool:
        """Say whether the caller still waits for an answer."""
        ...

    def time_remaining(self) -> float:
        """Return for how many seconds the caller still waits: infinity without a deadline, and never less than zero."""
        ...

    def peer(self) -> str:
        """Return the address of the peer as gRPC writes it: `ipv4:127.0.0.1:50151`, `unix:`."""
        ...

    def auth_context(self) -> Peer:
        """Return what TLS has proved about the peer; empty without a client's certificate."""
        ...

    def cancel(self) -> None:
        """End the call without a word. Safe for threads, and harmless when it is over."""
        ...

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Have `callback` called when the call is over; return False, and never call it, when it already is."""
        ...

    def set_trailing_metadata(self, trailing_metadata: Sequence[tuple[str, str | bytes]]) -> None:
        """Set what goes out with the status."""
        ...

    def abort(self, code: StatusCode, details: str) -> NoReturn:
        """End the call with a status. The transport catches what this raises."""
        ...


# What answers a call: takes its message, or the messages of a stream, and returns the answer, or yields the answers.
Behavior = Callable[[Any, Context], bytes | Iterator[bytes]]


class Outgoing(Protocol):
    """The answers to a call, sent one after another without waiting. One thread at a time may use it."""

    @property
    def over(self) -> bool:
        """Say whether the call has ended."""
        ...

    @property
    def idle(self) -> bool:
        """Say whether the last message has been passed on, so that the next can be sent."""
        ...

    def cancel(self) -> None:
        """End the call without a word."""
        ...

    def send(self, wire: bytes) -> None:
        """Send a message, unless the call is over. It must be `idle`."""
        ...


class Incoming(Protocol):
    """A call that has begun: its headers are known, and its message may not have come yet.

    Nothing here waits, except what `serve` and `exchange` run.
    """

    @property
    def metadata(self) -> Metadata:
        """Return what the caller sent with its message."""
        ...

    @property
    def cancelled(self) -> bool:
        """Say whether the caller has left the call."""
        ...

    @property
    def in_turns(self) -> bool:
        """Say whether the transport's own thread can answer it: it has a large stack, and tells when a turn is over."""
        ...

    def answer(self, wire: bytes) -> None:
        """Answer with one message, without waiting, on the transport's own thread."""
        ...

    def auth_context(self) -> Peer:
        """Return what TLS has proved about the peer; empty without a client's certificate."""
        ...

    def at_hand(self) -> bytes | None:
        """Return the message if it came with the call, as the call begins; None for one to `receive`."""
        ...

    def receive(self, then: Callable[[bytes | None], None]) -> None:
        """Call `then` with the next message, or None without one, on the transport's own thread.

        When the call is already over, `then` is called with None at once.
        """
        ...

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Have `callback` called on the transport's own thread when the call is over; return False when it already is.

        It is then never called.
        """
        ...

    def begin(self) -> Outgoing:
        """Begin to answer with messages that are sent without waiting."""
        ...

    def serve(self, behavior: Behavior, wire: bytes) -> None:
        """Answer with what `behavior` makes of a message, on this thread."""
        ...

    def exchange(self, behavior: Behavior) -> None:
        """Answer with what `behavior` makes of the messages of a stream, on this thread, which waits for them."""
        ...


class Transport(Protocol):
    """A server on one address, which passes each call to the boundary."""

    def bind(self) -> int:
        """Take the address; return the port, or 1 for a Unix socket. Raise `ConfigurationError` when it cannot."""
        ...

    def start(self) -> None:
        """Serve."""
        ...

    def stop(self, grace: float) -> None:
        """Take no new calls, give open ones `grace` seconds, and wait until all have ended. Harmless when repeated."""
        ...

    def wait(self, timeout: float | None) -> bool:
        """Wait until the server has stopped; return False after `timeout` seconds."""
        ...
