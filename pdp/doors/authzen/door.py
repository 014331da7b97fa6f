"""The door of AuthZEN as an ASGI application: what becomes of each HTTP request."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from typing import Any, Final, TypeAlias

from pdp.client import AsyncClient
from pdp.doors.authzen.access import ACCEPTED, CREATED, PENDING, AccessProblemError, AccessRequests
from pdp.doors.authzen.evaluations import Asked, Evaluations
from pdp.doors.authzen.handles import Handles
from pdp.doors.authzen.mapping import Mapped
from pdp.doors.authzen.questions import MOST_BYTES, InvalidQuestionError, read_json
from pdp.doors.authzen.replies import MOST_ID_CHARACTERS, REQUEST_ID, Reply, failed, send_reply
from pdp.doors.authzen.verdicts import INTERNAL, UNAUTHORIZED, UNDECIDED, NoDecisionError
from pdp.doors.observing import refuse
from pdp.observer import DoorObserver, Refusal
from pdp.serving.web import (
    BAD_REQUEST,
    HANDLE,
    NOT_ALLOWED,
    NOT_FOUND,
    UNSUPPORTED,
    ClientGoneError,
    Doorstep,
    Receive,
    RefusedRequestError,
    Scope,
    Send,
    read_body,
    read_headers,
    require_plain_json,
    until_gone,
)

_LOG = logging.getLogger(__name__)

DISCOVERY: Final = "/.well-known/authzen-configuration"
EVALUATION, EVALUATIONS, REQUESTS, OUTCOME = (
    f"/access/v1/{name}" for name in ("evaluation", "evaluations", "requests", "outcome")
)
# Requests whose bodies are whole. A caller has at most twice as many as are left for all others: two thirds, alone.
# Callers about whom the server has not answered yet count as one for each address: anyone can send any token.
MOST_OPEN: Final = 96
_MOST_KNOWN: Final = 1024
_SECONDS: Final = 10.0
# For decisions. The rest is for the answer: a call whose request is given up would be taken for one that is taken back.
_OF_THE_TIME: Final = 0.9
_POLL_SECONDS: Final = 5

_NO_CONTENT, _BUSY = 204, 503
_BEARER = re.compile(r"Bearer (?P<token>[\x21-\x7e]{1,8192})", re.IGNORECASE)
_ONCE: Final = frozenset({"authorization", "content-encoding", "traceparent", REQUEST_ID})

Headers: TypeAlias = Mapping[str, str]


class CallerToken:
    """The bearer token of the caller whose request is being answered: `token=` of the client that asks for it."""

    def __init__(self) -> None:
        self._current: ContextVar[str] = ContextVar("caller_token", default="")

    def __call__(self) -> str:
        """Return the token of this request."""
        return self._current.get()

    def take(self, headers: Headers) -> None:
        """Take the token of a request, which a task of its own answers. Raise `NoDecisionError` without one."""
        match = _BEARER.fullmatch(headers.get("authorization", ""))
        if match is None:
            told = "the header `authorization` must be `Bearer TOKEN`"
            raise NoDecisionError(UNAUTHORIZED, told, why=Refusal.CREDENTIAL)
        self._current.set(match["token"])


class AuthZENDoor:
    """AuthZEN before one server. `base` is the URL by which callers know it, without a path.

    `caller` takes the token of each caller, and `client` presents it; None for a client that presents its own.
    A request is answered within `seconds`. `observer` is told of calls, and of other requests that are refused.
    """

    def __init__(
        self,
        *,
        client: AsyncClient,
        base: str,
        doorstep: Doorstep,
        mapped: Mapped,
        caller: CallerToken | None,
        seconds: float = _SECONDS,
        observer: DoorObserver | None = None,
    ) -> None:
        self._observer = observer
        self._client = client
        self._base = base
        self._doorstep = doorstep
        self._caller = caller
        self._seconds = seconds
        self._evaluations = Evaluations(client=client, mapped=mapped, endpoint=base + REQUESTS, observer=observer)
        self._access = AccessRequests(mapped=mapped, endpoint=base + REQUESTS)
        self._open: Counter[str] = Counter()
        # Digests of headers `authorization` with which the server has answered; those that were used last are kept.
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._posts: Mapping[str, Callable[[Asked], Coroutine[Any, Any, Reply]]] = {
            EVALUATION: self._evaluation,
            EVALUATIONS: self._several,
            REQUESTS: self._submission,
            OUTCOME: self._outcome,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            return
        try:
            reply = await self._answer(scope, receive)
        except ClientGoneError:
            return
        except Exception as error:  # noqa: BLE001 - fails closed: whatever went wrong, nothing is allowed
            # Without its text, which can hold arguments.
            _LOG.error("a request could not be answered: %s", type(error).__name__)
            self._refused(Refusal.OTHER)
            reply = failed(INTERNAL, UNDECIDED)
        await send_reply(reply, scope, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Reply:
        try:
            headers = read_headers(scope["headers"], _ONCE)
            self._doorstep.check(headers)
            # As it was sent: by an escape, a path would not be what a proxy before this door has looked at.
            return await self._routed(scope, scope["raw_path"].decode("latin-1"), headers, receive)
        except InvalidQuestionError as error:
            self._refused(Refusal.MALFORMED)
            return failed(BAD_REQUEST, str(error))
        except NoDecisionError as error:
            if error.why is not None:
                self._refused(error.why)
            return self._undecided(error)
        except AccessProblemError as error:
            self._refused(Refusal.OTHER)
            body = {"type": error.type, "title": str(error), "status": error.status}
            return Reply(status=error.status, body=body, kind="application/problem+json")
        except RefusedRequestError as refused:
            self._refused(refused.why)
            # AuthZEN knows no other status for a body of another kind. What has not been read of the request is not.
            status = BAD_REQUEST if refused.status == UNSUPPORTED else refused.status
            return failed(status, str(refused), connection="close")

    def _undecided(self, error: NoDecisionError) -> Reply:
        if error.status != UNAUTHORIZED:
            return failed(error.status, str(error))
        if self._caller is None:
            # It is the door that the server does not know.
            return failed(INTERNAL, UNDECIDED)
        return failed(UNAUTHORIZED, str(error), www_authenticate="Bearer")

    async def _routed(self, scope: Scope, path: str, headers: Headers, receive: Receive) -> Reply:
        begin, _, task = path.partition(f"{REQUESTS}/")
        is_task = not begin and bool(task)
        if path not in (DISCOVERY, *self._posts) and not is_task:
            raise RefusedRequestError(NOT_FOUND, "there is no such endpoint; search is not offered")
        expected = "POST" if path in self._posts else "GET"
        if scope["method"] != expected:
            self._refused(Refusal.METHOD)
            return failed(NOT_ALLOWED, f"this endpoint takes {expected}", allow=expected, connection="close")
        if path == DISCOVERY:
            return Reply(body=self._discovery())
        if len(headers.get(REQUEST_ID, "")) > MOST_ID_CHARACTERS:
            raise InvalidQuestionError(f"the header `{REQUEST_ID}` has more than {MOST_ID_CHARACTERS} characters")
        if self._caller is not None:
            self._caller.take(headers)
        handles = Handles.read(headers.get(HANDLE, ""))
        if is_task:
            return await self._bounded(lambda: self._task(task, handles), self._part_of(scope, headers), receive)
        require_plain_json(headers)
        asked = Asked(
            body=read_json(await read_body(headers, receive, most=MOST_BYTES)),
            handles=handles,
            headers=headers,
            until=asyncio.get_running_loop().time() + self._seconds * _OF_THE_TIME,
            accepted=lambda: self._know(headers),
        )
        return await self._bounded(lambda: self._posts[path](asked), self._part_of(scope, headers), receive)

    def _part_of(self, scope: Scope, headers: Headers) -> str:
        """Return whose part of what is open a request belongs to: that of its caller, or of its address."""
        if self._caller is not None and _digest(headers) in self._known:
            return headers["authorization"]
        return scope["client"][0] if scope.get("client") else ""

    def _know(self, headers: Headers) -> None:
        """Note that the server has answered a caller."""
        self._known[_digest(headers)] = None
        self._known.move_to_end(_digest(headers))
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)

    async def _bounded(self, work: Callable[[], Coroutine[Any, Any, Reply]], caller: str, receive: Receive) -> Reply:
        """Do work while the client is there, for so long at most, and beside so much other work at most."""
        if self._open[caller] >= 2 * (MOST_OPEN - self._open.total()):
            self._refused(Refusal.TOO_MANY)
            return failed(_BUSY, "too many requests are open", retry_after="1")
        self._open[caller] += 1
        try:
            async with asyncio.timeout(self._seconds):
                reply = await until_gone(work(), receive)
        except TimeoutError:
            raise NoDecisionError from None
        finally:
            self._open -= Counter({caller: 1})
        if reply is None:
            raise ClientGoneError
        return reply

    def _refused(self, why: Refusal) -> None:
        refuse(self._observer, why)

    async def _evaluation(self, asked: Asked) -> Reply:
        return Reply(body=await self._evaluations.one(asked))

    async def _several(self, asked: Asked) -> Reply:
        return Reply(body=await self._evaluations.several(asked))

    async def _outcome(self, asked: Asked) -> Reply:
        await self._evaluations.report(asked)
        return Reply(status=_NO_CONTENT)

    async def _submission(self, asked: Asked) -> Reply:
        sent = await self._access.submit(asked.body, asked.handles, self._client)
        task = sent["task"]
        status = ACCEPTED if task["status"] == PENDING else CREATED
        return Reply(status=status, body=sent, headers={"location": task["status_endpoint"]})

    async def _task(self, number: str, handles: Handles) -> Reply:
        sent = await self._access.status(number, handles, self._client)
        waits = sent["task"]["status"] == PENDING
        return Reply(body=sent, headers={"retry-after": str(_POLL_SECONDS)} if waits else {})

    def _discovery(self) -> Mapping[str, Any]:
        return {
            "policy_decision_point": self._base,
            "access_evaluation_endpoint": self._base + EVALUATION,
            "access_evaluations_endpoint": self._base + EVALUATIONS,
            "access_request_endpoint": self._base + REQUESTS,
            "capabilities": ["urn:openid:authzen:capability:access-request"],
        }


def _digest(headers: Headers) -> bytes:
    return hashlib.sha256(headers.get("authorization", "").encode("latin-1")).digest()
