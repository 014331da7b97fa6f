"""Frames of HTTP/2 (RFC 9113): written, and taken apart as they come."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from pdp.bench.failure import WrongAnswerError

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 0x1, 0x1, 0x4, 0x8, 0x20
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 1, 2, 3, 4
# What counts until a peer's settings say otherwise. No peer may send larger frames than it was told to.
USUAL_TABLE, USUAL_WINDOW, MOST_FRAME = 4096, 65_535, 16_384

# The error of a call that the server has not begun.
REFUSED: Final = "REFUSED_STREAM"

_HEAD: Final = struct.Struct(">BHBBI")
_HEAD_BYTES: Final = 9
_SETTING: Final = struct.Struct(">HI")
_LAST_31_BITS: Final = 0x7FFF_FFFF
_PRIORITY_BYTES: Final = 5
_ERRORS: Final = (
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
    "FRAME_SIZE_ERROR", REFUSED, "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
)  # fmt: skip


class Frame(NamedTuple):
    """One frame: what it is, its flags, its stream or 0 for the connection, and what it holds."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return the bytes of a frame."""
    length = len(payload)
    return _HEAD.pack(length >> 16, length & 0xFFFF, kind, flags, stream) + payload


def settings_frame(settings: dict[int, int]) -> bytes:
    """Return the bytes of a frame of settings."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*one) for one in settings.items()))


def window_frame(stream: int, more: int) -> bytes:
    """Return the bytes of a frame that lets the peer send more, on a stream or on the connection."""
    return frame(WINDOW_UPDATE, 0, stream, more.to_bytes(4))


class FrameReader:
    """Takes bytes as they come, and gives whole frames."""

    def __init__(self) -> None:
        self._rest = b""

    def read(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that are complete now. Raise `WrongAnswerError` for one that is too large."""
        data = self._rest + data if self._rest else data
        at, end = 0, len(data)
        while end - at >= _HEAD_BYTES:
            high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
            length = high << 16 | low
            if length > MOST_FRAME:
                raise WrongAnswerError(f"the server sent a frame of {length} bytes, and {MOST_FRAME} are allowed")
            first = at + _HEAD_BYTES
            if first + length > end:
                break
            at = first + length
            yield Frame(kind, flags, stream & _LAST_31_BITS, data[first:at])
        self._rest = data[at:]


def settings_of(payload: bytes) -> Iterator[tuple[int, int]]:
    """Yield the settings in a frame. Raise `WrongAnswerError` for a part of one."""
    if len(payload) % _SETTING.size:
        raise WrongAnswerError("the server sent a part of a setting")
    yield from _SETTING.iter_unpack(payload)


def number_of(payload: bytes) -> int:
    """Return the 31 bits in a frame that names a window or a stream."""
    return int.from_bytes(payload[:4]) & _LAST_31_BITS


def content_of(flags: int, payload: bytes) -> bytes:
    """Return what a frame of data or headers holds, without padding. Raise `WrongAnswerError` when that is too long."""
    if flags & PADDED:
        if not payload or payload[0] >= len(payload):
            raise WrongAnswerError("the server padded a frame with more than it holds")
        payload = payload[1 : len(payload) - payload[0]]
    return payload[_PRIORITY_BYTES:] if flags & PRIORITIZED else payload


def error_name(payload: bytes) -> str:
    """Return the name of an error."""
    number = int.from_bytes(payload)
    return _ERRORS[number] if number < len(_ERRORS) else f"error {number}"
