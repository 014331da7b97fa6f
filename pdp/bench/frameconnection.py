"""One connection that asks a gRPC server by prepared frames, without a socket: bytes in, answers out, and back.

As little as unary calls need (RFC 9113, and gRPC's "over HTTP/2"), so that a call costs the load far less than the
server. What is not an answer is a `WrongAnswerError`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from urllib.parse import unquote

import grpc

from pdp.bench import frames
from pdp.bench.callids import digits_of, traceparent
from pdp.bench.exchanges import Asked
from pdp.bench.failure import WrongAnswerError
from pdp.bench.frames import END_STREAM, Frame, FrameReader, frame
from pdp.bench.hpack import Field, HeaderError, RequestHeaders, read_block

PREFIX_BYTES: Final = 5

# What the server may send: to a stream more than any answer has, and to the connection more than it can have sent
# before it is given more.
_STREAM_WINDOW, _CONNECTION_WINDOW = 1 << 20, 1 << 30
_MOST_BLOCKS: Final = 64
_A_TRACE: Final = traceparent(digits_of(1)).decode()
_CODES: Final = {str(code.value[0]): code.name for code in grpc.StatusCode}


class Exchange:
    """One call: what was asked, when it began, how often it was refused, and as much of the answer as has come.

    `asked.wire` is the call's message in gRPC's frame, but for the digits that both end with.
    """

    __slots__ = ("answer", "asked", "begun", "headed", "refused")

    def __init__(self, asked: Asked, begun: float) -> None:
        self.asked = asked
        self.begun = begun
        self.refused = 0
        self.headed = False
        self.answer = b""

    def message(self) -> bytes:
        """Return the one message of the answer. Raise `WrongAnswerError` when its length is not what it says."""
        answer, length = self.answer, len(self.answer) - PREFIX_BYTES
        if length < 0 or answer[0] or int.from_bytes(answer[1:PREFIX_BYTES]) != length:
            beginning = answer[:PREFIX_BYTES].hex()
            raise WrongAnswerError(f"the answer is not one message: {len(answer)} bytes that begin with `{beginning}`")
        return answer[PREFIX_BYTES:]


class FrameConnection:
    """A connection on which many calls are in progress. It begins with the bytes of `outgoing`.

    `fields` are the headers of each call, which also has a trace of its own. `next_number` gives the numbers of calls.
    Calls wait for the server's settings, its bound of streams and its windows.
    """

    def __init__(self, fields: Sequence[Field], next_number: Callable[[], int]) -> None:
        self._fields = fields
        self._next_number = next_number
        self._headers: RequestHeaders | None = None
        self._confirmed = False
        self._table, self._most_streams, self._first_window = frames.USUAL_TABLE, 1 << 31, frames.USUAL_WINDOW
        self._window, self._taken = frames.USUAL_WINDOW, 0
        self._next_stream = 1
        self._open: dict[int, Exchange] = {}
        self._queue: deque[Exchange] = deque()
        self._refused: list[Exchange] = []
        # The rest of the body and the stream's own window, for each stream that waits for one.
        self._unsent: dict[int, tuple[bytes, int]] = {}
        self._reader = FrameReader()
        self._block: Frame | None = None
        self._blocks: dict[bytes, Mapping[str, str]] = {}
        settings = {
            frames.HEADER_TABLE_SIZE: 0,
            frames.ENABLE_PUSH: 0,
            frames.INITIAL_WINDOW_SIZE: _STREAM_WINDOW,
        }
        more = _CONNECTION_WINDOW - frames.USUAL_WINDOW
        self._out = [frames.PREFACE, frames.settings_frame(settings), frames.window_frame(0, more)]

    @property
    def in_progress(self) -> int:
        """Return how many calls have no answer yet, those that wait included, but those that were refused."""
        return len(self._open) + len(self._queue)

    def ask(self, exchange: Exchange) -> None:
        """Begin a call, or let it wait."""
        self._queue.append(exchange)
        self._begin()

    def outgoing(self) -> bytes:
        """Return the bytes for the server since the last time."""
        out = b"".join(self._out)
        self._out.clear()
        return out

    def receive(self, data: bytes) -> list[Exchange]:
        """Take bytes; return the calls that they answer. Raise `WrongAnswerError` for a failure of any call."""
        answered: list[Exchange] = []
        for one in self._reader.read(data):
            if self._block is not None and one.kind != frames.CONTINUATION:
                raise WrongAnswerError("the server put a frame between parts of a header block")
            if one.kind == frames.HEADERS:
                self._take_headers(one, frames.content_of(one.flags, one.payload), answered)
            elif one.kind == frames.DATA:
                self._take_data(one)
            else:
                self._take_other(one, answered)
        if self._queue and (answered or self._refused):
            self._begin()
        return answered

    def refused(self) -> list[Exchange]:
        """Return the calls that the server refused before it looked at them, since the last time: ask them again."""
        refused, self._refused = self._refused, []
        return refused

    def _take_other(self, one: Frame, answered: list[Exchange]) -> None:
        if one.kind == frames.CONTINUATION:
            self._take_continued(one, answered)
        elif one.kind == frames.SETTINGS:
            self._take_settings(one)
        elif one.kind == frames.WINDOW_UPDATE:
            self._take_window(one.stream, frames.number_of(one.payload))
        elif one.kind == frames.PING and not one.flags & frames.ACK:
            self._out.append(frame(frames.PING, frames.ACK, 0, one.payload))
        elif one.kind == frames.RST_STREAM and one.stream in self._open:
            self._take_reset(one.stream, frames.error_name(one.payload))
        elif one.kind == frames.GOAWAY:
            error, said = frames.error_name(one.payload[4:8]), one.payload[8:].decode("ascii", "replace")
            raise WrongAnswerError(f"the server ended the connection with {error}" + (f": {said}" if said else ""))
        elif one.kind == frames.PUSH_PROMISE:
            raise WrongAnswerError("the server pushed a stream, which it was told not to")

    def _take_reset(self, stream: int, error: str) -> None:
        # RFC 9113, section 8.7: such a call was not begun, and is safe to be asked again. No other error says so.
        if error != frames.REFUSED or self._open[stream].headed:
            raise WrongAnswerError(f"no answer: the server reset a call with {error}")
        self._unsent.pop(stream, None)
        self._refused.append(self._open.pop(stream))

    def _take_data(self, one: Frame) -> None:
        exchange = self._open.get(one.stream)
        if exchange is None or not exchange.headed:
            raise WrongAnswerError("the server sent data for a call that is not in progress")
        if one.flags & END_STREAM:
            raise WrongAnswerError("the server ended a call without a status")
        # Padding takes from the window too.
        self._taken += len(one.payload)
        if self._taken >= _CONNECTION_WINDOW // 2:
            self._out.append(frames.window_frame(0, self._taken))
            self._taken = 0
        exchange.answer += frames.content_of(one.flags & frames.PADDED, one.payload)

    def _take_continued(self, one: Frame, answered: list[Exchange]) -> None:
        if self._block is None or self._block.stream != one.stream:
            raise WrongAnswerError("the server continued a header block that it had not begun")
        begun, self._block = self._block, None
        ended = begun._replace(flags=begun.flags | one.flags & frames.END_HEADERS)
        self._take_headers(ended, begun.payload + one.payload, answered)

    def _take_headers(self, one: Frame, block: bytes, answered: list[Exchange]) -> None:
        if not one.flags & frames.END_HEADERS:
            self._block = one._replace(payload=block)
            return
        exchange, fields = self._open.get(one.stream), self._fields_of(block)
        if exchange is None:
            raise WrongAnswerError("the server sent headers for a call that is not in progress")
        if not exchange.headed and fields.get(":status") != "200":
            raise WrongAnswerError(f"no answer: HTTP status `{fields.get(':status', '')}`")
        exchange.headed = True
        if one.flags & END_STREAM:
            _require_ok(fields)
            if one.stream in self._unsent:
                raise WrongAnswerError("the server answered before it had the whole question")
            del self._open[one.stream]
            answered.append(exchange)

    def _fields_of(self, block: bytes) -> Mapping[str, str]:
        """Return the fields of a block. The server has no table, so equal blocks are equal fields."""
        fields = self._blocks.get(block)
        if fields is None:
            try:
                fields = read_block(block)
            except HeaderError as error:
                raise WrongAnswerError(f"the server sent wrong headers: {error}") from None
            if len(self._blocks) < _MOST_BLOCKS:
                self._blocks[block] = fields
        return fields

    def _take_settings(self, one: Frame) -> None:
        if one.flags & frames.ACK:
            self._confirmed = True
        else:
            for name, value in frames.settings_of(one.payload):
                self._set(name, value)
            self._out.append(frame(frames.SETTINGS, frames.ACK, 0))
            if self._headers is None:
                size = min(self._table, frames.USUAL_TABLE)
                self._headers = RequestHeaders(self._fields, ("traceparent", _A_TRACE), table_size=size)
            self._send()
        self._begin()

    def _set(self, name: int, value: int) -> None:
        if name == frames.HEADER_TABLE_SIZE:
            if self._headers is not None and value < self._table:
                raise WrongAnswerError("the server took its header table back")
            self._table = value
        elif name == frames.MAX_CONCURRENT_STREAMS:
            self._most_streams = value
        elif name == frames.INITIAL_WINDOW_SIZE:
            more, self._first_window = value - self._first_window, value
            self._unsent = {stream: (rest, window + more) for stream, (rest, window) in self._unsent.items()}

    def _take_window(self, stream: int, more: int) -> None:
        if not stream:
            self._window += more
        elif stream in self._unsent:
            rest, window = self._unsent[stream]
            self._unsent[stream] = rest, window + more
        self._send()

    def _begin(self) -> None:
        """Begin the calls that need not wait: the settings of both sides count, and the server takes one more."""
        if self._headers is None or not self._confirmed:
            return
        while self._queue and len(self._open) < self._most_streams:
            exchange, stream, digits = self._queue.popleft(), self._next_stream, digits_of(self._next_number())
            self._next_stream += 2
            self._open[stream] = exchange
            body, block = exchange.asked.wire + digits, self._headers.prefix() + traceparent(digits)
            self._out.append(frame(frames.HEADERS, frames.END_HEADERS, stream, block))
            if len(body) <= min(self._window, self._first_window, frames.MOST_FRAME) and not self._unsent:
                self._window -= len(body)
                self._out.append(frame(frames.DATA, END_STREAM, stream, body))
            else:
                self._unsent[stream] = body, self._first_window
                self._send()

    def _send(self) -> None:
        """Send what the windows allow of the bodies that wait, the oldest first."""
        for stream in [*self._unsent]:
            rest, window = self._unsent.pop(stream)
            while (count := min(len(rest), window, self._window, frames.MOST_FRAME)) > 0:
                part, rest = rest[:count], rest[count:]
                window, self._window = window - count, self._window - count
                self._out.append(frame(frames.DATA, 0 if rest else END_STREAM, stream, part))
            if rest:
                self._unsent[stream] = rest, window


def _require_ok(fields: Mapping[str, str]) -> None:
    status = fields.get("grpc-status", "")
    if status != "0":
        code = _CODES.get(status, f"the status `{status}`")
        raise WrongAnswerError(f"no answer: {code}, {unquote(fields.get('grpc-message', ''))}")
