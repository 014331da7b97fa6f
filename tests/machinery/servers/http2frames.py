"""Frames of HTTP/2 as a client of gRPC sends them, and as no client should."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pdp.bench import frames
from pdp.bench.frames import frame

PATH = "/pdp.v1.AuthorizationService/Authorize"
USUAL = {
    ":method": "POST",
    ":scheme": "http",
    ":authority": "pdp",
    ":path": PATH,
    "content-type": "application/grpc",
    "te": "trailers",
}


def headers(
    stream: int,
    changes: Mapping[str, str] | None = None,
    *,
    more: Sequence[tuple[str, bytes]] = (),
    flags: int = frames.END_HEADERS,
) -> bytes:
    """Return the headers of a call, with changes; an empty one leaves a header out. `more` follow them."""
    fields = [(name, value.encode()) for name, value in {**USUAL, **(changes or {})}.items() if value]
    written = (b"\x00" + text(name.encode()) + text(value) for name, value in (*fields, *more))
    return frame(frames.HEADERS, flags, stream, b"".join(written))


def text(value: bytes) -> bytes:
    """Return a text as HPACK writes it, without its Huffman code."""
    size = len(value)
    if size < 127:
        return bytes([size]) + value
    rest = size - 127
    return bytes([127, rest & 127 | 128, rest >> 7]) + value


def message(wire: bytes) -> bytes:
    """Return a message as gRPC frames it."""
    return b"\x00" + len(wire).to_bytes(4) + wire


def data(stream: int, payload: bytes, *, ended: bool = True) -> bytes:
    """Return a part of a body."""
    return frame(frames.DATA, frames.END_STREAM if ended else 0, stream, payload)


def whole(stream: int, changes: Mapping[str, str] | None = None) -> bytes:
    """Return a whole call."""
    return headers(stream, changes) + data(stream, message(b"question"))
