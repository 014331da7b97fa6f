"""The headers of a call of gRPC, read strictly: what is asked, or how it is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import compress
from operator import itemgetter
from typing import Final, NamedTuple

from grpc import StatusCode

from pdp.serving.http2.engine import Header
from pdp.serving.http2.metadata import Metadata, metadata_of, size_of, timeout_of
from pdp.serving.http2.stream import Refused

_CONTENT_TYPES: Final = frozenset({b"application/grpc", b"application/grpc+proto"})
# Headers of the transport, which are there once.
_ONCE: Final = frozenset({b"content-type", b"te", b"grpc-timeout", b"grpc-encoding"})
_TIMEOUT: Final = b"grpc-timeout"
# What a client sends in the same way with all calls of a method. INVARIANT: none of them is a secret.
_USUAL: Final = frozenset(
    {
        b":authority",
        b":method",
        b":path",
        b":scheme",
        b"content-type",
        b"grpc-accept-encoding",
        b"grpc-encoding",
        b"te",
        b"user-agent",
    }
)
# A connection remembers no more than this of them, with two places for each header of the call.
_MOST_REMEMBERED, _PLACES_BYTES = 1024, 16
_NAME: Final = itemgetter(0)


class Request(NamedTuple):
    """What the headers of a call ask for. `timeout` is in seconds, and infinite for a caller that waits for ever.

    `unlike_grpc` is the answer of HTTP to what is no call of gRPC; nothing else counts then.
    """

    path: str
    metadata: Metadata
    timeout: float
    refused: Refused | None
    unlike_grpc: Sequence[Header] | None = None


class _Usual(NamedTuple):
    """What the usual headers of a call say, and their size as HTTP/2 counts it."""

    path: str
    metadata: Metadata | None
    unlike_grpc: Sequence[Header] | None
    compressed: bool
    size: int


class Requests:
    """Reads the headers of the calls on one connection; more than `most_bytes`, as HTTP/2 counts them, are refused.

    The usual headers of a call before are remembered with what they say: a client sends the same ones, in the same
    places, with each call.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._usual_headers: list[Header] = []
        # For each header of the call before, whether it was one of these, and whether it was not.
        self._are_usual: list[bool] = []
        self._are_own: list[bool] = []
        self._usual = _usual([])

    def read(self, headers: Sequence[Header]) -> Request:
        """Return what a call of gRPC asks for."""
        if len(headers) == len(self._are_own) and [*compress(headers, self._are_usual)] == self._usual_headers:
            own = [*compress(headers, self._are_own)]
            if _USUAL.isdisjoint(map(_NAME, own)):
                return self._request(self._usual, own)
        return self._read_anew(headers)

    def _read_anew(self, headers: Sequence[Header]) -> Request:
        are_usual = [name in _USUAL for name, _ in headers]
        are_own = [not one for one in are_usual]
        listed = [*compress(headers, are_usual)]
        usual = _usual(listed)
        if usual.size + _PLACES_BYTES * len(headers) <= _MOST_REMEMBERED:
            self._usual_headers, self._usual = listed, usual
            self._are_usual, self._are_own = are_usual, are_own
        return self._request(usual, [*compress(headers, are_own)])

    def _request(self, usual: _Usual, own: Sequence[Header]) -> Request:
        timeouts = [value for name, value in own if name == _TIMEOUT]
        unlike_grpc = usual.unlike_grpc or (((b":status", b"400"),) if len(timeouts) > 1 else None)
        if unlike_grpc is not None:
            return Request(usual.path, (), math.inf, None, unlike_grpc)
        seconds = timeout_of(timeouts[0]) if timeouts else math.inf
        found = metadata_of(own)
        if usual.metadata is None or found is None or seconds is None:
            refused = StatusCode.INTERNAL, "the metadata of the call is malformed"
        elif usual.compressed:
            refused = StatusCode.UNIMPLEMENTED, "compressed messages are not taken"
        elif usual.size + size_of(own) > self._most_bytes:
            refused = StatusCode.RESOURCE_EXHAUSTED, "the metadata of the call is too large"
        else:
            return Request(usual.path, usual.metadata + found, seconds, None)
        return Request(usual.path, (), math.inf if seconds is None else seconds, refused)


def _usual(listed: Sequence[Header]) -> _Usual:
    fields = dict(listed)
    return _Usual(
        path=fields.get(b":path", b"").decode("ascii", "replace"),
        metadata=metadata_of(listed),
        unlike_grpc=_unlike_grpc(listed),
        compressed=fields.get(b"grpc-encoding", b"identity") != b"identity",
        size=size_of(listed),
    )


def _unlike_grpc(listed: Sequence[Header]) -> Sequence[Header] | None:
    """Return the answer of HTTP to what is no call of gRPC; None for one."""
    fields = dict(listed)
    if fields.get(b":method") != b"POST":
        return ((b":status", b"405"), (b"allow", b"POST"))
    if fields.get(b"content-type") not in _CONTENT_TYPES:
        return ((b":status", b"415"),)
    once = [name for name, _ in listed if name in _ONCE]
    if fields.get(b"te") != b"trailers" or len(set(once)) != len(once):
        return ((b":status", b"400"),)
    return None
