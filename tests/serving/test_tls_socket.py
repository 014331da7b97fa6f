"""A socket by TLS that reads one record at a time: its peer cannot keep the thread that reads it."""

from __future__ import annotations

import _ssl
import ctypes
import os
import socket
import ssl
import weakref
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from pdp.serving.http2.tls import TLSContexts
from pdp.serving.http2.tlssocket import RECORD_BYTES, TLSSocket
from tests.machinery.credentials.authority import Authority

_WAITS = (ssl.SSLWantReadError, BlockingIOError)
_READS_AND_WRITES = 8


class Peer:
    """A client whose TLS is apart from its socket: what it sends can come in parts."""

    def __init__(self, context: ssl.SSLContext, server: ssl.SSLContext) -> None:
        ours, self.sock = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        for one in (ours, self.sock):
            one.settimeout(0.0)
        self.server = TLSSocket(ours, server)
        self.came, self.goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.came, self.goes, server_hostname="localhost")
        for _ in range(_READS_AND_WRITES):
            with suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
            self.sock.send(self.goes.read())
            with suppress(*_WAITS):
                self.server.do_handshake()
            self.take()

    def take(self) -> None:
        """Take the bytes that have come."""
        with suppress(BlockingIOError):
            while part := self.sock.recv(1 << 16):
                self.came.write(part)

    def read(self) -> bytes:
        """Return what the server has sent."""
        read = b""
        with suppress(ssl.SSLWantReadError):
            while part := self.tls.read(1 << 16):
                read += part
        return read


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    """Return a client after its handshake."""
    authority = Authority()
    files = authority.files(tmp_path)
    context = ssl.create_default_context(cadata=authority.roots.decode())
    # The authority of the tests leaves out what Python 3.13 asks for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.load_cert_chain(*authority.caller("spiffe://td/caller").write(tmp_path, "caller"))
    one = Peer(context, TLSContexts(files).current())
    yield one
    one.sock.close()
    one.server.close()


def read_all(server: TLSSocket) -> bytes:
    """Return all that can be read now, or in the next turns."""
    read, waits = b"", 0
    while waits < 2:
        try:
            read += server.recv(RECORD_BYTES)
        except ssl.SSLWantReadError:
            continue
        except BlockingIOError:
            waits += 1
    return read


@pytest.mark.parametrize("step", [1, 4, 7, 1 << 14, 1 << 20])
def test_what_comes_in_parts_is_read_in_order(peer: Peer, step: int) -> None:
    """Wherever the parts of a record end; and nothing waits where the number of the socket does not tell."""
    sent, read = os.urandom(40_000 if step > 100 else 2_000), b""
    for start in range(0, len(sent), 20_000):
        peer.tls.write(sent[start : start + 20_000])
    wire = peer.goes.read()
    for start in range(0, len(wire), step):
        peer.sock.send(wire[start : start + step])
        read += read_all(peer.server)

    assert sent == read


def test_a_full_socket_takes_the_rest_later(peer: Peer) -> None:
    """What was not taken is asked for with the same bytes, and leaves once."""
    sent, read, waits = os.urandom(300_000), b"", 0
    left = memoryview(sent)
    while left:
        try:
            left = left[peer.server.send(left) :]
        except ssl.SSLWantWriteError:
            waits += 1
            peer.take()
            read += peer.read()
    peer.take()

    assert (True, sent) == (waits > 1, read + peer.read())


def test_a_record_that_is_too_long_is_refused_before_all_of_it_has_come(peer: Peer) -> None:
    """It takes no memory beyond that of a right one."""
    peer.sock.send(b"\x17\x03\x03\xff\xff" + bytes(RECORD_BYTES))

    with pytest.raises(ssl.SSLError):
        read_all(peer.server)


def test_who_begins_a_new_handshake_is_left(peer: Peer) -> None:
    """One record can ask for 4,096 of them in TLS 1.2, and took 20 ms and 124 KiB of refusals."""
    peer.sock.send(b"\x16\x03\x03\x40\x18" + bytes(10))

    for _ in range(2):
        with pytest.raises(ConnectionAbortedError):
            read_all(peer.server)


@pytest.mark.parametrize("told", [False, True])
def test_the_end_is_told(peer: Peer, *, told: bool) -> None:
    """With a word of TLS or without."""
    if told:
        with suppress(ssl.SSLWantReadError):
            peer.tls.unwrap()
        peer.sock.send(peer.goes.read())
    else:
        peer.sock.close()

    assert b"" == peer.server.recv(RECORD_BYTES)


def test_a_closed_socket_keeps_nothing_of_tls(peer: Peer) -> None:
    """Its connection is found by the garbage collector alone, perhaps much later; that took 36 KB more of memory."""
    tls = weakref.ref(peer.server._tls)
    before = tls() is None
    peer.server.close()

    assert (False, True) == (before, tls() is None)


@pytest.mark.parametrize(("size", "left"), [(64, False), (65, True)])
def test_no_new_handshake_hides_behind_the_first(tmp_path: Path, size: int, *, left: bool) -> None:
    """The last of a handshake of TLS 1.2 is short; what is longer has more than that."""
    authority = Authority()
    server = TLSContexts(replace(authority.files(tmp_path), client_roots=None)).current()
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    ours, theirs = socket.socketpair()
    came, goes = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context(cadata=authority.roots.decode())
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    tls = context.wrap_bio(came, goes, server_hostname="localhost")
    with ours, theirs:
        ours.settimeout(0.0)
        one = TLSSocket(ours, server)
        with suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        theirs.send(goes.read())
        with suppress(ssl.SSLWantReadError):
            one.do_handshake()
        came.write(theirs.recv(1 << 16))
        with suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        sent = goes.read()
        last = sent.rindex(b"\x16\x03\x03")
        theirs.send(sent[:last] + b"\x16\x03\x03" + size.to_bytes(2, "big") + bytes(size))
        raised: list[type[Exception]] = []
        while not raised:
            try:
                one.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except OSError as error:
                raised.append(type(error))

    assert (45, left) == (len(sent) - last, raised == [ConnectionAbortedError])


class Renewing:
    """A client by OpenSSL itself: Python's `ssl` cannot ask for new keys."""

    def __init__(self, server: ssl.SSLContext) -> None:
        ours, self.sock = socket.socketpair()
        ours.settimeout(0.0)
        self.server = TLSSocket(ours, server)
        self._library = ctypes.CDLL(_ssl.__file__)
        for name in ("TLS_client_method", "SSL_CTX_new", "SSL_new"):
            getattr(self._library, name).restype = ctypes.c_void_p
        method = ctypes.c_void_p(self._library.TLS_client_method())
        self._context = ctypes.c_void_p(self._library.SSL_CTX_new(method))
        self._tls = ctypes.c_void_p(self._library.SSL_new(self._context))
        self._library.SSL_set_fd(self._tls, self.sock.fileno())
        self._library.SSL_set_connect_state(self._tls)

    def shake(self) -> None:
        """Shake hands, by turns."""
        self.sock.settimeout(0.0)
        for _ in range(_READS_AND_WRITES):
            self._library.SSL_do_handshake(self._tls)
            with suppress(*_WAITS):
                self.server.do_handshake()

    def renew(self) -> None:
        """Send a new key, and ask for none."""
        self._library.SSL_key_update(self._tls, 0)
        assert self._library.SSL_do_handshake(self._tls) == 1

    def write(self, data: bytes) -> None:
        """Send data."""
        assert self._library.SSL_write(self._tls, data, len(data)) == len(data)

    def close(self) -> None:
        """Let go of everything."""
        self._library.SSL_free(self._tls)
        self._library.SSL_CTX_free(self._context)
        self.sock.close()
        self.server.close()


@pytest.fixture
def renewing(tmp_path: Path) -> Iterator[Renewing]:
    """Return a client without a certificate, after its handshake."""
    files = Authority().files(tmp_path)
    server = TLSContexts(files).current()
    server.verify_mode = ssl.CERT_NONE
    one = Renewing(server)
    one.shake()
    yield one
    one.close()


def test_new_keys_are_taken_one_at_a_time(renewing: Renewing) -> None:
    """Others have their turn between them, and what follows them is read."""
    for _ in range(10):
        renewing.renew()
    renewing.write(b"question")
    waits = 0
    while waits < 20:
        try:
            read = renewing.server.recv(RECORD_BYTES)
            break
        except ssl.SSLWantReadError:
            waits += 1

    assert (10, b"question") == (waits, read)


def test_who_sends_nothing_but_new_keys_is_left(renewing: Renewing) -> None:
    """What is asked between them is a reason to go on."""
    for _ in range(3):
        for _ in range(32):
            renewing.renew()
        renewing.write(b"x")
    asked = read_all(renewing.server)
    for _ in range(33):
        renewing.renew()

    assert asked == b"xxx"
    with pytest.raises(ConnectionAbortedError):
        read_all(renewing.server)
