"""The headers of a call of gRPC, read strictly: what is asked, or how it is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from grpc import StatusCode

from pdp.serving.http2.engine import Header
from pdp.serving.http2.metadata import Metadata, metadata_of, size_of, timeout_of
from pdp.serving.http2.stream import Refused

_CONTENT_TYPES: Final = frozenset({b"application/grpc", b"application/grpc+proto"})
# Headers of the transport, which are there once.
_ONCE: Final = frozenset({b"content-type", b"te", b"grpc-timeout", b"grpc-encoding"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the headers of a call ask for. `timeout` is in seconds, and infinite for a caller that waits for ever."""

    path: str
    metadata: Metadata
    timeout: float
    refused: Refused | None


def refused_by_http(headers: Sequence[Header]) -> Sequence[Header] | None:
    """Return the answer of HTTP to what is no call of gRPC; None for one."""
    fields = dict(headers)
    if fields.get(b":method") != b"POST":
        return ((b":status", b"405"), (b"allow", b"POST"))
    if fields.get(b"content-type") not in _CONTENT_TYPES:
        return ((b":status", b"415"),)
    once = [name for name, _ in headers if name in _ONCE]
    if fields.get(b"te") != b"trailers" or len(set(once)) != len(once):
        return ((b":status", b"400"),)
    return None


def request_of(headers: Sequence[Header], *, most_bytes: int) -> Request:
    """Return what a call of gRPC asks for. More than `most_bytes`, as HTTP/2 counts them, are refused."""
    fields = dict(headers)
    timeout = fields.get(b"grpc-timeout")
    seconds = math.inf if timeout is None else timeout_of(timeout)
    found = metadata_of(headers)
    refused: Refused | None = None
    if found is None or seconds is None:
        refused = StatusCode.INTERNAL, "the metadata of the call is malformed"
    elif fields.get(b"grpc-encoding", b"identity") != b"identity":
        refused = StatusCode.UNIMPLEMENTED, "compressed messages are not taken"
    elif size_of(headers) > most_bytes:
        refused = StatusCode.RESOURCE_EXHAUSTED, "the metadata of the call is too large"
    return Request(
        path=fields[b":path"].decode("ascii", "replace"),
        metadata=found or (),
        timeout=math.inf if seconds is None else seconds,
        refused=refused,
    )
