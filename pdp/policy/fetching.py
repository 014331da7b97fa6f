"""Fetch packed bundles from a URL: over TLS, within limits of size and time, and only when they have changed."""

from __future__ import annotations

import http.client
import logging
import re
import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pdp.errors import BundleError, BundleUnavailableError, Problem
from pdp.limits import Limits
from pdp.policy.delivery import Delivery
from pdp.policy.packed import pack, packed_bytes, read_packed, unpack

_LOG = logging.getLogger("pdp")

# For one step, such as connecting or waiting for the next bytes; and for all of them.
_STEP_SECONDS = 10.0
_WHOLE_SECONDS = 60.0
# Whoever comes while somebody else is being answered waits for so long.
_PATIENCE_SECONDS = 2.0
_CHUNK_BYTES = 64 * 1024
_OK, _NOT_MODIFIED, _REDIRECTS = 200, 304, range(300, 400)
_ENTITY_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]{0,256}"')
_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleURL:
    """Where to fetch, whom to trust, and what to present. Empty files: the system's roots, and no token."""

    url: str
    ca_file: str = ""
    token_file: str = ""

    @property
    def shown(self) -> str:
        """Return the URL for people: without its query, which may hold a secret."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{parts.path}"


class URLSource:
    """A `BundleSource`: a packed bundle behind a URL. Keeps the last good one in the file `kept_at`.

    Redirects are not followed, so that a token goes nowhere else. `step_seconds` and `whole_seconds` bound a fetch.
    """

    name = "policy-url"

    def __init__(
        self,
        place: BundleURL,
        limits: Limits,
        *,
        kept_at: Path,
        step_seconds: float = _STEP_SECONDS,
        whole_seconds: float = _WHOLE_SECONDS,
    ) -> None:
        self._place = place
        self._limits = limits
        self._kept_at = kept_at
        self._step_seconds = step_seconds
        self._whole_seconds = whole_seconds
        self._reading = threading.Lock()
        self._fetch: _Fetch | None = None
        self._closed = False
        self._latest: Delivery | None = None
        self._entity_tag = ""
        self._kept: Delivery | None = None

    def read(self) -> Delivery:
        """Return what is behind the URL; what was read before, when the server says that nothing has changed."""
        if not self._reading.acquire(timeout=_PATIENCE_SECONDS):
            raise self._silent("is being asked already; try again")
        try:
            if self._closed:
                raise self._silent("is not asked any more")
            try:
                found = self._ask()
            except (OSError, http.client.HTTPException) as error:
                raise self._silent(_in_words(error)) from None
            if found is not None:
                packed, tag = found
                self._latest, self._entity_tag = None, ""
                self._latest = self._unpacked(packed)
                self._entity_tag = tag
            if self._latest is None:
                raise self._silent(f"answers `{_NOT_MODIFIED}`, and nothing was read before")
            return self._latest
        finally:
            self._reading.release()

    def loaded(self, delivery: Delivery) -> None:
        """Keep a good bundle on the disk, for a start while the URL is silent."""
        if delivery == self._kept:
            return
        partial = self._kept_at.with_name(f".{self._kept_at.name}.partial")
        try:
            partial.write_bytes(pack(delivery.files, delivery.signature))
            partial.replace(self._kept_at)
        except OSError as error:
            _LOG.warning("the last good bundle was not kept in `%s`: %s", self._kept_at, error.strerror)
            return
        self._kept = delivery

    def last_good(self) -> Delivery | None:
        """Return the bundle that was kept, by this process or one before it."""
        try:
            return read_packed(self._kept_at, self._limits)
        except BundleError:
            return None

    def close(self) -> None:
        """End a fetch that is going on; later ones fail at once."""
        self._closed = True
        fetch = self._fetch
        if fetch is not None:
            fetch.abort()

    def _ask(self) -> tuple[bytes, str] | None:
        tag = self._entity_tag if self._latest is not None else ""
        headers = {"Accept": "application/octet-stream", "Accept-Encoding": "identity"}
        headers |= {"If-None-Match": tag} if tag else {}
        headers |= {"Authorization": f"Bearer {self._token()}"} if self._place.token_file else {}
        fetch = self._fetch = _Fetch(self._connection(), self._whole_seconds)
        try:
            return self._answer(fetch.begin(self._target(), headers), asked_for_changes=bool(tag))
        except (OSError, http.client.HTTPException, BundleError):
            if fetch.late:
                raise TimeoutError from None
            raise
        finally:
            self._fetch = None
            fetch.end()

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self._place.url)
        host = parts.hostname or ""
        if parts.scheme != "https":
            return http.client.HTTPConnection(host, parts.port, timeout=self._step_seconds)
        try:
            # Made for each fetch: the roots may have changed.
            trusted = ssl.create_default_context(cafile=self._place.ca_file or None)
        except OSError:
            raise self._silent(f"is not asked: `{self._place.ca_file}` holds no certificates") from None
        return http.client.HTTPSConnection(host, parts.port, timeout=self._step_seconds, context=trusted)

    def _target(self) -> str:
        parts = urlsplit(self._place.url)
        return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def _answer(self, response: http.client.HTTPResponse, *, asked_for_changes: bool) -> tuple[bytes, str] | None:
        if response.status == _NOT_MODIFIED and asked_for_changes:
            return None
        if response.status in _REDIRECTS:
            raise self._silent(f"answers `{response.status}`, and redirects are not followed")
        if response.status != _OK:
            raise self._silent(f"answers `{response.status}`")
        if response.getheader("Content-Encoding", "identity") != "identity":
            raise self._silent("answers with an encoding that nobody asked for")
        body, tag = self._body(response), response.getheader("ETag", "")
        return body, tag if _ENTITY_TAG.fullmatch(tag) else ""

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        most, announced = packed_bytes(self._limits), response.length
        if announced is not None and announced > most:
            raise self._too_large(most)
        body = bytearray()
        while chunk := response.read1(_CHUNK_BYTES):
            body += chunk
            if len(body) > most:
                raise self._too_large(most)
        if announced is not None and len(body) != announced:
            raise self._silent(f"stopped after {len(body)} of {announced} bytes")
        return bytes(body)

    def _unpacked(self, packed: bytes) -> Delivery:
        try:
            return unpack(packed, self._limits)
        except BundleError as error:
            raise BundleError(
                tuple(p if p.file else Problem(self._place.shown, 0, p.message) for p in error.problems)
            ) from None

    def _token(self) -> str:
        try:
            token = Path(self._place.token_file).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            token = ""
        if not _TOKEN.fullmatch(token):
            raise self._silent(f"is not asked: `{self._place.token_file}` holds no token")
        return token

    def _too_large(self, most: int) -> BundleError:
        return BundleError((Problem(self._place.shown, 0, f"larger than {most} bytes (limit `bundle_bytes`)"),))

    def _silent(self, problem: str) -> BundleUnavailableError:
        return BundleUnavailableError(f"`{self._place.shown}` {problem}")


class _Fetch:
    """One connection, which ends after `whole_seconds` whatever the other side does."""

    def __init__(self, connection: http.client.HTTPConnection, whole_seconds: float) -> None:
        self._connection = connection
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(whole_seconds, self._expire)
        self._timer.daemon = True
        self._aborted = False
        self.late = False

    def begin(self, target: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        self._timer.start()
        self._connection.connect()
        # The connection lets go of it while the body is still read.
        self._socket = self._connection.sock
        # INVARIANT: one of the two, here or `abort`, sees what the other has done.
        if self._aborted:
            raise TimeoutError
        self._connection.request("GET", target, headers=headers)
        return self._connection.getresponse()

    def abort(self) -> None:
        self._aborted = True
        if self._socket is not None:
            # The method of the plain socket: that of a TLS socket would take it away from under the reader.
            with suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def end(self) -> None:
        self._timer.cancel()
        self._connection.close()

    def _expire(self) -> None:
        self.late = True
        self.abort()


def _in_words(error: OSError | http.client.HTTPException) -> str:
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
    return "did not answer as HTTP has it"
