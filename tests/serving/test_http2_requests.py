"""The headers of calls on one connection: what is remembered of them changes nothing, and holds no secret."""

from __future__ import annotations

import random
import sys

import pytest

from pdp.serving.http2.engine import Header
from pdp.serving.http2.requests import Request, Requests

USUAL: tuple[Header, ...] = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/pdp.v1.AuthorizationService/Authorize"),
    (b":authority", b"pdp"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
    (b"user-agent", b"grpc-python/1.85.3"),
)
# Put in the place of a usual header, or beside it.
OTHERS: tuple[Header, ...] = (
    *((b":method", b"GET"), (b":path", b"/other"), (b":path", b"/\xff"), (b":authority", b"other")),
    *((b"content-type", b"application/json"), (b"content-type", b"application/grpc+proto"), (b"te", b"gzip")),
    *((b"grpc-encoding", b"gzip"), (b"grpc-encoding", b"identity"), (b"grpc-accept-encoding", b"identity")),
    *((b"grpc-timeout", b"5S"), (b"grpc-timeout", b"250m"), (b"grpc-timeout", b"S")),
    *((b"user-agent", b"l\xf6st"), (b"user-agent", b"x" * 2000), (b"own", b"l\xf6st"), (b"own", b"x" * 9000)),
    *((b"own-bin", b"AAE"), (b"own-bin", b"?"), (b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")),
)
MOST = 8192


def changed(dice: random.Random) -> tuple[Header, ...]:
    """Return the usual headers with up to three changes."""
    headers = [*USUAL]
    for _ in range(dice.randrange(4)):
        at = dice.randrange(len(headers))
        if dice.random() < 0.5:
            headers[at] = dice.choice(OTHERS)
        elif dice.random() < 0.8:
            headers.insert(at, dice.choice((*OTHERS, *USUAL)))
        else:
            del headers[at]
    return tuple(headers)


def test_headers_are_read_alike_whatever_came_before() -> None:
    """Each of 5,000 calls on one connection is read as the first one of another connection."""
    dice, connection = random.Random(20261128), Requests(MOST)  # noqa: S311 - no secret
    seen = set[str]()
    for _ in range(5000):
        headers = changed(dice)
        found = connection.read(headers)
        seen.add(f"{found.refused} {found.unlike_grpc}")

        assert Requests(MOST).read(headers) == found, headers
    assert 7 == len(seen), "each kind of refusal, and none, occurs"


def test_a_call_after_another_is_what_its_own_headers_say() -> None:
    """The usual headers are those of the call before; deadline and metadata are its own."""
    connection = Requests(MOST)
    connection.read((*USUAL, (b"grpc-timeout", b"1S"), (b"authorization", b"Bearer a")))
    found = connection.read((*USUAL, (b"grpc-timeout", b"2S"), (b"authorization", b"Bearer b")))

    metadata = (("user-agent", "grpc-python/1.85.3"), ("authorization", "Bearer b"))
    assert Request("/pdp.v1.AuthorizationService/Authorize", metadata, 2.0, None) == found


@pytest.mark.parametrize(
    ("name", "size", "beside", "kept"),
    [
        pytest.param(b"authorization", 60, 0, False, id="a credential"),
        pytest.param(b"cookie", 60, 0, False, id="what can be one"),
        pytest.param(b"user-agent", 2000, 0, False, id="too much"),
        pytest.param(b"user-agent", 60, 100, False, id="too many places"),
        pytest.param(b"user-agent", 60, 0, True, id="what is usual"),
    ],
)
def test_neither_a_secret_nor_much_is_remembered(name: bytes, size: int, beside: int, *, kept: bool) -> None:
    """A connection keeps no header that can be a credential, and no more than a kibibyte of the others."""
    connection, value = Requests(MOST), bytes(bytearray(size)).replace(b"\0", b"x")
    before = sys.getrefcount(value)
    connection.read((*USUAL, (name, value), *[(b"own", b"")] * beside))

    assert kept == (before < sys.getrefcount(value))
