"""What RFC 9113 and RFC 7541 require of a server, section by section, as tools for conformance check it.

Each row is what a peer sends after its preface and settings. A peer that breaks a rule of the connection is told so and
left; one that breaks a rule of a stream loses that stream alone; and what is allowed, or to be ignored, harms nothing.
"""

from __future__ import annotations

import pytest

from pdp.bench import frames
from pdp.bench.frames import frame, settings_frame, window_frame
from pdp.bench.hpack import read_block
from pdp.serving.http2.bounds import Bounds
from pdp.serving.http2.connection import GRPCConnection
from pdp.serving.http2.nghttp2 import NGHTTP2Engine
from tests.machinery.servers.http2frames import data, headers, message, text, whole
from tests.machinery.servers.http2peer import PATHS, STREAM, Peer, Taken

_MAX_FRAME_SIZE, _UNKNOWN_SETTING = 5, 0xFF
_LARGEST_WINDOW = 2**31 - 1
_BOTH = frames.END_HEADERS | frames.END_STREAM
_DEBT = 5
_CANCEL = (8).to_bytes(4)
_UNKNOWN_ERROR = (0xFF).to_bytes(4)
_WHOLE, _RESET = whole(1), frame(frames.RST_STREAM, 0, 1, _CANCEL)
_OPEN = headers(1)
_REST = data(1, message(b"question"))
_FIELD = b"\0" + text(b"own") + text(b"x")


def _literal(name: bytes, value: bytes) -> bytes:
    return b"\0" + text(name) + text(value)


def _continued(*parts: bytes) -> bytes:
    """Return the headers of a call whose last fields come in frames of their own."""
    ends = [0] * (len(parts) - 1) + [frames.END_HEADERS]
    rest = (frame(frames.CONTINUATION, flag, 1, part) for flag, part in zip(ends, parts, strict=True))
    return headers(1, flags=0) + b"".join(rest)


def _block(added: bytes, *, before: bool = False) -> bytes:
    """Return the headers of a call, with bytes before or after the fields."""
    payload = headers(1)[9:]
    return frame(frames.HEADERS, frames.END_HEADERS, 1, added + payload if before else payload + added)


_CONNECTION_ERRORS = {
    # 4: frames
    "4.2 data larger than a frame may be": (_OPEN + data(1, b"x" * 16_385), "FRAME_SIZE_ERROR"),
    "4.2 headers larger than a frame may be": (frame(frames.HEADERS, 4, 1, bytes(16_385)), "FRAME_SIZE_ERROR"),
    "4.3 headers that cannot be decompressed": (_block(b"\0\x0f"), "COMPRESSION_ERROR"),
    "4.3 a priority among headers": (
        headers(1, flags=0) + frame(frames.PRIORITY, 0, 1, bytes(5)),
        "PROTOCOL_ERROR",
    ),
    "4.3 headers of another stream among headers": (headers(1, flags=0) + headers(3), "PROTOCOL_ERROR"),
    # 5: streams
    "5.1 data on an idle stream": (data(1, b"x"), "PROTOCOL_ERROR"),
    "5.1 a reset of an idle stream": (_RESET, "PROTOCOL_ERROR"),
    "5.1 a window of an idle stream": (window_frame(1, 1), "PROTOCOL_ERROR"),
    "5.1 more headers on an idle stream": (frame(frames.CONTINUATION, 4, 1, _FIELD), "PROTOCOL_ERROR"),
    "5.1 data after the end of a stream": (_WHOLE + data(1, b"x"), "STREAM_CLOSED"),
    "5.1 headers after the end of a stream": (_WHOLE + headers(1), "STREAM_CLOSED"),
    "5.1 more headers after the end of a stream": (_WHOLE + frame(frames.CONTINUATION, 4, 1, _FIELD), "PROTOCOL_ERROR"),
    "5.1.1 a stream with an even number": (headers(2), "PROTOCOL_ERROR"),
    "5.5 an unknown frame among headers": (headers(1, flags=0) + frame(0xEE, 0, 1), "PROTOCOL_ERROR"),
    # 6: each kind of frame
    "6.1 data on no stream": (data(0, b"x"), "PROTOCOL_ERROR"),
    "6.1 data with too much padding": (_OPEN + frame(frames.DATA, frames.PADDED, 1, b"\x06abcde"), "PROTOCOL_ERROR"),
    "6.1 padded data without its length": (_OPEN + frame(frames.DATA, frames.PADDED, 1), "PROTOCOL_ERROR"),
    "6.2 headers on no stream": (headers(0), "PROTOCOL_ERROR"),
    "6.2 headers with too much padding": (
        frame(frames.HEADERS, frames.END_HEADERS | frames.PADDED, 1, b"\xff" + headers(1)[9:]),
        "PROTOCOL_ERROR",
    ),
    "6.3 a priority of another length": (frame(frames.PRIORITY, 0, 1, bytes(4)), "FRAME_SIZE_ERROR"),
    "6.4 a reset of no stream": (frame(frames.RST_STREAM, 0, 0, _CANCEL), "PROTOCOL_ERROR"),
    "6.4 a reset of another length": (_OPEN + frame(frames.RST_STREAM, 0, 1, bytes(3)), "FRAME_SIZE_ERROR"),
    "6.5 acknowledged settings that hold some": (frame(frames.SETTINGS, frames.ACK, 0, bytes(6)), "FRAME_SIZE_ERROR"),
    "6.5 settings of a stream": (frame(frames.SETTINGS, 0, 1), "PROTOCOL_ERROR"),
    "6.5 a part of a setting": (frame(frames.SETTINGS, 0, 0, bytes(3)), "FRAME_SIZE_ERROR"),
    "6.5.2 a push that is neither on nor off": (settings_frame({frames.ENABLE_PUSH: 2}), "PROTOCOL_ERROR"),
    "6.5.2 a window that is too large": (settings_frame({frames.INITIAL_WINDOW_SIZE: 2**31}), "FLOW_CONTROL_ERROR"),
    "6.5.2 frames that are too small": (settings_frame({_MAX_FRAME_SIZE: 16_383}), "PROTOCOL_ERROR"),
    "6.5.2 frames that are too large": (settings_frame({_MAX_FRAME_SIZE: 2**24}), "PROTOCOL_ERROR"),
    "6.6 a promise of a client": (_OPEN + frame(frames.PUSH_PROMISE, 4, 1, bytes(4)), "PROTOCOL_ERROR"),
    "6.7 a ping of a stream": (frame(frames.PING, 0, 1, bytes(8)), "PROTOCOL_ERROR"),
    "6.7 a ping of another length": (frame(frames.PING, 0, 0, bytes(6)), "FRAME_SIZE_ERROR"),
    "6.8 an end of a stream's": (frame(frames.GOAWAY, 0, 1, bytes(8)), "PROTOCOL_ERROR"),
    "6.8 an end that is too short": (frame(frames.GOAWAY, 0, 0, bytes(7)), "FRAME_SIZE_ERROR"),
    "6.9 no more window for the connection": (window_frame(0, 0), "PROTOCOL_ERROR"),
    "6.9 no more window for a stream": (_OPEN + window_frame(1, 0), "PROTOCOL_ERROR"),
    "6.9 a window of another length": (frame(frames.WINDOW_UPDATE, 0, 0, bytes(3)), "FRAME_SIZE_ERROR"),
    "6.9.1 a window that grows too large": (window_frame(0, _LARGEST_WINDOW), "FLOW_CONTROL_ERROR"),
    "6.9.1 a window of a stream that grows too large": (_OPEN + window_frame(1, _LARGEST_WINDOW), "FLOW_CONTROL_ERROR"),
    "6.9.2 settings that let a window grow too large": (
        _OPEN
        + window_frame(1, _LARGEST_WINDOW - frames.USUAL_WINDOW)
        + settings_frame({frames.INITIAL_WINDOW_SIZE: 65_536}),
        "FLOW_CONTROL_ERROR",
    ),
    "6.10 more headers on no stream": (
        headers(1, flags=0) + frame(frames.CONTINUATION, 4, 0, _FIELD),
        "PROTOCOL_ERROR",
    ),
    "6.10 data among headers": (headers(1, flags=0) + data(1, b"x"), "PROTOCOL_ERROR"),
    "6.10 more headers after their end": (_OPEN + frame(frames.CONTINUATION, 4, 1, _FIELD), "PROTOCOL_ERROR"),
    "6.10 more headers after more that ended": (
        _continued(_FIELD) + frame(frames.CONTINUATION, 4, 1, _FIELD),
        "PROTOCOL_ERROR",
    ),
    "6.10 more headers after data": (
        _OPEN + data(1, b"x", ended=False) + frame(frames.CONTINUATION, 4, 1, _FIELD),
        "PROTOCOL_ERROR",
    ),
    # RFC 7541: compression
    "7541 2.3.3 an index beyond the table": (_block(b"\xff\xff\xff\x03"), "COMPRESSION_ERROR"),
    "7541 4.2 a table that changes after a field": (_block(b"\x20"), "COMPRESSION_ERROR"),
    "7541 5.2 Huffman code padded with more than 7 bits": (_block(b"\0\x03own\x82\x1f\xff"), "COMPRESSION_ERROR"),
    "7541 5.2 Huffman code padded with zeros": (_block(b"\0\x03own\x81\x18"), "COMPRESSION_ERROR"),
    "7541 5.2 Huffman code that holds its end": (_block(b"\0\x03own\x84\xff\xff\xff\xff"), "COMPRESSION_ERROR"),
    "7541 6.1 the index 0": (_block(b"\x80"), "COMPRESSION_ERROR"),
    "7541 6.3 a table larger than was allowed": (_block(b"\x3f\xe2\x1f", before=True), "COMPRESSION_ERROR"),
}


@pytest.mark.parametrize(("sent", "error"), _CONNECTION_ERRORS.values(), ids=_CONNECTION_ERRORS)
def test_a_rule_of_the_connection(sent: bytes, error: str) -> None:
    """What is broken ends the connection, which says why; nothing more is taken."""
    peer = Peer()
    peer.send(sent)

    assert (error, True) == (peer.was_told(), peer.connection.closing)
    assert [] == peer.send(whole(101))


_STREAM_ERRORS = {
    "8.1 trailers that do not end the stream": (_OPEN + frame(frames.HEADERS, 4, 1, _FIELD), "PROTOCOL_ERROR"),
    "8.1.1 more than the length said": (headers(1, {"content-length": "1"}) + _REST, "PROTOCOL_ERROR"),
    "8.1.1 less than the length said": (headers(1, {"content-length": "99"}) + _REST, "PROTOCOL_ERROR"),
    "8.1.1 less in several parts": (
        headers(1, {"content-length": "14"}) + data(1, message(b"qu"), ended=False) + data(1, b"estion"[:5]),
        "PROTOCOL_ERROR",
    ),
    "8.1.1 two lengths": (_block(_literal(b"content-length", b"1") * 2), "PROTOCOL_ERROR"),
    "8.2.1 a name with a capital": (_block(_literal(b"Own", b"x")), "PROTOCOL_ERROR"),
    "8.2.1 a name with a blank": (_block(_literal(b"o wn", b"x")), "PROTOCOL_ERROR"),
    "8.2.1 a name with a colon inside": (_block(_literal(b"o:wn", b"x")), "PROTOCOL_ERROR"),
    "8.2.1 an empty name": (_block(_literal(b"", b"x")), "PROTOCOL_ERROR"),
    "8.2.1 a value with a line feed": (_block(_literal(b"own", b"x\ny")), "PROTOCOL_ERROR"),
    "8.2.1 a value with a zero": (_block(_literal(b"own", b"x\0y")), "PROTOCOL_ERROR"),
    "8.2.1 a value that begins with a blank": (_block(_literal(b"own", b" x")), "PROTOCOL_ERROR"),
    "8.2.2 a header of HTTP/1.1's connections": (_block(_literal(b"connection", b"keep-alive")), "PROTOCOL_ERROR"),
    "8.2.2 a transfer encoding": (_block(_literal(b"transfer-encoding", b"chunked")), "PROTOCOL_ERROR"),
    "8.2.2 `te` of anything but trailers": (headers(1, {"te": "trailers, deflate;q=0.5"}), "PROTOCOL_ERROR"),
    "8.3 a pseudo header after a header": (_block(_literal(b":authority", b"other")), "PROTOCOL_ERROR"),
    "8.3 an unknown pseudo header": (_block(_literal(b":own", b"x"), before=True), "PROTOCOL_ERROR"),
    "8.3 a pseudo header of answers": (_block(_literal(b":status", b"200"), before=True), "PROTOCOL_ERROR"),
    "8.3 a pseudo header in trailers": (
        _OPEN + frame(frames.HEADERS, _BOTH, 1, _literal(b":path", b"/")),
        "PROTOCOL_ERROR",
    ),
    "8.3.1 no method": (headers(1, {":method": ""}), "PROTOCOL_ERROR"),
    "8.3.1 no scheme": (headers(1, {":scheme": ""}), "PROTOCOL_ERROR"),
    "8.3.1 no path": (headers(1, {":path": ""}), "PROTOCOL_ERROR"),
    "8.3.1 an empty path": (_block(_literal(b":path", b""), before=True), "PROTOCOL_ERROR"),
    "8.3.1 a path without a slash": (headers(1, {":path": "pdp"}), "PROTOCOL_ERROR"),
    "8.3.1 two methods": (_block(_literal(b":method", b"POST"), before=True), "PROTOCOL_ERROR"),
    "8.3.1 two schemes": (_block(_literal(b":scheme", b"http"), before=True), "PROTOCOL_ERROR"),
    "8.3.1 two paths": (_block(_literal(b":path", b"/"), before=True), "PROTOCOL_ERROR"),
}


@pytest.mark.parametrize(("sent", "error"), _STREAM_ERRORS.values(), ids=_STREAM_ERRORS)
def test_a_rule_of_a_stream(sent: bytes, error: str) -> None:
    """What is broken resets the stream, which is no call; the next call of the connection is taken."""
    peer = Peer()
    taken = peer.send(sent)
    resets = [(one.stream, frames.error_name(one.payload)) for one in peer.frames() if one.kind == frames.RST_STREAM]

    assert ([], [(1, error)], [3]) == (taken, resets, peer.send(whole(3)))


# RFC 9113 wants an error for these, and libnghttp2 ignores them: none of them becomes a call.
_IGNORED = {
    "5.1 headers after a reset": _OPEN + _RESET + headers(1),
    "5.1 data after a reset": _OPEN + _RESET + _REST,
    "5.1.1 a stream with a lower number": headers(5) + frame(frames.RST_STREAM, 0, 5, _CANCEL) + whole(3),
    "6.3 a priority of no stream": frame(frames.PRIORITY, 0, 0, bytes(5)),
}


@pytest.mark.parametrize("sent", _IGNORED.values(), ids=_IGNORED)
def test_what_is_ignored(sent: bytes) -> None:
    """It is no call, and nothing is said of it; the next call is handed out."""
    peer = Peer()
    taken = peer.send(sent)
    told = [one for one in peer.frames() if one.kind in (frames.RST_STREAM, frames.GOAWAY, frames.HEADERS)]

    assert ([], [], [7]) == (taken, told, peer.send(whole(7)))


_ALLOWED = {
    "4.1 an unknown frame": frame(0xEE, 0xFF, 0, b"x") + _WHOLE,
    "4.1 flags that mean nothing": frame(frames.PING, 0xFE, 0, bytes(8)) + _WHOLE,
    "4.1 a bit that is reserved": _OPEN[:5] + b"\x80" + _OPEN[6:] + _REST,
    "4.2 data as large as a frame may be": _OPEN + data(1, message(b"x" * (16_384 - 5))),
    "5.1 a window after the end of a stream": _WHOLE + window_frame(1, 1),
    "5.1 a priority of an idle stream": frame(frames.PRIORITY, 0, 3, bytes(5)) + _WHOLE,
    "5.1.1 numbers that are left out": whole(9),
    "5.3.2 headers with a priority": frame(frames.HEADERS, frames.END_HEADERS | 0x20, 1, bytes(5) + headers(1)[9:])
    + _REST,
    "6.1 data with padding": _OPEN
    + frame(frames.DATA, frames.PADDED | frames.END_STREAM, 1, b"\x03" + message(b"question") + bytes(3)),
    "6.1 data that holds nothing": _OPEN + data(1, b"", ended=False) + _REST,
    "6.2 headers with padding": frame(
        frames.HEADERS, frames.END_HEADERS | frames.PADDED, 1, b"\x03" + headers(1)[9:] + bytes(3)
    )
    + _REST,
    "6.5.2 an unknown setting": settings_frame({_UNKNOWN_SETTING: 1}) + _WHOLE,
    "6.5.3 settings one after another": settings_frame({frames.INITIAL_WINDOW_SIZE: 1}) * 2 + _WHOLE,
    "6.7 a ping that answers nothing": frame(frames.PING, frames.ACK, 0, bytes(8)) + _WHOLE,
    "6.9.1 a window as large as it may be": window_frame(0, _LARGEST_WINDOW - frames.USUAL_WINDOW) + _WHOLE,
    "6.10 more headers in several frames": _continued(_FIELD, b"", _FIELD) + _REST,
    "7 an unknown error of a stream": headers(3) + frame(frames.RST_STREAM, 0, 3, _UNKNOWN_ERROR) + whole(5),
    "8.1 trailers": _OPEN
    + data(1, message(b"question"), ended=False)
    + frame(frames.HEADERS, _BOTH, 1, _literal(b"own", b"x")),
    "8.1.1 as much as the length said": headers(1, {"content-length": "13"}) + _REST,
    "7541 4.2 a table of size 0": _block(b"\x20", before=True) + _REST,
}


@pytest.mark.parametrize("sent", _ALLOWED.values(), ids=_ALLOWED)
def test_what_is_allowed(sent: bytes) -> None:
    """It is taken, or ignored: the call among it is handed out, and so is the next one."""
    peer = Peer()

    assert 1 == len(peer.send(sent))
    assert ([11], False) == (peer.send(whole(11)), peer.connection.closing)


@pytest.mark.parametrize(
    "sent",
    [b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + settings_frame({}), frames.PREFACE + frame(frames.PING, 0, 0, bytes(8))],
    ids=["3.4 another preface", "3.4 another frame than settings"],
)
def test_a_connection_begins_with_preface_and_settings(sent: bytes) -> None:
    """Whatever else comes first ends the connection, and is answered by nothing but its end."""
    calls = Taken()
    server = calls.connection = GRPCConnection(NGHTTP2Engine, PATHS, Bounds(), calls)
    server.receive(sent + _WHOLE, 0.0)

    assert ({}, True) == (calls.open, server.closing)


def test_settings_and_pings_are_acknowledged() -> None:
    """6.5.3 and 6.7: in order, once each, and a ping with what it holds."""
    peer = Peer()
    peer.send(settings_frame({}) + frame(frames.PING, 0, 0, b"whatever") + settings_frame({}))

    assert [(frames.SETTINGS, b""), (frames.SETTINGS, b""), (frames.PING, b"whatever")] == sorted(
        (one.kind, one.payload) for one in peer.frames() if one.flags & frames.ACK
    )


def test_a_window_that_settings_make_smaller_has_a_debt() -> None:
    """6.9.2: what was sent already counts, so that as much more must be given before more is sent."""
    peer = Peer()
    peer.send(settings_frame({frames.INITIAL_WINDOW_SIZE: 10}) + _WHOLE)
    peer.answer(1, b"x" * 20)
    before = [len(one.payload) for one in peer.frames() if one.kind == frames.DATA]
    peer.send(settings_frame({frames.INITIAL_WINDOW_SIZE: 10 - _DEBT}) + window_frame(1, _DEBT))
    during = [len(one.payload) for one in peer.frames() if one.kind == frames.DATA]
    peer.send(window_frame(1, 1))
    after = [len(one.payload) for one in peer.frames() if one.kind == frames.DATA]

    assert ([10], [], [1]) == (before, during, after)


@pytest.mark.parametrize(("streams", "parts"), [((1,), 17), ((1, 3, 5, 7, 9), 13)], ids=["stream", "connection"])
def test_more_than_a_window_is_not_taken(streams: tuple[int, ...], parts: int) -> None:
    """6.9.1: a peer that does not wait for its windows is told so, and is at its end."""
    peer = Peer()
    peer.send(frame(frames.SETTINGS, frames.ACK, 0))
    peer.calls.heard = lambda _: None  # type: ignore[method-assign,assignment]  # takes nothing, so gives no window
    for stream in streams:
        peer.send(headers(stream, {":path": STREAM}) + data(stream, message(bytes(16_379)), ended=False) * parts)

    assert ("FLOW_CONTROL_ERROR", True) == (peer.was_told(), peer.connection.closing)


@pytest.mark.parametrize("error", [bytes(4), _UNKNOWN_ERROR], ids=["6.8 no error", "7 an unknown error"])
def test_a_peer_that_goes_away_has_its_answers(error: bytes) -> None:
    """It begins no more calls, and waits for those in progress."""
    peer = Peer()
    peer.send(_WHOLE + frame(frames.GOAWAY, 0, 0, bytes(4) + error))
    peer.answer(1, b"answer")
    *_, body, ended = peer.frames()

    assert (message(b"answer"), {"grpc-status": "0"}) == (body.payload, read_block(ended.payload))
