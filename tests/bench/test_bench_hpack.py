"""Header blocks: those of the RFC, and those that a peer must not send."""

from __future__ import annotations

import pytest

from pdp.bench.hpack import _LENGTHS, HeaderError, RequestHeaders, read_block

FIELDS = (
    (":method", "POST"),
    (":path", "/pdp.v1.AuthorizationService/Authorize"),
    ("te", "trailers"),
    ("authorization", "Bearer " + "x" * 300),
)
# RFC 7541, C.4.1 and C.6.1, which begin with an empty table.
REQUEST = "828684418cf1e3c2e5f23a6ba0ab90f4ff"
RESPONSE = (
    "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3"
)


@pytest.mark.parametrize(
    ("block", "fields"),
    [
        (REQUEST, {":method": "GET", ":scheme": "http", ":path": "/", ":authority": "www.example.com"}),
        (
            RESPONSE,
            {
                ":status": "302",
                "cache-control": "private",
                "date": "Mon, 21 Oct 2013 20:13:21 GMT",
                "location": "https://www.example.com",
            },
        ),
        ("20" + "88", {":status": "200"}),
        ("000b" + b"grpc-status".hex() + "0130", {"grpc-status": "0"}),
        ("100b" + b"grpc-status".hex() + "0130", {"grpc-status": "0"}),
        ("0f10" + "7f49" + b"x".hex() * 200, {"content-type": "x" * 200}),
        ("", {}),
    ],
)
def test_a_block_is_read(block: str, fields: dict[str, str]) -> None:
    """With a table or without, in the code of Huffman or plainly: the fields are those that were written."""
    assert fields == read_block(bytes.fromhex(block))


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ("be", "names entry 62 of a table that was not offered"),
        ("80", "names entry 0 of a table that was not offered"),
        ("3fe11f", "uses a table that was not offered"),
        ("000b67", "cut off"),
        ("00", "cut off"),
        ("ff", "cut off"),
        ("0f1082ffff", "does not end with a whole character"),
        ("0f108118", "does not end with a whole character"),
        ("0f1001ff", "is not text"),
    ],
)
def test_a_wrong_block_is_refused(block: str, expected: str) -> None:
    """A peer that breaks the rules, or what was agreed, is not guessed at."""
    with pytest.raises(HeaderError, match=expected):
        read_block(bytes.fromhex(block))


def test_the_lengths_make_a_code() -> None:
    """Every sequence of bits is the beginning of some text, so no length in the table is a slip alone."""
    assert 257 == len(_LENGTHS)
    assert 1 == sum(2.0**-length for length in _LENGTHS)


def test_headers_are_taught_once() -> None:
    """The first block has them in full; later ones have a number for each, and the value."""
    headers = RequestHeaders(FIELDS, ("traceparent", "0" * 55), table_size=4096)

    assert [434, 62] == [len(headers.prefix() + b"1" * 55), len(headers.prefix() + b"2" * 55)]


def test_a_server_without_a_table_gets_all_headers_each_time() -> None:
    """The first block says that no table is used, and each can be read by itself."""
    headers = RequestHeaders(FIELDS, ("traceparent", "0" * 55), table_size=0)
    blocks = [headers.prefix() + value * 55 for value in (b"1", b"2")]

    assert [{**dict(FIELDS), "traceparent": value * 55} for value in "12"] == [read_block(one) for one in blocks]
    assert (b"\x20", blocks[1][:1]) == (blocks[0][:1], blocks[0][1:2])
