"""HTTP/2 by hand, for callers that break its rules or its spirit."""

from __future__ import annotations

import socket
from collections.abc import Mapping

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_DATA, _HEADERS, _SETTINGS = 0, 1, 4
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
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
        "authorization": f"Bearer {token}",
    }
    body = b"\0" + len(message).to_bytes(4) + message
    return frame(_HEADERS, _END_HEADERS, stream, _literal(headers)) + frame(_DATA, _END_STREAM, stream, body)


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
