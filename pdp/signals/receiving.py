"""The receiver as an ASGI application: what becomes of each pushed token (RFC 8935), and of each leak report.

What costs little comes first: path, bearer token, rate, size. Only then a signature is verified.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, NamedTuple

from pdp.clock import Clock
from pdp.errors import PDPError
from pdp.foundation.ids import new_signal_id
from pdp.identity.tokens import (
    ForeignAudienceError,
    ForeignIssuerError,
    TokenRefusedError,
    UnknownKeyError,
    WrongSignatureError,
)
from pdp.observer import DoorObserver, Event, EventKind, Refusal
from pdp.serving.web import (
    BAD_REQUEST,
    NOT_ALLOWED,
    NOT_FOUND,
    UNAUTHORIZED,
    UNAVAILABLE,
    UNSUPPORTED,
    ClientGoneError,
    Receive,
    RefusedRequestError,
    Scope,
    Send,
    read_body,
    read_headers,
)
from pdp.signals.applying import event_of
from pdp.signals.rate import Rate
from pdp.signals.readers import Reader, Told
from pdp.signals.store import SignalStore
from pdp.signals.words import ForgottenError, Signal, State

_LOG = logging.getLogger("pdp.signals")

PREFIX: Final = "/signals/"
HEALTH: Final = "/health"
# Of one transmitter: bodies that are read at a time, and refusals that are logged.
_MOST_READ: Final = 16
_LOGGED_EVERY_SECONDS: Final = 10.0

_OK, _ACCEPTED, _TOO_MANY = 200, 202, 429
_INVALID: Final = "invalid_request"
_UNAUTHENTICATED: Final = "authentication_failed"
# The words of the RFC, section 2.4, and what a transmitter is told; the reason is in the log.
_ERRORS: Final[Mapping[type[Exception], tuple[str, str]]] = {
    UnknownKeyError: ("invalid_key", "no key of the sender has this id"),
    WrongSignatureError: (_UNAUTHENTICATED, "the signature is wrong"),
    ForeignIssuerError: ("invalid_issuer", "it is from another issuer"),
    ForeignAudienceError: ("invalid_audience", "it is for another audience"),
    ForgottenError: (_INVALID, "it is too old"),
}
_OTHERWISE: Final = (_INVALID, "it is not what is accepted here")


class Answer(NamedTuple):
    """What a transmitter is answered."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = MappingProxyType({})


@dataclass(slots=True, kw_only=True)
class Source:
    """A sender while its signals are received. `bearer` is the SHA-256 of what it sends, or empty for nothing."""

    name: str
    reader: Reader
    rate: Rate
    bearer: bytes = field(default=b"", repr=False)
    reading: int = 0
    logged_at: float = -_LOGGED_EVERY_SECONDS

    def require_known(self, headers: Mapping[str, str]) -> None:
        """Raise `RefusedRequestError` unless the bearer token is the right one."""
        given = hashlib.sha256(headers.get("authorization", "").encode("latin-1")).digest()
        if self.bearer and not hmac.compare_digest(given, self.bearer):
            raise RefusedRequestError(UNAUTHORIZED, "the bearer token is not the right one")


class Receiver:
    """Takes signals at `/signals/NAME`, and says at `/health` whether they are carried out.

    `wake` is called for each new signal. `problem` returns why signals wait, or an empty text. `observe` is told of
    each signal, and `observer` of what is refused.
    """

    def __init__(
        self,
        *,
        sources: Mapping[str, Source],
        store: SignalStore,
        clock: Clock,
        wake: Callable[[], None],
        problem: Callable[[], str],
        observe: Callable[[Event], None],
        observer: DoorObserver | None = None,
    ) -> None:
        self._sources, self._store, self._clock = sources, store, clock
        self._wake, self._problem, self._observe, self._observer = wake, problem, observe, observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            return
        try:
            answer = await self._answer(scope, receive)
        except ClientGoneError:
            return
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the transmitter is to send it again
            _LOG.error("a signal could not be taken: %s", type(error).__name__)
            answer = Answer(UNAVAILABLE, headers={"retry-after": "10"})
        rows = {**answer.headers, "content-length": str(len(answer.body))}
        if answer.body:
            rows |= {"content-type": "application/json", "content-language": "en"}
        raw = [(name.encode(), value.encode()) for name, value in rows.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": raw})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        path, method = scope["path"], scope["method"]
        if path == HEALTH and method == "GET":
            return Answer(UNAVAILABLE if self._problem() else _OK)
        try:
            source = self._sources.get(path.removeprefix(PREFIX)) if path.startswith(PREFIX) else None
            if source is None:
                raise RefusedRequestError(NOT_FOUND, "nobody sends signals here")
            if method != "POST":
                raise RefusedRequestError(NOT_ALLOWED, "signals come by POST", {"allow": "POST"})
            return await self._taken(source, scope, receive)
        except RefusedRequestError as refused:
            self._refused(refused.why)
            # What has not been read of the request is not.
            word = _UNAUTHENTICATED if refused.status == UNAUTHORIZED else _INVALID
            return Answer(refused.status, _error(word, str(refused)), {**refused.headers, "connection": "close"})

    async def _taken(self, source: Source, scope: Scope, receive: Receive) -> Answer:
        reader = source.reader
        headers = read_headers(scope["headers"], ("authorization", "content-encoding", *reader.once))
        source.require_known(headers)
        if not source.rate.take() or source.reading >= _MOST_READ:
            raise RefusedRequestError(_TOO_MANY, "too many signals at once", {"retry-after": "5"}, why=Refusal.TOO_MANY)
        if headers.get("content-type", "").lower() != reader.media_type or "content-encoding" in headers:
            raise RefusedRequestError(UNSUPPORTED, f"the body must be `{reader.media_type}`, and not encoded")
        source.reading += 1
        try:
            body = await read_body(headers, receive, most=reader.most_bytes)
            return await asyncio.to_thread(self._kept, source, headers, body)
        finally:
            source.reading -= 1

    def _kept(self, source: Source, headers: Mapping[str, str], body: bytes) -> Answer:
        """Keep the signal of a request; return the answer."""
        try:
            self._keep(source, source.reader.read(headers, body))
        except (TokenRefusedError, ForgottenError) as error:
            self._refused(Refusal.MALFORMED if type(error) is TokenRefusedError else Refusal.CREDENTIAL)
            self._log(source, str(error))
            return Answer(BAD_REQUEST, _error(*_ERRORS.get(type(error), _OTHERWISE)))
        except PDPError as error:
            self._refused(Refusal.UNDECIDED)
            self._log(source, str(error))
            return Answer(UNAVAILABLE, headers={"retry-after": "30"})
        return Answer(_ACCEPTED)

    def _keep(self, source: Source, told: Told) -> None:
        signal = Signal(
            id=new_signal_id(),
            transmitter=source.name,
            token_id=told.token_id,
            event=told.event,
            issued_at=told.issued_at,
            received_at=self._clock.now().wall_at,
            state=State.WAITING if told.targets else State.UNMATCHED,
            targets=told.targets,
        )
        # A signal that comes again is answered as the first time, and nothing is done.
        if self._store.add(signal):
            self._observe(event_of(EventKind.SIGNAL_RECEIVED, signal, at=signal.received_at))
            self._wake()

    def _refused(self, why: Refusal) -> None:
        if self._observer is not None:
            self._observer.refused(why)

    def _log(self, source: Source, problem: str) -> None:
        now = self._clock.now().boot_at
        if now - source.logged_at >= _LOGGED_EVERY_SECONDS:
            source.logged_at = now
            _LOG.warning("a signal of `%s` is refused: %s", source.name, problem)


def _error(word: str, text: str) -> bytes:
    return json.dumps({"err": word, "description": text}).encode()
