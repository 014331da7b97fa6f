"""A peer of a connection in memory: it sends bytes, sees frames, and answers the calls that were handed out."""

from __future__ import annotations

from dataclasses import dataclass

from grpc import StatusCode

from pdp.bench import frames
from pdp.bench.frames import FrameReader
from pdp.bench.hpack import read_block
from pdp.serving.http2.bounds import Bounds
from pdp.serving.http2.connection import GRPCConnection
from pdp.serving.http2.nghttp2 import NGHTTP2Engine
from pdp.serving.http2.stream import Stream
from tests.machinery.servers.http2frames import PATH

STREAM = "/pdp.v1.AuthorizationService/AuthorizeStream"
PATHS = {PATH: True, STREAM: False}


@dataclass
class Ended:
    """How a stream ended, as its peer sees it."""

    headers: dict[str, str]
    reset: bool = False

    @property
    def status(self) -> tuple[str, str]:
        """Return the status of gRPC and its text."""
        return self.headers.get("grpc-status", ""), self.headers.get("grpc-message", "")


class Taken:
    """Takes calls, and each message as soon as it can be taken."""

    def __init__(self) -> None:
        self.open: dict[int, Stream] = {}
        self.complete: list[tuple[Stream, bytes | None]] = []
        self.gone: list[int] = []
        self.connection: GRPCConnection

    def begun(self, stream: Stream) -> None:
        """Keep a call, and ask for its message."""
        self.open[stream.id] = stream
        stream.asked = True

    def heard(self, stream: Stream) -> None:
        """Take a message."""
        self.complete.append((stream, self.connection.take(stream)))

    def left(self, stream: Stream) -> None:
        """Keep that a caller has left."""
        self.gone.append(stream.id)


class Peer:
    """A peer that has sent its preface and settings."""

    def __init__(self, **bounds: float) -> None:
        self.calls = Taken()
        self.connection = GRPCConnection(NGHTTP2Engine, PATHS, Bounds(**bounds), self.calls)  # type: ignore[arg-type]  # fields
        self.calls.connection = self.connection
        self.now = 0.0
        self.reader = FrameReader()
        self.connection.outgoing()
        self.send(frames.PREFACE + frames.settings_frame({frames.HEADER_TABLE_SIZE: 0}))
        self.frames()

    def send(self, sent: bytes) -> list[int]:
        """Send bytes; return the streams of the calls whose messages have come."""
        self.calls.complete.clear()
        self.connection.receive(sent, self.now)
        return [stream.id for stream, _ in self.calls.complete]

    def answer(self, stream: int, wire: bytes) -> None:
        """Answer a call."""
        self.connection.send(self.calls.open[stream], wire)
        self.connection.end(self.calls.open[stream], StatusCode.OK)

    def frames(self) -> list[frames.Frame]:
        """Return what has come back."""
        return [*self.reader.read(self.connection.outgoing())]

    def ended(self) -> dict[int, Ended]:
        """Return how streams have ended."""
        found: dict[int, Ended] = {}
        for one in self.frames():
            if one.kind == frames.HEADERS and one.flags & frames.END_STREAM:
                found[one.stream] = Ended(dict(read_block(one.payload)))
            elif one.kind == frames.RST_STREAM and one.stream in found:
                found[one.stream].reset = True
        return found

    def was_told(self) -> str:
        """Return the error with which the connection was ended; empty while it goes on."""
        told = [frames.error_name(one.payload[4:8]) for one in self.frames() if one.kind == frames.GOAWAY]
        return told[-1] if told else ""
