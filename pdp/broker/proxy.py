"""The broker over HTTP: requests that pass through it to an upstream, and get a secret on their way.

`/NAME/rest` is for the upstream of the tool server `NAME`, at `/rest`. An answer streams: of it only an end is held
back that may begin the secret.
"""

from __future__ import annotations

import asyncio
import logging
import re
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from pdp.broker.headers import HeadersError, of_request
from pdp.broker.observing import Observed
from pdp.broker.replies import ClientGoneError, Reply
from pdp.broker.sending import UpstreamFailedError
from pdp.broker.shares import OfTenant, Shares
from pdp.broker.templates import METHODS, UpstreamRequest
from pdp.broker.underway import Running
from pdp.broker.upstream import ForeignTargetError, required_target
from pdp.broker.using import Asked, Broker
from pdp.broker.words import Mode
from pdp.calltokens.asgi import Receive, Scope, Send, presenter_of
from pdp.calltokens.claims import HEADER, Presenter
from pdp.calltokens.refusals import CallTokenRefusedError, Reason
from pdp.calltokens.requests import mcp_call, message_in
from pdp.errors import NotFoundError, OverloadedError, PDPError, UnavailableError
from pdp.observer import DoorObserver, Refusal

_LOG = logging.getLogger("pdp.broker")

# Names the origin for which a request was meant. It is compared with that of the connection.
ORIGIN: Final = "pdp-upstream"
_MOST_BODY_BYTES: Final = 4 * 1024 * 1024
_BODY_SECONDS: Final = 30.0
# Each open answer has a thread.
MOST_OPEN: Final = 128
# What calls no tool of a server of MCP, and does nothing but begin, keep and end a conversation, and list.
_GREETINGS: Final = frozenset(
    {"initialize", "notifications/initialized", "notifications/cancelled", "ping", "tools/list"}
)
# The stream of a conversation, and its end.
_BARE: Final = frozenset({"GET", "DELETE"})
_PATH = re.compile(r"/(?P<server>[^/?]+)(?P<rest>/.*)?")
_BAD, _FORBIDDEN, _NOT_FOUND, _NOT_ALLOWED, _LATE, _TOO_LARGE = 400, 403, 404, 405, 408, 413
_FAILED, _UPSTREAM_FAILED, _UNAVAILABLE = 500, 502, 503


class _RefusedError(Exception):
    """A request is answered with a status and a text. `reason` is that of a call token, or empty."""

    def __init__(self, status: int, text: str, reason: str = "") -> None:
        super().__init__(text)
        self.status, self.reason = status, reason


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    server: str
    target: str
    headers: list[tuple[str, str]] = field(repr=False)
    body: bytes = field(repr=False)

    def header(self, name: str) -> str:
        """Return the value of a header. Raise when it is there twice."""
        found = [value for one, value in self.headers if one.lower() == name]
        if len(found) > 1:
            raise _RefusedError(_BAD, f"the header `{name}` is there twice")
        return found[0] if found else ""


class ProxyFace:
    """Passes requests on, as an ASGI application. `presenter` says who presents a call token."""

    def __init__(
        self,
        broker: Broker,
        *,
        observer: DoorObserver | None = None,
        presenter: Callable[[Scope], Presenter | None] = presenter_of,
        most_open: int = MOST_OPEN,
    ) -> None:
        self._broker = broker
        self._observer = observer
        self._presenter = presenter
        self._open = Shares(most_open)
        self._threads = ThreadPoolExecutor(most_open, thread_name_prefix="pdp-broker-proxy")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        reply = Reply(send)
        try:
            await self._answer(scope, receive, reply)
        except _RefusedError as refused:
            await reply.problem(refused.status, str(refused), refused.reason)
        except ClientGoneError:
            return
        except Exception as error:  # noqa: BLE001 - fails closed: nothing more is sent on, or shown
            # Without its text, which can hold what was sent.
            _LOG.error("a request could not be handled: %s", type(error).__name__)
            await reply.problem(_FAILED, "the broker failed; its log says more")

    def close(self) -> None:
        """End the threads, once what they do is over."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _answer(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        presenter = self._presenter(scope)
        try:
            with self._open.taken(presenter) as of_tenant:
                request = await self._read(scope, receive)
                asked, greets = self._asked(request, presenter)
                await self._pass(asked, greets, receive, reply, request, of_tenant)
        except OverloadedError as error:
            self._refused(Refusal.TOO_MANY)
            raise _RefusedError(_UNAVAILABLE, str(error)) from None

    async def _pass(
        self,
        asked: Asked,
        greets: bool,  # noqa: FBT001 - whether, and what
        receive: Receive,
        reply: Reply,
        request: _Request,
        of_tenant: OfTenant,
    ) -> None:
        loop = asyncio.get_running_loop()
        running = Running()
        watching = asyncio.ensure_future(running.until_gone(receive))
        trace = {name: request.header(name) for name in ("traceparent", "tracestate")}

        def work() -> None:
            with Observed(self._observer, asked, trace, of_tenant) as seen:
                sent, take = seen.placed(asked), partial(reply.stream, loop)
                if greets:
                    self._broker.greet(sent, take, of_tenant=of_tenant, opened=running.opened)
                else:
                    self._broker.use(sent, take, verified=seen.verified, opened=running.opened)

        try:
            await loop.run_in_executor(self._threads, work)
        except CallTokenRefusedError as error:
            status = _UNAVAILABLE if error.reason is Reason.UNAVAILABLE else _FORBIDDEN
            raise _RefusedError(status, f"call token refused: {error}", error.reason.value) from None
        except UpstreamFailedError as error:
            text = f"the upstream {error}; whether it did what was asked is unknown"
            raise _RefusedError(_UPSTREAM_FAILED, text) from None
        except PDPError as error:
            raise _RefusedError(_status_of(error), str(error)) from None
        finally:
            watching.cancel()

    async def _read(self, scope: Scope, receive: Receive) -> _Request:
        method = scope["method"]
        if method not in METHODS:
            self._refused(Refusal.METHOD)
            raise _RefusedError(_NOT_ALLOWED, f"`{method}` is not passed on" if method.isalpha() else "no method")
        query = scope["query_string"].decode("latin-1")
        found = _PATH.fullmatch(scope["raw_path"].decode("latin-1"))
        if found is None or found["server"] not in self._broker.rules:
            self._refused(Refusal.PLACE)
            raise _RefusedError(_NOT_FOUND, "the path does not begin with the name of a tool server")
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        target = f"{found['rest'] or '/'}{'?' if query else ''}{query}"
        return _Request(method, found["server"], target, headers, await self._body(receive))

    def _asked(self, request: _Request, presenter: Presenter | None) -> tuple[Asked, bool]:
        """Return what is asked, and whether it calls no tool of a server of MCP."""
        rules = self._broker.rules[request.server].proxy
        try:
            target = required_target(request.target)
            if rules is None or not rules.lets_pass(request.method, target):
                self._refused(Refusal.PLACE)
                raise _RefusedError(_FORBIDDEN, "the rules let no such method and path pass")
            # The header of the secret is not known yet; it is dropped where it is.
            headers = of_request(request.headers, rules.request_headers, "authorization")
        except (ForeignTargetError, HeadersError) as error:
            self._refused(Refusal.MALFORMED)
            raise _RefusedError(_BAD, f"the request cannot be passed on: {error}") from None
        body = request.body if request.body or request.method in ("POST", "PUT", "PATCH") else None
        asked = Asked(
            server=request.server,
            token=request.header(HEADER),
            presenter=presenter,
            request=UpstreamRequest(method=request.method, target=target, headers=headers, body=body),
            mode=Mode.PROXY,
            origin=request.header(ORIGIN),
        )
        return _of_mcp(asked) if rules.mcp else (asked, False)

    async def _body(self, receive: Receive) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                while True:
                    part = await receive()
                    if part["type"] != "http.request":
                        raise ClientGoneError
                    body += part.get("body", b"")
                    if len(body) > _MOST_BODY_BYTES:
                        self._refused(Refusal.TOO_LARGE)
                        raise _RefusedError(_TOO_LARGE, f"the body has more than {_MOST_BODY_BYTES} bytes")
                    if not part.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            self._refused(Refusal.TOO_SLOW)
            raise _RefusedError(_LATE, f"the body has not come within {_BODY_SECONDS:g} seconds") from None

    def _refused(self, why: Refusal) -> None:
        if self._observer is not None:
            self._observer.refused(why)


def _of_mcp(asked: Asked) -> tuple[Asked, bool]:
    """Return what a message of MCP asks, and whether it calls no tool."""
    method, body = asked.request.method, asked.request.body or b""
    if method == "POST":
        # As it is read here. Named as UTF-7, the same bytes would be another message.
        headers = {**asked.request.headers, "content-type": "application/json"}
        asked = replace(asked, request=replace(asked.request, headers=headers))
    try:
        call = mcp_call(method, asked.request.target, body)
        said = str(message_in(body).get("method")) if method == "POST" else ""
        _require_agreed(asked, said, call.tool if call else "")
        if call is not None:
            return replace(asked, tool=call.tool, arguments=call.arguments), False
        greets = said in _GREETINGS if method == "POST" else method in _BARE and not body
    except CallTokenRefusedError as error:
        raise _RefusedError(_BAD, f"the message is {error}") from None
    if not greets:
        raise _RefusedError(_FORBIDDEN, "neither a call of a tool, nor what begins, ends or lists: it is not passed on")
    return asked, True


def _require_agreed(asked: Asked, method: str, name: str) -> None:
    """Raise when headers name another method or tool than the message does: somebody could go by them."""
    headers = asked.request.headers
    encoded = f"=?base64?{b64encode(name.encode(errors='replace')).decode()}?="
    if headers.get("mcp-method", method) != method or headers.get("mcp-name", name) not in (name, encoded):
        raise _RefusedError(_BAD, "the headers name another method or tool than the message")


def _status_of(error: PDPError) -> int:
    if isinstance(error, UnavailableError | OverloadedError):
        return _UNAVAILABLE
    return _NOT_FOUND if isinstance(error, NotFoundError) else _FORBIDDEN
