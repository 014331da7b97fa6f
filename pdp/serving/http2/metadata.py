"""The headers of a gRPC call (`PROTOCOL-HTTP2.md` of gRPC): read strictly, and written."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final

from pdp.serving.http2.engine import Header

_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_SECONDS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_ENTRY_BYTES: Final = 32
_BINARY: Final = b"-bin"
# What belongs to the transport, and is no metadata of a caller.
_OF_TRANSPORT: Final = frozenset({b"content-type", b"te", b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding"})

Metadata = tuple[tuple[str, str | bytes], ...]


def size_of(headers: Sequence[Header]) -> int:
    """Return the size of headers as HTTP/2 counts it."""
    return sum(map(len, chain.from_iterable(headers))) + _ENTRY_BYTES * len(headers)


def timeout_of(value: bytes) -> float | None:
    """Return the seconds of `grpc-timeout`; None for what is malformed."""
    match = _TIMEOUT.fullmatch(value)
    return int(match[1]) * _SECONDS[match[2]] if match else None


def metadata_of(headers: Sequence[Header]) -> Metadata | None:
    """Return what a caller adds to its call, binary values decoded; None when one is malformed."""
    found: list[tuple[str, str | bytes]] = []
    for name, value in headers:
        if name.startswith(b":") or name in _OF_TRANSPORT:
            continue
        if name.endswith(_BINARY):
            decoded = _decoded(value)
            if decoded is None:
                return None
            found.extend((name.decode("ascii"), one) for one in decoded)
        else:
            # What is not ASCII does not become ASCII by this, and raises nothing.
            text = value.decode("latin-1")
            if not (text.isascii() and text.isprintable()):
                return None
            found.append((name.decode("ascii"), text))
    return tuple(found)


def percent_encoded(text: str) -> bytes:
    """Return text as `grpc-message` has it: other bytes than printable ASCII, and `%`, in hexadecimal."""
    return b"".join(
        bytes([byte]) if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte  # noqa: PLR2004 - of the specification
        for byte in text.encode()
    )


def trailers(status: int, message: str = "", details: Iterable[tuple[str, str | bytes]] = ()) -> list[Header]:
    """Return what ends an answer. Of the `details`, bytes are written as gRPC writes binary values."""
    found = [(b"grpc-status", b"%d" % status)]
    if message:
        found.append((b"grpc-message", percent_encoded(message)))
    for name, value in details:
        written = value.encode("ascii") if isinstance(value, str) else b64encode(value).rstrip(b"=")
        found.append((name.encode("ascii"), written))
    return found


def _decoded(value: bytes) -> list[bytes] | None:
    """Return binary values; several may be joined by commas, and none need be padded."""
    try:
        return [b64decode(one + b"=" * (-len(one) % 4), validate=True) for one in value.split(b",")]
    except binascii.Error:
        return None
