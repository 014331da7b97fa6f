"""A connection that serves gRPC, in memory: what becomes a call, what is refused, and what ends the connection."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest
from grpc import StatusCode

from pdp.bench import frames
from pdp.bench.exchanges import Asked
from pdp.bench.frameconnection import Exchange, FrameConnection
from pdp.bench.frames import frame
from pdp.bench.hpack import read_block
from pdp.serving.http2.bounds import Bounds
from pdp.serving.http2.connection import GRPCConnection
from pdp.serving.http2.nghttp2 import NGHTTP2Engine
from tests.machinery.servers.http2frames import PATH, USUAL, data, headers, message, text, whole
from tests.machinery.servers.http2peer import PATHS, STREAM, Peer, Taken


def test_a_call_is_handed_out_and_answered() -> None:
    """Bytes may be cut anywhere; metadata, message and deadline are those that were sent, and so is the answer."""
    peer, seen = Peer(), []
    sent = headers(1, {"grpc-timeout": "250m"}, more=[("x-own", b"a value"), ("own-bin", b"AAE")])
    sent += data(1, message(b"question"))
    for index in range(len(sent)):
        peer.send(sent[index : index + 1])
        seen += peer.calls.complete
    peer.answer(1, b"answer")
    first, second, last = peer.frames()
    ((stream, asked),) = seen

    assert (PATH, b"question", 0.25) == (stream.path, asked, stream.deadline_at)
    assert (("x-own", "a value"), ("own-bin", b"\x00\x01")) == stream.metadata
    assert {":status": "200", "content-type": "application/grpc"} == read_block(first.payload)
    assert (message(b"answer"), {"grpc-status": "0"}) == (second.payload, read_block(last.payload))
    assert 0 == peer.connection.in_progress


def test_messages_of_a_stream_are_taken_one_by_one() -> None:
    """Each is answered when it has come, in order, and the end of them is told."""
    peer = Peer()
    began = peer.send(headers(1, {":path": STREAM}) + data(1, message(b"a") + message(b"b")[:-1], ended=False))
    first = [*peer.calls.complete]
    peer.connection.send(peer.calls.open[1], b"A")
    answered = [one.payload for one in peer.frames() if one.kind == frames.DATA]
    peer.send(data(1, b"b", ended=False))
    second = [*peer.calls.complete]
    peer.send(data(1, b""))
    stream = peer.calls.open[1]
    peer.connection.end(stream, StatusCode.OK)

    assert ([1], [message(b"A")]) == (began, answered)
    assert [(stream, b"a"), (stream, b"b"), (stream, None)] == [*first, *second, *peer.calls.complete]
    assert {"grpc-status": "0"} == peer.ended()[1].headers


def test_messages_that_are_not_taken_keep_the_peers_window() -> None:
    """A stream that is not read may send no more than its window; what is taken gives it back."""
    peer = Peer(message_bytes=100)
    peer.calls.heard = lambda _: None  # type: ignore[method-assign,assignment]  # takes nothing by itself
    peer.send(frame(frames.SETTINGS, frames.ACK, 0))
    peer.send(headers(1, {":path": STREAM}) + data(1, message(b"x" * 45), ended=False))
    peer.send(data(1, message(b"x" * 45), ended=False))
    kept = [one for one in peer.frames() if one.kind == frames.WINDOW_UPDATE]
    stream = peer.calls.open[1]
    taken = [peer.connection.take(stream), peer.connection.take(stream)]
    given = {one.stream: int.from_bytes(one.payload) for one in peer.frames() if one.kind == frames.WINDOW_UPDATE}

    assert ([], [b"x" * 45] * 2, 100) == (kept, taken, given[1])


def test_the_load_of_the_benchmark_is_served() -> None:
    """Many calls at once, by a peer that keeps its own table for headers."""
    calls, asked = Taken(), [Asked(message(b"x" * 16)[:-16], (), 0)] * 64
    server = calls.connection = GRPCConnection(NGHTTP2Engine, PATHS, Bounds(), calls)
    client = FrameConnection([*USUAL.items()], count(1).__next__)
    answered: list[Exchange] = []
    for one in asked:
        client.ask(Exchange(one, 0.0))
    for _ in range(4):
        server.receive(client.outgoing(), 0.0)
        for stream, wire in calls.complete:
            assert wire is not None
            server.send(stream, wire + b"!")
            server.end(stream, StatusCode.OK)
        calls.complete.clear()
        answered += client.receive(server.outgoing())

    assert {b"%016x!" % number for number in range(1, 65)} == {one.message() for one in answered}


def test_a_refusal_has_its_text_and_details() -> None:
    """A text is percent-encoded and details are binary, so that clients of every language read them."""
    peer = Peer()
    peer.send(whole(1))
    details = [("grpc-status-details-bin", b"\xff")]
    peer.connection.end(peer.calls.open[1], StatusCode.ABORTED, "100 % l\u00f6st\n", details)
    ended = peer.ended()[1]

    assert ("10", "100 %25 l%C3%B6st%0A") == ended.status
    assert "/w" == ended.headers["grpc-status-details-bin"]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (headers(1, {":method": "GET"}), "405"),
        (headers(1, {"content-type": "application/grpc-web"}), "415"),
        (headers(1, {"content-type": "application/json"}), "415"),
        (headers(1, {"content-type": ""}), "415"),
        (headers(1, {"te": ""}), "400"),
        (headers(1, {"grpc-timeout": "1S"}, more=[("grpc-timeout", b"1S")]), "400"),
    ],
)
def test_what_is_no_call_of_grpc_is_refused_by_http(sent: bytes, expected: str) -> None:
    """Method, content type and `te` are exactly those of gRPC, and headers of the transport are there once."""
    peer = Peer(refused=0)

    assert [] == peer.send(sent)
    assert (expected, True) == ((ended := peer.ended()[1]).headers[":status"], ended.reset)


@pytest.mark.parametrize(
    ("sent", "status", "text"),
    [
        (whole(1, {":path": "/pdp.v1.AuthorizationService/authorize"}), "12", "Method not found!"),
        (whole(1, {":path": PATH + "/"}), "12", "Method not found!"),
        (whole(1, {":path": PATH + "?a=b"}), "12", "Method not found!"),
        (whole(1, {"grpc-encoding": "gzip"}), "12", "compressed messages are not taken"),
        (headers(1) + data(1, b"\x01\0\0\0\x01x"), "13", "the message is compressed, and does not say how"),
        (headers(1) + data(1, message(b"a") + message(b"b")), "13", "the call has more than one message"),
        (headers(1) + data(1, message(b"a") + b"\0"), "13", "the call has more than one message"),
        (headers(1) + data(1, message(b"abc")[:-1]), "13", "the call has no whole message"),
        (whole(1, {"grpc-timeout": "1"}), "13", "the metadata of the call is malformed"),
        (whole(1, {"grpc-timeout": "123456789S"}), "13", "the metadata of the call is malformed"),
        (headers(1, more=[("own-bin", b"?")]), "13", "the metadata of the call is malformed"),
        (headers(1, more=[("own", b"l\xf6st")]), "13", "the metadata of the call is malformed"),
        (headers(1, more=[("own", b"x" * 8000)]), "8", "the metadata of the call is too large"),
        (
            headers(1) + data(1, b"\0\0\4\0\1", ended=False),
            "8",
            "SERVER: Received message larger than max (262145 vs. 262144)",
        ),
    ],
)
def test_what_breaks_a_rule_of_grpc_is_refused(sent: bytes, status: str, text: str) -> None:
    """The call ends with a status and the rest of it is not wanted; the connection goes on."""
    peer = Peer(refused=0)

    assert [] == peer.send(sent)
    assert {1: (status, text)} == {stream: one.status for stream, one in peer.ended().items()}
    assert [3] == peer.send(whole(3))


def test_the_length_of_a_message_is_checked_before_the_message_is_kept() -> None:
    """Of a message that is too large, five bytes are enough to refuse it."""
    peer = Peer(message_bytes=1000, refused=0)
    peer.send(headers(1) + data(1, (1001).to_bytes(5), ended=False))

    assert ("8", True, 0) == ((one := peer.ended()[1]).status[0], one.reset, peer.connection.in_progress)


def test_a_message_that_nobody_asks_for_is_small() -> None:
    """While other calls of its caller are asked, a call may send what gRPC's window would let through, and no more."""
    peer = Peer(unasked_bytes=1000, refused=0)
    peer.send(headers(1) + headers(3))
    peer.calls.open[1].asked = False

    peer.send(b"".join(data(stream, b"\0" + (2000).to_bytes(4) + bytes(900), ended=False) for stream in (1, 3)))
    within = peer.ended()
    peer.send(b"".join(data(stream, bytes(200), ended=False) for stream in (1, 3)))

    assert not within
    assert {stream: one.status for stream, one in peer.ended().items()} == {
        1: ("8", "too many messages have begun and not ended")
    }


def test_messages_that_do_not_end_take_no_more_than_their_bound() -> None:
    """The oldest one is refused, and the others can still be completed."""
    peer = Peer(incoming_bytes=2500, refused=0)
    for stream in (1, 3, 5):
        peer.send(headers(stream) + data(stream, message(b"x" * 1000)[:-1], ended=False))

    assert {1: "8"} == {stream: one.status[0] for stream, one in peer.ended().items()}
    assert [3, 5] == [found for stream in (3, 5) for found in peer.send(data(stream, b"x"))]


def test_a_call_without_time_is_not_told_of() -> None:
    """Neither one that never had any, nor one whose message comes too late; what is told of can be answered at once."""
    peer = Peer()
    first = peer.send(whole(1, {"grpc-timeout": "0S"}))
    peer.send(headers(3, {"grpc-timeout": "5S"}))
    peer.now = 5.0
    second = peer.send(data(3, message(b"question")))
    ended = peer.ended()

    assert ([], []) == (first, second)
    assert [("4", "the deadline has passed")] * 2 == [ended[stream].status for stream in (1, 3)]


def test_a_call_ends_at_its_deadline() -> None:
    """Whether its message has come or not; what works on it can stop."""
    peer = Peer(refused=0)
    peer.send(headers(1, {"grpc-timeout": "5S"}) + whole(3, {"grpc-timeout": "6S"}))
    peer.connection.tick(4.9)
    before = peer.ended()
    peer.connection.tick(5.0)

    assert ({}, {1: "4"}, [1]) == (
        before,
        {stream: one.status[0] for stream, one in peer.ended().items()},
        peer.calls.gone,
    )


REFUSED = {
    "no call of gRPC": headers(1, {"te": ""}),
    "no method": headers(1, {":path": PATH + "/"}),
    "compressed": headers(1, {"grpc-encoding": "gzip"}),
    "malformed metadata": headers(1, more=[("own-bin", b"?")]),
    "too large": headers(1) + data(1, b"\0\0\4\0\1", ended=False),
    "too late": headers(1, {"grpc-timeout": "0S"}),
    "not admitted": headers(1),
    "not admitted to a stream": headers(1, {":path": STREAM}),
}


def _refused(sent: bytes, **bounds: float) -> Peer:
    """Return a peer that has begun a call and is refused."""
    peer = Peer(**bounds)
    peer.send(sent)
    peer.connection.tick(peer.now)
    for stream in peer.calls.open.values():
        peer.connection.end(stream, StatusCode.PERMISSION_DENIED)
    return peer


@pytest.mark.parametrize("sent", REFUSED.values(), ids=REFUSED)
def test_a_refusal_waits_until_its_call_has_come(sent: bytes) -> None:
    """While it writes, a client can read another status in its place. The call is not reset then."""
    peer = _refused(sent)
    peer.send(data(1, message(b"question"), ended=False))
    before = peer.ended()
    peer.send(data(1, b""))

    assert ({}, {1: False}) == (before, {stream: one.reset for stream, one in peer.ended().items()})
    assert 0 == peer.connection.in_progress


@pytest.mark.parametrize("sent", REFUSED.values(), ids=REFUSED)
def test_a_refusal_waits_no_longer_than_its_bound(sent: bytes) -> None:
    """A call that does not end is refused after a second, and its stream is free; the connection goes on."""
    peer = _refused(sent)
    peer.connection.tick(0.9)
    before = peer.ended(), peer.connection.in_progress
    peer.connection.tick(1.0)

    assert ({}, 1) == before
    assert ({1: True}, 0) == ({stream: one.reset for stream, one in peer.ended().items()}, peer.connection.in_progress)
    assert [3] == peer.send(whole(3))


def test_few_refusals_wait() -> None:
    """One more lets the oldest go."""
    peer = _refused(b"".join(headers(stream) for stream in (1, 3, 5)), refused=2)

    assert ({1: True}, 2) == (
        {stream: one.reset for stream, one in peer.ended().items()},
        peer.connection.in_progress,
    )


def test_a_refusal_that_waits_goes_with_its_call() -> None:
    """A caller that leaves gets none; when the connection ends by age, all others are sent."""
    peer = _refused(headers(1) + headers(3))
    peer.send(frame(frames.RST_STREAM, 0, 1, b"\0\0\0\x08"))
    left = peer.connection.in_progress
    peer.connection.end_aged()

    assert (1, {3: ("7", "")}) == (left, {stream: one.status for stream, one in peer.ended().items()})
    assert peer.connection.closing


def test_what_comes_of_a_refused_call_is_dropped() -> None:
    """None of it is kept, and the peer can send as much again."""
    peer = _refused(headers(1))
    peer.send(frame(frames.SETTINGS, frames.ACK, 0))
    for _ in range(64):
        peer.send(data(1, bytes(16_384), ended=False))
    given = [one.stream for one in peer.frames() if one.kind == frames.WINDOW_UPDATE]

    assert {0, 1} == {*given}
    assert "" == peer.was_told()


def test_a_call_that_is_reset_in_the_same_bytes_is_not_handed_out() -> None:
    """Its caller is gone, and an answer to it is not sent."""
    peer = Peer()

    assert [] == peer.send(whole(1) + frame(frames.RST_STREAM, 0, 1, b"\0\0\0\x08"))
    assert ({}, []) == (peer.calls.open, [one for one in peer.frames() if one.stream])


def test_a_caller_that_leaves_is_told_of() -> None:
    """What works on its call can stop, and its answer is dropped."""
    peer = Peer()
    peer.send(whole(1))

    peer.send(frame(frames.RST_STREAM, 0, 1, b"\0\0\0\x08"))
    peer.answer(1, b"too late")

    assert ([1], []) == (peer.calls.gone, [one for one in peer.frames() if one.stream])


def _too_short(stream: int) -> bytes:
    """Return a call that has the server itself reset it: it has more than its headers say."""
    return headers(stream, {"content-length": "1"}) + data(stream, message(b"question"))


@pytest.mark.parametrize(
    ("once", "most"),
    [
        (lambda number: whole(2 * number + 1) + frame(frames.RST_STREAM, 0, 2 * number + 1, b"\0\0\0\x08"), 200),
        (lambda number: _too_short(2 * number + 1), 200),
        (lambda _: frame(frames.PING, 0, 0, b"12345678"), 99),
        (lambda _: frames.settings_frame({}), 99),
    ],
    ids=["resets", "calls that break HTTP/2", "pings", "settings"],
)
def test_a_flood_ends_the_connection(once: Callable[[int], bytes], most: int) -> None:
    """So many in ten seconds are taken, and no more; later as many again."""
    peer = Peer()
    for number in range(most):
        peer.send(once(number))
    before = peer.was_told()
    peer.now = 10.0
    for number in range(most, 2 * most):
        peer.send(once(number))
    later = peer.was_told()
    for number in range(2 * most, 2 * most + 2):
        peer.send(once(number))

    assert ("", "", "ENHANCE_YOUR_CALM", True) == (before, later, peer.was_told(), peer.connection.closing)


def test_a_flood_in_one_read_ends_the_connection() -> None:
    """None of the calls among it is handed out."""
    peer = Peer()
    sent = whole(1) + frame(frames.PING, 0, 0, b"12345678") * 2000

    assert ([], True) == (peer.send(sent), peer.connection.closing)


def test_no_more_streams_are_open_than_their_bound() -> None:
    """A peer that cannot know the bound yet has one more refused, and one that knows it is at its end."""
    peer = Peer(streams=3)
    calls = peer.send(b"".join(whole(stream) for stream in (1, 3, 5, 7)))
    refused = [one.stream for one in peer.frames() if one.kind == frames.RST_STREAM]
    peer.send(frame(frames.SETTINGS, frames.ACK, 0) + whole(9))

    assert ([1, 3, 5], [7]) == (calls, refused)
    assert ("PROTOCOL_ERROR", True) == (peer.was_told(), peer.connection.closing)


def test_headers_far_beyond_their_bound_end_the_connection() -> None:
    """They are not kept to be refused."""
    peer = Peer()

    peer.send(headers(1, flags=0, more=[("own", b"x" * 16_000)]))
    peer.send(frame(frames.CONTINUATION, frames.END_HEADERS, 1, b"\x00\x03own" + text(b"x" * 1_000)))

    assert (True, 0, "ENHANCE_YOUR_CALM") == (peer.connection.closing, peer.connection.in_progress, peer.was_told())


def test_a_connection_that_a_bound_ends_names_the_last_call_that_it_took() -> None:
    """Clients repeat what came after it, and must not repeat what has been taken."""
    peer = Peer()
    peer.send(whole(1) + whole(3))
    peer.send(headers(5, flags=0, more=[("own", b"x" * 16_000)]))
    peer.send(frame(frames.CONTINUATION, frames.END_HEADERS, 5, b"\x00\x03own" + text(b"x" * 1_000)))
    (told,) = (one.payload for one in peer.frames() if one.kind == frames.GOAWAY)

    assert (3, "ENHANCE_YOUR_CALM") == (int.from_bytes(told[:4]), frames.error_name(told[4:8]))


def test_a_peer_that_does_not_read_its_answers_is_left() -> None:
    """An answer that has ended must be taken: each byte gives twenty seconds for the next."""
    peer = Peer(reading_seconds=20.0)
    peer.send(frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 0}))
    peer.send(whole(1) + whole(3))
    peer.answer(1, b"x")
    peer.now = 10.0
    peer.send(b"")
    peer.answer(3, b"x")
    peer.send(frames.window_frame(1, 100))
    peer.connection.tick(12.0)
    peer.connection.tick(31.9)
    before = peer.was_told()
    peer.connection.tick(32.0)

    assert ("", "ENHANCE_YOUR_CALM", True) == (before, peer.was_told(), peer.connection.closing)


def test_pings_of_a_peer_that_is_answered_are_no_flood() -> None:
    """Clients of some languages send one for each answer, to learn how far away the server is."""
    peer = Peer(controls=3)
    for stream in (1, 3, 5):
        peer.send(frame(frames.PING, 0, 0, b"12345678") * 2 + whole(stream))
        peer.answer(stream, b"answer")

    assert "" == peer.was_told()


def test_an_answer_waits_for_the_peers_window() -> None:
    """It goes in the parts that the peer allows, and the status last."""
    peer = Peer()
    peer.send(frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 10}))
    peer.send(whole(1))
    peer.answer(1, b"x" * 20)
    first = [one.payload for one in peer.frames() if one.kind == frames.DATA]
    peer.send(frames.window_frame(1, 100))
    rest = peer.frames()

    assert message(b"x" * 20) == b"".join(first) + rest[0].payload
    assert (10, {"grpc-status": "0"}) == (len(first[0]), read_block(rest[-1].payload))


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        frames.PREFACE + frame(frames.DATA, 0, 0, b"x"),
    ],
    ids=["HTTP/1.1", "TLS", "data on no stream"],
)
def test_what_is_not_http2_ends_the_connection(sent: bytes) -> None:
    """Nothing is guessed, and no error leaves the connection."""
    calls = Taken()
    connection = calls.connection = GRPCConnection(NGHTTP2Engine, PATHS, Bounds(), calls)
    connection.receive(sent, 0.0)
    closing = connection.closing
    connection.receive(sent, 0.0)

    assert (True, {}) == (closing, calls.open)


def test_a_connection_that_drains_answers_what_it_has() -> None:
    """The peer is told to begin no more."""
    peer = Peer()
    peer.send(whole(1))
    peer.connection.drain()
    told = peer.was_told()
    peer.answer(1, b"answer")

    assert ("NO_ERROR", message(b"answer")) == (
        told,
        next(one.payload for one in peer.frames() if one.kind == frames.DATA),
    )
