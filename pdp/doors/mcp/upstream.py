"""The server behind the proxy, over HTTP: one URL, which alone is sent its credentials. Redirects are not followed."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpcore2

from pdp.doors.mcp import headers as http
from pdp.doors.mcp.apart import apart
from pdp.doors.mcp.clientcertificate import ClientCertificate
from pdp.doors.mcp.connections import Connections
from pdp.doors.mcp.credentials import Credentials
from pdp.doors.mcp.events import EventReader
from pdp.doors.mcp.load import Load, OverloadedError, Share
from pdp.doors.mcp.messages import MOST_BYTES, InvalidMessageError, Message
from pdp.doors.mcp.serversfile import ServerEntry, url_problem
from pdp.errors import ConfigurationError, one_line
from pdp.foundation.ownership import require_own
from pdp.serving.web import RefusedRequestError

_LOG = logging.getLogger(__name__)

_CONNECT_SECONDS, _WRITE_SECONDS, _TURN_SECONDS = 5.0, 30.0, 5.0
# Shorter than servers keep a connection, so that none is used that ends at this moment.
_IDLE_SECONDS = 3.0
_MOST_CONNECTIONS = 1024
# Of a stream of events: some milliseconds at most.
_AT_ONCE = 8 * 1024
_REDIRECTS = range(300, 400)
_SHOWN = 200
_TOO_LARGE = "The server's answer is too large."
_FAILURES = (
    httpcore2.NetworkError,
    httpcore2.TimeoutException,
    httpcore2.ProtocolError,
    httpcore2.UnsupportedProtocol,
    OSError,
)


class UpstreamError(Exception):
    """The server cannot be asked, or answers in a form that is not handed on.

    The text is for a client of the proxy. `reason` may say more, for whoever runs it.
    """

    def __init__(self, text: str, reason: str = "") -> None:
        super().__init__(text)
        self.reason = reason or text


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamAnswer:
    """The server's answer: its status, its headers, and its body as it comes, which takes its `share` of a load."""

    status: int
    headers: http.Headers
    pieces: AsyncIterator[bytes]
    share: Share

    def hold(self, message: Message, *, beside: int = 0) -> None:
        """Hold the memory of a message of it. Raise `UpstreamError` when there is no room for it."""
        with _within_bounds():
            self.share.whole(message, beside=beside)

    async def body(self) -> bytes:
        """Return the whole body. Raise `UpstreamError` when it is too large, or breaks off."""
        held = bytearray()
        async for piece in self.pieces:
            held += piece
            if len(held) > MOST_BYTES:
                raise UpstreamError(_TOO_LARGE, f"it answers more than {MOST_BYTES} bytes")
            with _within_bounds():
                self.share.reading(len(held))
        return bytes(held)

    async def messages(self, reader: EventReader | None = None) -> AsyncGenerator[Message | None]:
        """Yield the messages of a stream of events as they come; None for a sign that it is still open.

        What is no message is dropped. Raise `UpstreamError` when the stream breaks off.
        """
        reader, told = reader or EventReader(), False
        async for part in self._parts():
            try:
                events = tuple(reader.feed(part))
            except InvalidMessageError:
                raise UpstreamError(_TOO_LARGE, f"it sends an event of more than {MOST_BYTES} bytes") from None
            messages = [event for event in events if event.is_message]
            if len(messages) < len(events):
                # One sign for all: there can be one in each byte.
                yield None
            for event in messages:
                try:
                    message = await apart(Message.read, event.text)
                except InvalidMessageError as error:
                    if not told:
                        _LOG.warning("a message of the server is dropped: %s", error)
                    told = True
                    continue
                self.hold(message, beside=reader.held)
                yield message
            with _within_bounds():
                self.share.reading(reader.held)

    async def _parts(self) -> AsyncGenerator[bytes]:
        """Yield the body as it comes, in parts between which others have a turn: it can hold an event in each byte."""
        async for piece in self.pieces:
            for at in range(0, len(piece), _AT_ONCE):
                yield piece[at : at + _AT_ONCE]
                await asyncio.sleep(0)


class Upstream:
    """Sends requests to one server. Open it with `async with`.

    `certificate` is what it presents to the server. Raise `ConfigurationError` for a URL that is not https, or http on
    loopback.
    """

    def __init__(
        self,
        url: str,
        *,
        credentials: Credentials | None = None,
        ca_file: Path | None = None,
        certificate: ClientCertificate | None = None,
    ) -> None:
        if problem := url_problem(url):
            raise ConfigurationError(problem)
        self.credentials = credentials or Credentials()
        self._url = httpcore2.URL(url)
        self._pool = Connections(
            ssl_context=_trusting(ca_file, certificate) if url.lower().startswith("https:") else None,
            max_connections=_MOST_CONNECTIONS,
            keepalive_expiry=_IDLE_SECONDS,
        )

    @classmethod
    def of(cls, entry: ServerEntry) -> Self:
        """Return what sends requests to the server of an entry. Raise `ConfigurationError` for a faulty file."""
        return cls(
            entry.upstream,
            credentials=Credentials(entry.headers_file, call_tokens=bool(entry.call_token)),
            ca_file=entry.tls_roots,
            certificate=entry.certificate,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.aclose()

    @asynccontextmanager
    async def exchange(
        self,
        method: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        load: Load | None = None,
        seconds: float | None = None,
    ) -> AsyncIterator[UpstreamAnswer]:
        """Send one request, and provide its answer while it comes. Raise `UpstreamError`.

        All of it may take some `seconds`, by default as long as it takes.
        The messages of the answer take their share of `load`, or else of one that is for this answer alone.
        Leaving before the end closes the connection, by which a server learns that nobody waits any more.
        """
        # The last word is the proxy's.
        whole = {**headers, "accept-encoding": "identity", **self.credentials.headers()}
        if body:
            whole["content-type"] = "application/json"
        limits = {"connect": _CONNECT_SECONDS, "write": _WRITE_SECONDS, "pool": _TURN_SECONDS, "read": None}
        try:
            async with (
                asyncio.timeout(seconds),
                self._pool.stream(
                    method,
                    self._url,
                    headers=list(whole.items()),
                    content=body,
                    extensions={"timeout": limits},
                ) as response,
            ):
                with (load or Load()).share() as share:
                    yield self._checked(response, share)
        except _FAILURES as error:
            _LOG.warning("the server behind the proxy cannot be asked: %s", type(error).__name__)
            raise UpstreamError(
                "The server behind this proxy does not answer. Try again later.", _reason(error)
            ) from None

    def _checked(self, response: httpcore2.Response, share: Share) -> UpstreamAnswer:
        try:
            headers = http.read(response.headers)
        except RefusedRequestError as refused:
            raise _strange("answers with a header twice", str(refused)) from None
        if any(map(self.credentials.shown_in, headers.values())):
            raise _strange("shows a credential of this proxy", "it shows a credential that it was sent")
        if response.status in _REDIRECTS:
            where = one_line(headers.get("location", "")[:_SHOWN])
            raise _strange(
                "answers with a redirect, which is not followed",
                f"it redirects to `{where}`, which is not followed: name that URL if it is the right one",
            )
        if (encoding := headers.get("content-encoding", "identity")) != "identity":
            raise _strange(
                "answers in an encoding that was not requested",
                f"it answers in the encoding `{one_line(encoding[:32])}`, which was not requested",
            )
        return UpstreamAnswer(status=response.status, headers=headers, pieces=response.aiter_stream(), share=share)


@contextmanager
def _within_bounds() -> Iterator[None]:
    try:
        yield
    except OverloadedError:
        raise UpstreamError("Too much is under way at this proxy. Try again later.") from None


def _strange(what: str, reason: str) -> UpstreamError:
    return UpstreamError(f"The server behind this proxy {what}.", reason)


def _reason(error: Exception) -> str:
    """Return what a failed connection says; of other failures, whose texts can hold headers, the kind alone."""
    if isinstance(error, httpcore2.TimeoutException):
        return "no connection in time"
    if isinstance(error, httpcore2.ConnectError | OSError) and str(error):
        return f"no connection: {one_line(str(error))[:_SHOWN]}"
    return f"the connection broke: {type(error).__name__}"


def _trusting(ca_file: Path | None, certificate: ClientCertificate | None) -> ssl.SSLContext:
    try:
        if ca_file is not None:
            require_own(ca_file, "anyone could impersonate the server")
        context = ssl.create_default_context(cafile=ca_file)
    except OSError:
        raise ConfigurationError(f"`{ca_file}` holds no certificates") from None
    if certificate is not None:
        certificate.load_into(context)
    return context
