"""The one way out to web servers: over TLS, within limits of time, to checked addresses, and after no redirect."""

from __future__ import annotations

import http.client
import io
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import SplitResult, urlsplit

from pdp.errors import ConfigurationError
from pdp.foundation.files import state_of
from pdp.foundation.hosts import SHARED
from pdp.foundation.loopback import is_address, is_loopback
from pdp.foundation.ownership import require_own

# For one step, such as connecting or waiting for the next bytes; and for all steps together.
STEP_SECONDS: Final = 10.0
WHOLE_SECONDS: Final = 60.0
# Of an answer, what is read at a time.
_CHUNK_BYTES: Final = 64 * 1024
# Translators reach an IPv4 address by its last four bytes (RFC 6052).
_TRANSLATED: Final = ipaddress.IPv6Network("64:ff9b::/96")
# All that is given out of IPv6 (RFC 4291). Beyond it are translators of a network's own, and what is no longer used.
_GIVEN_OUT: Final = ipaddress.IPv6Network("2000::/3")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
T = TypeVar("T")
Socket = TypeVar("Socket", bound=socket.socket)


class EgressError(Exception):
    """There is no whole answer; the message continues after the URL: `did not answer in time`."""


class NotReachedError(EgressError):
    """There was no connection on which the request could have been sent."""


class NotAskedError(NotReachedError):
    """The server was not asked; the message says why: `others can write to ...`."""


class TooLargeError(EgressError):
    """The answer is larger than its limit."""


class Roots:
    """The authorities that a server's certificate must lead to: those of a file, or the system's. Safe for threads.

    They are read again when they have changed: reading those of a system takes tens of milliseconds.
    """

    def __init__(self, ca_file: str = "") -> None:
        self._ca_file = ca_file
        system = ssl.get_default_verify_paths()
        self._watched = (ca_file,) if ca_file else (system.cafile or "", system.capath or "")
        self._read: tuple[object, ssl.SSLContext] | None = None

    def context(self) -> ssl.SSLContext:
        """Return what verifies a server. Raise `NotAskedError`."""
        seen = tuple(state_of(Path(one)) for one in self._watched)
        if self._read is None or self._read[0] != seen:
            self._read = seen, self._trusted()
        return self._read[1]

    def _trusted(self) -> ssl.SSLContext:
        try:
            if self._ca_file:
                require_own(Path(self._ca_file), "anyone could impersonate the server")
            return ssl.create_default_context(cafile=self._ca_file or None)
        except ConfigurationError as error:
            raise NotAskedError(str(error)) from None
        except OSError:
            raise NotAskedError(f"`{self._ca_file}` holds no certificates") from None


class Egress:
    """Requests to one URL. For one thread at a time, except `close`.

    Without `ca_file` the system's roots are trusted; `roots` are those that several requests share. `private_hosts`
    names the hosts that may be at an address which is not public; None allows it for all. Loopback by its own name is
    always allowed. `step_seconds` and `whole_seconds` limit a request.
    """

    def __init__(
        self,
        url: str,
        *,
        ca_file: str = "",
        roots: Roots | None = None,
        private_hosts: Collection[str] | None = None,
        step_seconds: float = STEP_SECONDS,
        whole_seconds: float = WHOLE_SECONDS,
    ) -> None:
        self._parts = urlsplit(url)
        self._roots = roots or Roots(ca_file)
        self._private_hosts = private_hosts
        self._step_seconds = step_seconds
        self._whole_seconds = whole_seconds
        self._exchange: _Exchange | None = None
        self._closed = False

    def ask(
        self,
        method: str,
        headers: Mapping[str, str],
        take: Callable[[http.client.HTTPResponse], T],
        *,
        body: bytes | None = None,
    ) -> T:
        """Send a request and return what `take` makes of the answer. Raise `EgressError`."""
        exchange = self._exchange = _Exchange(self._step_seconds, self._whole_seconds)
        # INVARIANT: either this code or `close` sees what the other has done.
        if self._closed:
            raise NotReachedError("is no longer asked")
        failed: type[EgressError] = NotReachedError
        try:
            connection = self._connection(exchange)
            failed = EgressError
            return take(exchange.begin(connection, method, _target(self._parts), headers, body))
        except (OSError, http.client.HTTPException, EgressError) as error:
            raise failed("did not answer in time") if exchange.late else _said(error, failed) from None
        finally:
            self._exchange = None
            exchange.end()

    def close(self) -> None:
        """End a running request; later ones fail at once."""
        self._closed = True
        exchange = self._exchange
        if exchange is not None:
            exchange.abort()

    def _connection(self, exchange: _Exchange) -> http.client.HTTPConnection:
        parts, host = self._parts, _host(self._parts)
        # Without a port, the library takes the end of an IPv6 address for one.
        if parts.scheme != "https":
            plain = http.client.HTTPConnection(host, parts.port or http.client.HTTP_PORT)
            plain.sock = exchange.wired(self._connected(plain, exchange))
            return plain
        trusted = self._roots.context()
        connection = http.client.HTTPSConnection(host, parts.port or http.client.HTTPS_PORT, context=trusted)
        connected = self._connected(connection, exchange)
        # Held before the handshake, which can then be ended.
        secured = exchange.hold(trusted.wrap_socket(connected, server_hostname=host, do_handshake_on_connect=False))
        secured.do_handshake()
        connection.sock = exchange.wired(secured)
        return connection

    def _connected(self, connection: http.client.HTTPConnection, exchange: _Exchange) -> socket.socket:
        """Connect to the first address that answers, of those that were checked: a name is resolved once."""
        host, refused = connection.host, OSError()
        places = exchange.places_of(host, connection.port)
        self._require_allowed(host, [place.address for place in places])
        for place in places:
            try:
                return exchange.connected(place)
            except OSError as error:
                refused = error
        raise refused

    def _require_allowed(self, host: str, addresses: Collection[str]) -> None:
        if self._private_hosts is None or host in self._private_hosts or is_loopback(host):
            return
        for address in addresses:
            if not is_public(address):
                raise NotAskedError(f"`{host}` is at the private address `{address}` and not among `private_hosts`")


def is_public(text: str) -> bool:
    """Say whether an address, in whatever form, is one of the public network."""
    address: Address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        embedded = address.ipv4_mapped or address.sixtofour
        if address in _TRANSLATED:
            embedded = ipaddress.IPv4Address(address.packed[-4:])
        if embedded is None and address not in _GIVEN_OUT:
            return False
        address = embedded or address
    return address.is_global and not address.is_multicast


def read_whole(response: http.client.HTTPResponse, most: int) -> bytes:
    """Return the whole body of an answer. Raise `TooLargeError` beyond `most` bytes, and `EgressError` for a part."""
    announced = response.length
    if announced is not None and announced > most:
        raise TooLargeError(f"is larger than {most} bytes")
    body = bytearray()
    for piece in pieces_of(response):
        body += piece
        if len(body) > most:
            raise TooLargeError(f"is larger than {most} bytes")
    return bytes(body)


def pieces_of(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield the body of an answer as it comes. Raise `EgressError` when it stops early."""
    announced, size = response.length, 0
    while piece := response.read1(_CHUNK_BYTES):
        size += len(piece)
        yield piece
    if announced is not None and size != announced:
        raise EgressError(f"stopped after {size} of {announced} bytes")


class _Place(NamedTuple):
    """Where a host can be reached: its address, in the form of its family."""

    family: int
    where: tuple[Any, ...]

    @property
    def address(self) -> str:
        return str(self.where[0])


class _Wire:
    """A connection as the library of HTTP uses it. `left` says how long the next step may take, and may raise.

    The exchange closes the socket, not the library.
    """

    def __init__(self, connected: socket.socket, left: Callable[[], float]) -> None:
        self._connected, self._left = connected, left

    def sendall(self, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            self._connected.settimeout(self._left())
            rest = rest[self._connected.send(rest) :]

    def makefile(self, _: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._connected, self._left))

    def close(self) -> None:
        return


class _Reader(io.RawIOBase):
    def __init__(self, connected: socket.socket, left: Callable[[], float]) -> None:
        self._connected, self._left = connected, left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - what can be written into
        self._connected.settimeout(self._left())
        size = self._connected.recv_into(buffer)
        if not size:
            # INVARIANT: an answer that was cut off by the end of its request does not look whole.
            self._left()
        return size


class _Exchange:
    """One connection, which ends after `whole_seconds` whatever the server does."""

    def __init__(self, step_seconds: float, whole_seconds: float) -> None:
        self._step_seconds, self._ends_at = step_seconds, time.monotonic() + whole_seconds
        self._connection: http.client.HTTPConnection | None = None
        self._socket: socket.socket | None = None
        # Done when it is to end: nobody waits for the resolver any longer.
        self._aborted: Future[None] = Future()

    @property
    def late(self) -> bool:
        """Say whether its time is over."""
        return time.monotonic() >= self._ends_at

    def left(self) -> float:
        """Return how many seconds the next step may take. Raise `TimeoutError` when the exchange has ended."""
        seconds = min(self._step_seconds, self._ends_at - time.monotonic())
        if self._aborted.done() or seconds <= 0:
            raise TimeoutError
        return seconds

    def places_of(self, host: str, port: int | None) -> list[_Place]:
        """Return where a host is. Raise `OSError`.

        The system's resolver has no limit that a program could set, and can take minutes. It runs on a thread that all
        who ask for the host share, and which is left to itself when the exchange ends.
        """
        if is_address(host):
            return _places(host, port)
        asked = SHARED.ask(host)
        either: tuple[Future[Any], ...] = (asked, self._aborted)
        wait(either, max(self._ends_at - time.monotonic(), 0.0), FIRST_COMPLETED)
        if self._aborted.done() or not asked.done():
            raise TimeoutError
        try:
            addresses = asked.result()
        except UnicodeError:
            raise socket.gaierror from None
        return list(dict.fromkeys(place for address in addresses for place in _places(address, port)))

    def connected(self, place: _Place) -> socket.socket:
        """Connect. Raise `OSError`."""
        connecting = socket.socket(place.family, socket.SOCK_STREAM)
        try:
            self.hold(connecting)
            # The body goes after the headers: it is not to wait until they are acknowledged.
            connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connecting.connect(place.where)
        except BaseException:
            connecting.close()
            raise
        return connecting

    def hold(self, held: Socket) -> Socket:
        """Remember the socket, so that it can be shut down while it connects, agrees on TLS, or is read."""
        self._socket = held
        # INVARIANT: either this code or `abort` sees what the other has done.
        held.settimeout(self.left())
        return held

    def wired(self, connected: socket.socket) -> Any:  # noqa: ANN401 - the library wants a socket
        """Hold a socket, and return it as the library of HTTP uses it."""
        return _Wire(self.hold(connected), self.left)

    def begin(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None,
    ) -> http.client.HTTPResponse:
        self._connection = connection
        connection.request(method, target, body=body, headers=dict(headers))
        return connection.getresponse()

    def abort(self) -> None:
        # Several threads may end it.
        with suppress(InvalidStateError):
            self._aborted.set_result(None)
        if self._socket is not None:
            # Use the plain socket's method: that of a TLS socket would remove it while the reader uses it.
            with suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def end(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._socket is not None:
            self._socket.close()


def _places(address: str, port: int | None) -> list[_Place]:
    found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return list(dict.fromkeys(_Place(family, where) for family, *_, where in found))


def _host(parts: SplitResult) -> str:
    """Return the host as it is compared: in lower case, without brackets and without the dot of the root."""
    return (parts.hostname or "").removesuffix(".")


def _target(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _said(error: Exception, failed: type[EgressError]) -> EgressError:
    return error if isinstance(error, EgressError) else failed(_in_words(error))


def _in_words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "did not answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"has a certificate that is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"does not speak TLS as expected: {error.reason or 'no reason given'}"
    if isinstance(error, socket.gaierror):
        return "has a host that cannot be found"
    if isinstance(error, OSError):
        return f"cannot be reached: {(error.strerror or 'connection lost').lower()}"
    return "did not answer in valid HTTP"
