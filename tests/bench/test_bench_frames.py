"""The load's connection, without a socket: what a server may send, and what ends the run."""

from __future__ import annotations

from itertools import count

import pytest

from pdp.bench import frameconnection, frames
from pdp.bench.control import answer
from pdp.bench.dialects import PDPDialect
from pdp.bench.exchanges import Asked
from pdp.bench.failure import WrongAnswerError
from pdp.bench.frameconnection import Exchange, FrameConnection
from pdp.bench.frameload import Checks, framed
from pdp.bench.frames import FrameReader, frame
from pdp.bench.questions import generated_workload
from pdp.v1.authorization_pb2 import AuthorizeRequest, AuthorizeResponse
from pdp.v1.decision_pb2 import OUTCOME_DENY, Decision

CONFIRMED = frame(frames.SETTINGS, frames.ACK, 0)
ENDED = frames.END_HEADERS | frames.END_STREAM
OK = b"\x88"
STATUS = b"\x00\x0bgrpc-status\x01"
BODY = b"\x00\x00\x00\x00\x03abc"


def connected(settings: dict[int, int] | None = None) -> FrameConnection:
    """Return a connection whose server has sent its settings, and confirmed those that it got."""
    connection = FrameConnection([(":method", "POST")], count(1).__next__)
    connection.receive(frames.settings_frame(settings or {}) + CONFIRMED)
    connection.outgoing()
    return connection


def asked(connection: FrameConnection, *wires: bytes) -> list[Exchange]:
    """Begin a call for each message."""
    exchanges = [Exchange(Asked(wire, (), 0), 0.0) for wire in wires]
    for one in exchanges:
        connection.ask(one)
    return exchanges


def sent(connection: FrameConnection) -> list[tuple[int, int, bytes]]:
    """Return kind, stream and payload of each frame to the server."""
    return [(one.kind, one.stream, one.payload) for one in FrameReader().read(connection.outgoing())]


def data_to(connection: FrameConnection) -> list[tuple[int, bytes]]:
    """Return the data to the server, of each stream."""
    return [(stream, payload) for kind, stream, payload in sent(connection) if kind == frames.DATA]


def answered(stream: int) -> bytes:
    """Return a right answer."""
    return (
        frame(frames.HEADERS, frames.END_HEADERS, stream, OK)
        + frame(frames.DATA, 0, stream, BODY)
        + frame(frames.HEADERS, ENDED, stream, STATUS + b"0")
    )


def test_an_answer_comes_in_any_pieces() -> None:
    """Bytes may be cut anywhere, and a call is answered when the last one is there."""
    connection, data = connected(), answered(1)
    (exchange,) = asked(connection, b"question")

    for index in range(len(data) - 1):
        assert [] == connection.receive(data[index : index + 1])
    assert [exchange] == connection.receive(data[-1:])
    assert (b"abc", 0) == (exchange.message(), connection.in_progress)


def test_padding_and_continued_headers_are_read() -> None:
    """Padding, priorities and header blocks in several frames change nothing of an answer."""
    connection = connected()
    (exchange,) = asked(connection, b"question")
    trailers = STATUS + b"0"

    found = connection.receive(
        frame(
            frames.HEADERS, frames.END_HEADERS | frames.PADDED | frames.PRIORITIZED, 1, b"\x02" + b"\0" * 5 + OK + b".."
        )
        + frame(frames.DATA, frames.PADDED, 1, b"\x03" + BODY[:4] + b"...")
        + frame(frames.DATA, 0, 1, BODY[4:])
        + frame(frames.HEADERS, frames.END_STREAM, 1, trailers[:3])
        + frame(frames.CONTINUATION, 0, 1, trailers[3:5])
        + frame(frames.CONTINUATION, frames.END_HEADERS, 1, trailers[5:])
    )

    assert ([exchange], b"abc") == (found, exchange.message())


def test_pings_and_settings_are_answered() -> None:
    """A server that waits for either would end the connection."""
    connection = connected()

    connection.receive(frame(frames.PING, 0, 0, b"12345678") + frame(frames.PING, frames.ACK, 0, b"87654321"))
    connection.receive(frames.settings_frame({frames.MAX_CONCURRENT_STREAMS: 7}) + frame(99, 0xFF, 5, b"unknown"))

    assert [(frames.PING, 0, b"12345678"), (frames.SETTINGS, 0, b"")] == sent(connection)


def test_no_call_begins_before_the_settings_count() -> None:
    """Until the server has confirmed that it has no table for headers, its headers could not be read."""
    connection = FrameConnection([(":method", "POST")], count(1).__next__)
    connection.outgoing()
    asked(connection, b"question")

    connection.receive(frames.settings_frame({}))
    before = [kind for kind, _, _ in sent(connection)]
    connection.receive(CONFIRMED)

    assert [frames.SETTINGS] == before
    assert [frames.HEADERS, frames.DATA] == [kind for kind, _, _ in sent(connection)]


def test_each_call_has_an_id_and_a_trace_of_its_own() -> None:
    """Its number ends its message and its headers."""
    connection = connected()
    asked(connection, b"first", b"second")
    (_, _, one), first, (_, _, other), second = sent(connection)

    assert (b"first" + b"0" * 15 + b"1", b"second" + b"0" * 15 + b"2") == (first[2], second[2])
    assert one.endswith(b"00-" + b"pdpbench".hex().encode() + b"0" * 15 + b"1-" + b"0" * 15 + b"1-01")
    assert other.endswith(b"0" * 15 + b"2-01")


def test_the_id_is_a_field_of_the_message() -> None:
    """The server reads it as the id of the tool call, and the length of the frame includes it."""
    workload, dialect = generated_workload(), PDPDialect(("handle",), "")
    connection = connected()
    asked(connection, framed(dialect, workload.repeated[:1]))
    _, (_, _, body) = sent(connection)
    request = AuthorizeRequest.FromString(body[5:])

    assert len(body) - 5 == int.from_bytes(body[1:5])
    assert (f"{1:016x}", workload.repeated[0].arguments_json) == (request.tool_call_id, request.call.arguments_json)


def test_no_more_calls_are_open_than_the_server_takes() -> None:
    """The next one begins when one is answered."""
    connection = connected({frames.MAX_CONCURRENT_STREAMS: 2})
    asked(connection, b"a", b"b", b"c")
    before = [stream for stream, _ in data_to(connection)]

    connection.receive(answered(3))

    assert ([1, 3], [5], 2) == (before, [stream for stream, _ in data_to(connection)], connection.in_progress)


def test_a_small_window_of_a_stream_is_kept() -> None:
    """A message goes in the parts that the server allows, by a window of its stream or by later settings."""
    connection = connected({frames.INITIAL_WINDOW_SIZE: 10})
    asked(connection, b"question")
    parts = data_to(connection)
    connection.receive(frames.window_frame(1, 4))
    parts += data_to(connection)
    connection.receive(frames.settings_frame({frames.INITIAL_WINDOW_SIZE: 100}))
    parts += data_to(connection)

    assert [10, 4, 10] == [len(part) for _, part in parts]
    assert b"question" + b"0" * 15 + b"1" == b"".join(part for _, part in parts)


def test_the_window_of_the_connection_is_kept() -> None:
    """What all calls together may send is no more than the server allows."""
    connection = connected({frames.INITIAL_WINDOW_SIZE: 1 << 20})
    asked(connection, b"x" * 65_000, b"y" * 1000)
    before = sum(len(part) for _, part in data_to(connection))
    connection.receive(frames.window_frame(0, 300))
    after = data_to(connection)

    assert (65_535, [(3, 300)]) == (before, [(stream, len(part)) for stream, part in after])


def test_a_server_can_go_on_sending(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the window that the server has is used up, it gets more: padding counts."""
    monkeypatch.setattr(frameconnection, "_CONNECTION_WINDOW", 100_000)
    connection = connected()
    asked(connection, b"question")
    connection.outgoing()
    part = frame(frames.DATA, frames.PADDED, 1, b"\xff" + b"x" * 9_744 + b"." * 255)
    connection.receive(frame(frames.HEADERS, frames.END_HEADERS, 1, OK) + part * 4)
    before = sent(connection)
    connection.receive(part)

    assert ([], [(frames.WINDOW_UPDATE, 0, (50_000).to_bytes(4))]) == (before, sent(connection))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            frame(frames.GOAWAY, 0, 0, b"\0\0\0\x01\0\0\0\x0btoo many"),
            "ended the connection with ENHANCE_YOUR_CALM: too many",
        ),
        (frame(frames.GOAWAY, 0, 0, b"\0\0\0\x01\0\0\0\0"), "ended the connection with NO_ERROR"),
        (frame(frames.RST_STREAM, 0, 1, b"\0\0\0\x08"), "reset a call with CANCEL"),
        (
            frame(frames.HEADERS, frames.END_HEADERS, 1, OK) + frame(frames.RST_STREAM, 0, 1, b"\0\0\0\x07"),
            "reset a call with REFUSED_STREAM",
        ),
        (frame(frames.RST_STREAM, 0, 1, b"\0\0\1\0"), "reset a call with error 256"),
        (
            frame(frames.HEADERS, ENDED, 1, OK + STATUS[:-1] + b"\x018" + b"\x00\x0cgrpc-message\x0cwait%20it%21"),
            "no answer: RESOURCE_EXHAUSTED, wait it!",
        ),
        (frame(frames.HEADERS, ENDED, 1, OK + STATUS[:-1] + b"\x0299"), "no answer: the status `99`"),
        (frame(frames.HEADERS, ENDED, 1, OK), "no answer: the status ``"),
        (frame(frames.HEADERS, ENDED, 1, b"\x8d"), "no answer: HTTP status `404`"),
        (
            frame(frames.HEADERS, frames.END_HEADERS, 1, OK) + frame(frames.DATA, frames.END_STREAM, 1, BODY),
            "ended a call without a status",
        ),
        (frame(frames.DATA, 0, 1, BODY), "data for a call that is not in progress"),
        (frame(frames.HEADERS, ENDED, 3, OK), "headers for a call that is not in progress"),
        (frame(frames.HEADERS, ENDED, 1, b"\xbe"), "wrong headers: a header block names entry 62"),
        (frame(frames.HEADERS, 0, 1, OK) + frame(frames.PING, 0, 0, b"12345678"), "between parts of a header block"),
        (frame(frames.HEADERS, 0, 1, OK) + frame(frames.CONTINUATION, 0, 3, b""), "that it had not begun"),
        (frame(frames.CONTINUATION, frames.END_HEADERS, 1, b""), "that it had not begun"),
        (frame(frames.HEADERS, ENDED | frames.PADDED, 1, b"\x05" + OK), "padded a frame with more than it holds"),
        (frame(frames.PUSH_PROMISE, 0, 1, b""), "pushed a stream"),
        (frame(frames.SETTINGS, 0, 0, b"\0"), "a part of a setting"),
        (frames.settings_frame({frames.HEADER_TABLE_SIZE: 0}), "took its header table back"),
        (b"\x00\x40\x01\x00\x00\x00\x00\x00\x01", "a frame of 16385 bytes"),
    ],
)
def test_what_is_no_answer_ends_the_run(data: bytes, expected: str) -> None:
    """A fault of any call or of the connection is told in one line, and no figure counts."""
    connection = connected()
    asked(connection, b"question")

    with pytest.raises(WrongAnswerError, match=expected):
        connection.receive(data)


def test_a_refused_call_can_be_asked_again() -> None:
    """It is given back once, what waited of its body is forgotten, and asked again it is a call like any other."""
    connection = connected({frames.INITIAL_WINDOW_SIZE: 10})
    (exchange,) = asked(connection, b"question")
    connection.outgoing()

    assert [] == connection.receive(frame(frames.RST_STREAM, 0, 1, b"\0\0\0\x07"))
    assert ([exchange], [], 0) == (connection.refused(), connection.refused(), connection.in_progress)

    connection.receive(frames.window_frame(1, 100))
    connection.ask(exchange)
    assert [(3, b"question00")] == data_to(connection)
    connection.receive(frames.window_frame(3, 100))
    connection.outgoing()
    assert [exchange] == connection.receive(answered(3))


def test_a_call_that_was_answered_may_be_reset() -> None:
    """A server that wants no more of a question says so after its answer."""
    connection = connected()
    asked(connection, b"question")

    assert 1 == len(connection.receive(answered(1) + frame(frames.RST_STREAM, 0, 1, b"\0\0\0\0")))


@pytest.mark.parametrize("data", [b"", b"\0\0\0\0", b"\1\0\0\0\0", b"\0\0\0\0\2a", BODY * 2])
def test_an_answer_is_one_whole_message(data: bytes) -> None:
    """Its length is that of its prefix, and it is not compressed."""
    exchange = Exchange(Asked(b"", (), 0), 0.0)
    exchange.answer = data

    with pytest.raises(WrongAnswerError, match="the answer is not one message"):
        exchange.message()


class Checking:
    """Checks of a server that has been asked one question, which must be allowed."""

    def __init__(self) -> None:
        workload = generated_workload()
        self._asked = Asked(b"one", workload.repeated[:1], 0)
        self._question = workload.repeated[0]
        self._checks = Checks(PDPDialect(("handle",), ""), every=64)

    def take(self, **changes: object) -> None:
        """Check the right answer, or one that differs from it."""
        decision = answer()
        decision.arguments_digest = self._question.arguments_digest
        decision.MergeFrom(Decision(**changes))  # type: ignore[arg-type]  # fields of the message
        wire = AuthorizeResponse(decision=decision).SerializeToString()
        exchange = Exchange(self._asked, 0.0)
        exchange.answer = b"\x00" + len(wire).to_bytes(4) + wire
        self._checks.check(exchange)

    @property
    def checked(self) -> int:
        """Return how many answers were decoded."""
        return self._checks.sample((), 1.0).checked


def test_one_answer_in_four_is_decoded() -> None:
    """The others only have the length of one that was right."""
    checking = Checking()
    for _ in range(64):
        checking.take()

    assert 16 == checking.checked


def test_a_wrong_answer_of_another_length_is_found_at_once() -> None:
    """A deny names other policies than an allow, and so has another length."""
    checking = Checking()
    checking.take()

    with pytest.raises(WrongAnswerError, match="must be allowed"):
        checking.take(outcome=OUTCOME_DENY, determining_policies=["bench/forbidden"])


def test_a_wrong_answer_of_the_same_length_is_found_soon() -> None:
    """Of the next four, one is decoded."""
    checking = Checking()
    checking.take()

    for _ in range(3):
        checking.take(outcome=OUTCOME_DENY)
    with pytest.raises(WrongAnswerError, match="must be allowed"):
        checking.take(outcome=OUTCOME_DENY)
