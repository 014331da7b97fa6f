"""Fetch a file from a URL: over TLS, within limits of size and time, and only when it has changed."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pdp.errors import ConfigurationError
from pdp.foundation.ownership import require_own

# For one step, such as connecting or waiting for the next bytes; and for all steps together.
STEP_SECONDS = 10.0
WHOLE_SECONDS = 60.0
_CHUNK_BYTES = 64 * 1024
_OK, _NOT_MODIFIED, _REDIRECTS = 200, 304, range(300, 400)
_ENTITY_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]{0,256}"')
_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")


class WebFileError(Exception):
    """The file could not be fetched; the message continues after the URL: `did not answer in time`."""


class WebFileTooLargeError(WebFileError):
    """The file is larger than its limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebEndpoint:
    """The URL, the trusted authorities, and the token. Empty files: the system's roots, and no token."""

    url: str
    ca_file: str = ""
    token_file: str = ""

    @property
    def shown(self) -> str:
        """Return the URL for people, without its query, which can hold a secret."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{parts.path}"


class WebFile:
    """A file at a URL, of at most `most` bytes. For one thread at a time, except `close`.

    Redirects are not followed, so that the token is not sent elsewhere. `step_seconds` and `whole_seconds` limit a
    fetch.
    """

    def __init__(
        self,
        endpoint: WebEndpoint,
        most: int,
        *,
        accept: str = "application/octet-stream",
        step_seconds: float = STEP_SECONDS,
        whole_seconds: float = WHOLE_SECONDS,
    ) -> None:
        self._endpoint = endpoint
        self._most = most
        self._accept = accept
        self._step_seconds = step_seconds
        self._whole_seconds = whole_seconds
        self._fetch: _Fetch | None = None
        self._closed = False

    def fetch(self, known_tag: str = "") -> tuple[bytes, str] | None:
        """Return content and entity tag (or an empty one); None when the file still has `known_tag`.

        Raise `WebFileError`.
        """
        if self._closed:
            raise WebFileError("is no longer fetched")
        try:
            return self._ask(known_tag)
        except (OSError, http.client.HTTPException) as error:
            raise WebFileError(_in_words(error)) from None

    def close(self) -> None:
        """End a running fetch; later ones fail at once."""
        self._closed = True
        fetch = self._fetch
        if fetch is not None:
            fetch.abort()

    def _ask(self, tag: str) -> tuple[bytes, str] | None:
        headers = {"Accept": self._accept, "Accept-Encoding": "identity"}
        headers |= {"If-None-Match": tag} if tag else {}
        headers |= {"Authorization": f"Bearer {self._token()}"} if self._endpoint.token_file else {}
        fetch = self._fetch = _Fetch(self._connection(), self._whole_seconds)
        try:
            return self._answer(fetch.begin(self._target(), headers), asked_for_changes=bool(tag))
        except (OSError, http.client.HTTPException, WebFileError):
            if fetch.late:
                raise TimeoutError from None
            raise
        finally:
            self._fetch = None
            fetch.end()

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self._endpoint.url)
        host = parts.hostname or ""
        if parts.scheme != "https":
            return http.client.HTTPConnection(host, parts.port, timeout=self._step_seconds)
        try:
            # Created for each fetch, because the roots can change.
            if self._endpoint.ca_file:
                require_own(Path(self._endpoint.ca_file), "anyone could impersonate the server")
            trusted = ssl.create_default_context(cafile=self._endpoint.ca_file or None)
        except ConfigurationError as error:
            raise WebFileError(f"is not fetched: {error}") from None
        except OSError:
            raise WebFileError(f"is not fetched: `{self._endpoint.ca_file}` holds no certificates") from None
        return http.client.HTTPSConnection(host, parts.port, timeout=self._step_seconds, context=trusted)

    def _target(self) -> str:
        parts = urlsplit(self._endpoint.url)
        return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def _answer(self, response: http.client.HTTPResponse, *, asked_for_changes: bool) -> tuple[bytes, str] | None:
        if response.status == _NOT_MODIFIED and asked_for_changes:
            return None
        if response.status == _NOT_MODIFIED:
            raise WebFileError(f"answers `{_NOT_MODIFIED}`, but nothing was read before")
        if response.status in _REDIRECTS:
            raise WebFileError(f"answers `{response.status}`, but redirects are not followed")
        if response.status != _OK:
            raise WebFileError(f"answers `{response.status}`")
        if response.getheader("Content-Encoding", "identity") != "identity":
            raise WebFileError("answers with an encoding that was not requested")
        body, tag = self._body(response), response.getheader("ETag", "")
        return body, tag if _ENTITY_TAG.fullmatch(tag) else ""

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        announced = response.length
        if announced is not None and announced > self._most:
            raise WebFileTooLargeError(f"is larger than {self._most} bytes")
        body = bytearray()
        while chunk := response.read1(_CHUNK_BYTES):
            body += chunk
            if len(body) > self._most:
                raise WebFileTooLargeError(f"is larger than {self._most} bytes")
        if announced is not None and len(body) != announced:
            raise WebFileError(f"stopped after {len(body)} of {announced} bytes")
        return bytes(body)

    def _token(self) -> str:
        try:
            require_own(Path(self._endpoint.token_file), "anyone could choose what is presented")
            token = Path(self._endpoint.token_file).read_text(encoding="ascii").strip()
        except ConfigurationError as error:
            raise WebFileError(f"is not fetched: {error}") from None
        except (OSError, UnicodeDecodeError):
            token = ""
        if not _TOKEN.fullmatch(token):
            raise WebFileError(f"is not fetched: `{self._endpoint.token_file}` holds no token")
        return token


class _Fetch:
    """One connection, which ends after `whole_seconds` whatever the server does."""

    def __init__(self, connection: http.client.HTTPConnection, whole_seconds: float) -> None:
        self._connection = connection
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(whole_seconds, self._expire)
        self._timer.name, self._timer.daemon = "pdp-fetch-end", True
        self._aborted = False
        self.late = False

    def begin(self, target: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        self._timer.start()
        self._connection.connect()
        # The connection releases the socket while the body is still being read.
        self._socket = self._connection.sock
        # INVARIANT: either this code or `abort` sees what the other has done.
        if self._aborted:
            raise TimeoutError
        self._connection.request("GET", target, headers=headers)
        return self._connection.getresponse()

    def abort(self) -> None:
        self._aborted = True
        if self._socket is not None:
            # Use the plain socket's method: that of a TLS socket would remove it while the reader uses it.
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
    return "did not answer in valid HTTP"
