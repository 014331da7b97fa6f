"""A socket by TLS that reads one record at a time.

OpenSSL reads on while what comes is its own: a peer that sends it nothing but new keys would keep the thread that reads
for as long as it likes, and needs no credentials for that.
"""

from __future__ import annotations

import socket
import ssl
from typing import Any, Final

_HEAD_BYTES: Final = 5
# The kind of a record, in its first byte. In TLS 1.3 all that is encrypted says that it is data.
_CIPHER_CHANGED: Final = 20
_HANDSHAKE: Final = 22
# The last of a handshake of TLS 1.2, which is encrypted, has 40.
_MOST_LAST: Final = 64
# How much is given to TLS, or taken from it, at a time: its buffers stay as large as they ever were.
_PART_BYTES: Final = 4 * 1024
# What a record can hold.
RECORD_BYTES: Final = 16 * 1024
# While more than this waits for the peer, nothing is read. A part of an answer, and what TLS itself says, are less.
_MOST_LEFT: Final = 8 * _PART_BYTES
# Records in a row with nothing for us, such as new keys, which an honest peer sends once in millions of records.
_MOST_EMPTY: Final = 32


class TLSSocket:
    """The server's side of TLS on a connected socket that does not block. It raises what an `SSLSocket` would."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._sock = sock
        self._came, self._goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._came, self._goes, server_side=True)
        self._changed = self._shaken = False
        # INVARIANT: TLS has at most a part of one record that it has not read, so that all else that has come is known
        # to who waits for the socket.
        self._head, self._missing = b"", 0
        self._empty = 0
        # What the socket has not taken yet, and of how many bytes of `send` it is.
        self._left = memoryview(b"")
        self._taken = 0

    def fileno(self) -> int:
        """Return the number of the socket; -1 once it is closed."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close the socket."""
        if self.fileno() != -1:
            self._sock.close()
            # Who had it may be kept until the garbage collector finds it.
            del self._tls
            self._shaken = False
            self._came = self._goes = ssl.MemoryBIO()
            self._left = memoryview(b"")

    def do_handshake(self) -> None:
        """Go on with the handshake by one record."""
        try:
            if not self._shaken:
                if not self._feed():
                    raise ConnectionResetError
                self._tls.do_handshake()
                self._shaken = True
        finally:
            if not self._flush():
                raise ssl.SSLWantWriteError

    def selected_alpn_protocol(self) -> str | None:
        """Return the protocol that both sides speak."""
        return self._tls.selected_alpn_protocol()

    def getpeercert(self, *, binary_form: bool = False) -> Any:  # noqa: ANN401 - as in `ssl`
        """Return the peer's certificate."""
        return self._tls.getpeercert(binary_form)

    def recv(self, count: int) -> bytes:
        """Return what is in the next record, or nothing at the end. `count` must be what a record can hold."""
        if len(self._left) > _MOST_LEFT and not self._flush():
            raise ssl.SSLWantWriteError
        try:
            while self._feed():
                try:
                    data = self._tls.read(count)
                except ssl.SSLWantReadError:
                    if self._head:
                        continue
                    self._empty += 1
                    if self._empty > _MOST_EMPTY:
                        raise ConnectionAbortedError from None
                    raise
                self._empty = 0
                return data
            return b""
        finally:
            self._flush()

    def send(self, data: memoryview) -> int:
        """Send some of what there is; say how much. After an error, ask again with the same."""
        if not self._flush():
            raise ssl.SSLWantWriteError
        if not self._taken:
            self._taken = self._tls.write(data[:_PART_BYTES])
            if not self._flush():
                raise ssl.SSLWantWriteError
        taken, self._taken = self._taken, 0
        return taken

    def _feed(self) -> bool:
        """Give TLS more of one record; say whether there is any."""
        if len(self._head) < _HEAD_BYTES:
            came = self._sock.recv(_HEAD_BYTES - len(self._head))
            if not came:
                return False
            self._came.write(came)
            self._head += came
            if len(self._head) < _HEAD_BYTES:
                return True
            self._missing = int.from_bytes(self._head[3:])
        if self._missing:
            # Also when it is asked for again, since the handshake may have had to write first.
            self._refuse_renegotiation(self._head[0])
            # Who claims to send more than a record can hold is refused after a part.
            came = self._sock.recv(min(self._missing, _PART_BYTES))
            if not came:
                return False
            self._came.write(came)
            self._missing -= len(came)
        if not self._missing:
            self._head = b""
        return True

    def _refuse_renegotiation(self, kind: int) -> None:
        """Raise `OSError` for a record that can ask for a new handshake, which HTTP/2 forbids.

        OpenSSL would refuse each of the 4,096 that one record can hold, also behind the last of the first handshake.
        """
        if kind == _HANDSHAKE:
            # `version` tells nothing before the end of the handshake.
            last = self._changed and (self._tls.cipher() or ("", ""))[1] == "TLSv1.2"
            if self._shaken or (last and self._missing > _MOST_LAST):
                raise ConnectionAbortedError
        elif kind == _CIPHER_CHANGED:
            self._changed = True

    def _flush(self) -> bool:
        """Send what is written; say whether the socket has taken all of it."""
        if self._goes.pending:
            self._left = memoryview(bytes(self._left) + self._goes.read())
        try:
            while self._left:
                self._left = self._left[self._sock.send(self._left) :]
        except (BlockingIOError, InterruptedError):
            return False
        # What is empty would keep what it is a part of.
        self._left = memoryview(b"")
        return True
