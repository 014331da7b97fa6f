"""A proxy between a store and its server, which can stall, cut or change what passes."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from threading import Event, Thread


class Proxy:
    """Passes connections to a port of this machine on, until it is told otherwise.

    While `stalled`, it takes what is sent and passes nothing on. `change` may change the first message of a client.
    After a client has sent `cut_after`, its answer is kept back and the connection closed.
    """

    def __init__(self, port: int, *, change: Callable[[bytes], bytes] = bytes) -> None:
        # Where the next connection goes.
        self.to = port
        self._change = change
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self.port = int(self._listening.getsockname()[1])
        self.stalled = Event()
        self.cut_after = b""
        Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End it, with all connections."""
        for one in (self._listening, *self._sockets):
            _end(one)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.to))
            except OSError:
                client.close()
                continue
            self._sockets += (client, server)
            Thread(target=self._upwards, args=(client, server), daemon=True).start()
            Thread(target=self._pass, args=(server, client), daemon=True).start()

    def _upwards(self, client: socket.socket, server: socket.socket) -> None:
        try:
            server.sendall(self._change(client.recv(65536)))
        except OSError:
            return
        self._pass(client, server)

    def _send(self, data: bytes, source: socket.socket, target: socket.socket) -> None:  # noqa: ARG002 - for subclasses
        target.sendall(data)

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                if self.stalled.is_set():
                    continue
                if self.cut_after and self.cut_after in data:
                    # First, so that no answer passes. The server can still read what it was sent.
                    _end(source)
                    target.sendall(data)
                    target.shutdown(socket.SHUT_WR)
                    return
                self._send(data, source, target)
        except OSError:
            pass
        _end(target)


def without_options(message: bytes) -> bytes:
    """Return the first message of a client without its options, as a pooler passes it on."""
    length, version = struct.unpack_from(">II", message)
    if version >> 16 != 3:
        return message
    fields = message[8:length].rstrip(b"\0").split(b"\0")
    pairs = [pair for pair in zip(fields[::2], fields[1::2], strict=True) if pair[0] != b"options"]
    body = struct.pack(">I", version) + b"".join(name + b"\0" + value + b"\0" for name, value in pairs) + b"\0"
    return struct.pack(">I", len(body) + 4) + body


def _end(one: socket.socket) -> None:
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    finally:
        one.close()
