"""What a connection needs of a library for HTTP/2: frames, headers, windows. Nothing here knows gRPC."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from pdp.errors import PDPError

Header = tuple[bytes, bytes]


class BrokenPeerError(PDPError):
    """The peer broke the rules of HTTP/2, or a bound: send what is left, and close the connection."""


class Receiver(Protocol):
    """Is told what has come, in order. Streams are known by their numbers."""

    def begun(self, stream: int, headers: Sequence[Header], *, ended: bool) -> None:
        """Take the headers of a request; `ended` says that nothing follows them."""
        ...

    def came(self, stream: int, data: bytes, *, ended: bool) -> None:
        """Take a part of a request's body."""
        ...

    def over(self, stream: int, *, reset: bool) -> None:
        """Take note that a stream is closed, `reset` by the peer or answered in full; it takes no answer any more."""
        ...

    def controlled(self) -> None:
        """Take note of a ping, or of settings."""
        ...


class Engine(Protocol):
    """One connection as a server has it.

    An answer to a stream that is over is not sent, and raises nothing: its caller is gone. What is sent waits for the
    peer's windows in `waiting` bytes, of one stream in `queued` bytes.
    """

    def receive(self, data: bytes, receiver: Receiver) -> None:
        """Take bytes from the peer. Raise `BrokenPeerError` when no more can be taken."""
        ...

    def respond(self, stream: int, headers: Iterable[Header], *, ends: bool = False) -> None:
        """Send the headers of an answer."""
        ...

    def send(self, stream: int, data: bytes) -> None:
        """Send a part of the body of an answer."""
        ...

    def end(self, stream: int, trailers: Iterable[Header]) -> None:
        """End an answer with trailers, after its body."""
        ...

    def reset(self, stream: int, *, cancels: bool) -> None:
        """End a stream of which no more is wanted, after what was sent on it; `cancels` what is not answered."""
        ...

    def give(self, stream: int, count: int) -> None:
        """Let the peer send as many bytes again."""
        ...

    def ping(self) -> None:
        """Ask for a sign of life."""
        ...

    def announce(self) -> None:
        """Tell the peer that it will soon be told to begin no more streams: those that it begins now are served."""
        ...

    def leave(self, *, at_once: bool) -> None:
        """Tell the peer to begin no more streams; `at_once`, that it was too much."""
        ...

    def outgoing(self) -> bytes:
        """Return the bytes for the peer since the last time."""
        ...

    @property
    def unsent(self) -> int:
        """Return how many bytes `outgoing` has already: the peer's windows hold none of them back."""
        ...

    def queued(self, stream: int) -> int:
        """Return how many bytes of the body of one stream wait for the peer's windows."""
        ...

    @property
    def waiting(self) -> int:
        """Return how many bytes of bodies wait for the peer's windows."""
        ...
