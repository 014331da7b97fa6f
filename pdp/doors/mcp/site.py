"""One server behind the proxy over HTTP: what becomes of the requests of its clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

from pdp.client import CallTokenRequest
from pdp.doors.mcp import answers, methods, sessionless
from pdp.doors.mcp import headers as http
from pdp.doors.mcp.admission import Admission
from pdp.doors.mcp.apart import apart
from pdp.doors.mcp.conversations import IS_OVER, Background, Conversation
from pdp.doors.mcp.exchange import Exchange
from pdp.doors.mcp.load import Load, OverloadedError, Share
from pdp.doors.mcp.messages import MOST_BYTES, InvalidMessageError, Message
from pdp.doors.mcp.parties import Party, Place
from pdp.doors.mcp.replies import Reply
from pdp.doors.mcp.resources import ProtectedResource
from pdp.doors.mcp.streams import listen, send_on
from pdp.doors.mcp.upstream import Upstream
from pdp.doors.observing import refuse
from pdp.doors.session import DoorSession
from pdp.observer import DoorObserver, Refusal
from pdp.serving.web import (
    BAD_REQUEST,
    NOT_ALLOWED,
    NOT_FOUND,
    UNAVAILABLE,
    Receive,
    RefusedRequestError,
    read_body,
    require_plain_json,
    until_gone,
)

# Where clients find the only server.
PATH = "/mcp"

# Of a message of a client whose session is not known.
_MOST_UNKNOWN_BYTES = 64 * 1024

_ACCEPTED = 202
_TOO_MANY = "too many requests are open"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerBehind:
    """A server, the name by which the catalogue knows it, and the path at which clients find it.

    `passes` and `call_token` are those of `Gate`. Clients may present access tokens for `resource`.
    """

    name: str
    path: str
    upstream: Upstream
    passes: frozenset[str] = frozenset()
    call_token: CallTokenRequest | None = None
    resource: ProtectedResource | None = None


class Site:
    """Answers the requests of clients for one server. `pdp_command` and `observer` are those of `Gate`.

    The messages of clients without a session are a part of `load`.
    """

    def __init__(
        self,
        server: ServerBehind,
        *,
        admission: Admission,
        background: Background,
        load: Load,
        pdp_command: Callable[[str], str],
        observer: DoorObserver | None,
    ) -> None:
        self._observer = observer
        self._upstream = server.upstream
        self._admission = admission
        self._strangers = load.part()

        def conversation_of(session: DoorSession, load: Load, mcp_session: str) -> Conversation:
            return Conversation(
                server=server.name,
                session=session,
                upstream=server.upstream,
                load=load,
                passes=server.passes,
                pdp_command=pdp_command,
                background=background,
                mcp_session=mcp_session,
                call_token=server.call_token,
                observer=observer,
            )

        self._place = Place(server=server.name, conversation_of=conversation_of, resource=server.resource)

    async def answer(self, method: str, headers: http.Headers, receive: Receive, reply: Reply) -> None:
        """Answer one HTTP request. Raise `RefusedRequestError` when it is not answered with a message."""
        if method == "POST":
            await self._post(headers, receive, reply)
        elif method in ("GET", "DELETE"):
            await self._bare(method, headers, receive, reply)
        else:
            raise RefusedRequestError(NOT_ALLOWED)

    # Messages.

    async def _post(self, headers: http.Headers, receive: Receive, reply: Reply) -> None:
        require_plain_json(headers)
        party, missing = await self._admission.party(headers, self._place)
        load, most = (self._strangers, _MOST_UNKNOWN_BYTES) if party is None else (party.visitor.load, MOST_BYTES)
        with _counted(load), load.share() as share:
            try:
                message = await _message(headers, receive, share, most=most)
            except InvalidMessageError as error:
                refuse(self._observer, Refusal.MALFORMED)
                await reply.message(answers.error(None, answers.PARSE_ERROR, str(error)), status=BAD_REQUEST)
                return
            await self._read(party, missing, message, headers, receive, reply)

    async def _read(
        self,
        party: Party | None,
        missing: str,
        message: Message,
        headers: http.Headers,
        receive: Receive,
        reply: Reply,
    ) -> None:
        for code, problem in (
            (answers.INVALID_PARAMS, http.unstated(message, headers)),
            (answers.HEADER_MISMATCH, http.disagreement(message, headers)),
        ):
            if problem:
                refuse(self._observer, Refusal.MISMATCH)
                await reply.message(answers.error(message.id, code, problem), status=BAD_REQUEST)
                return
        if party is not None and message.method != methods.CALL and not missing:
            missing = await self._admission.lives(party)
        if party is None or missing:
            server = self._place.server
            await sessionless.answer(message, missing, reply, headers, server=server, observer=self._observer)
            return
        # A subscription does nothing for the task.
        with nullcontext() if message.method == methods.LISTEN else self._admission.using(party):
            await self._take(party, message, headers, receive, reply)

    async def _take(
        self, party: Party, message: Message, headers: http.Headers, receive: Receive, reply: Reply
    ) -> None:
        begins = message.method == methods.INITIALIZE
        modern = message.modern
        conversation = party.conversation("" if begins or modern else headers.get(http.SESSION, ""))
        if conversation is None:
            refuse(self._observer, Refusal.SESSION)
            told = answers.error(message.id, answers.INVALID_REQUEST, IS_OVER)
            await reply.message(told, status=NOT_FOUND)
            return
        if not modern:
            conversation.version = headers.get(http.VERSION, conversation.version)
        if not message.method:
            if not conversation.server_asks.close(message.id):
                raise RefusedRequestError(BAD_REQUEST, "an answer to what was not asked")
            await send_on(self._upstream, "POST", conversation, headers, reply, message.raw)
        elif message.id is None:
            await self._said(conversation, message, headers, reply)
        elif str(message.id) in conversation.open.keys() | conversation.given_up:
            refuse(self._observer, Refusal.MALFORMED)
            told = answers.error(message.id, answers.INVALID_REQUEST, "`id` is that of an open request")
            await reply.message(told)
        elif party.visitor.load.crowded:
            refuse(self._observer, Refusal.TOO_MANY)
            await reply.message(answers.refusal(message, "Too many requests are open: wait for their answers."))
        else:
            exchange = Exchange(
                party=party,
                conversation=conversation,
                upstream=self._upstream,
                request=message,
                headers=headers,
                reply=reply,
            )
            if conversation.mcp_session:
                conversation.open[str(message.id)] = exchange
            try:
                await self._while_there(exchange, message, receive, reply)
            finally:
                conversation.open.pop(str(message.id), None)
                if conversation.mcp_session and exchange.unanswered:
                    party.give_up(conversation, message.id)

    async def _while_there(self, exchange: Exchange, message: Message, receive: Receive, reply: Reply) -> None:
        """Run an exchange until its end, or until the client has gone or has taken it back."""
        await until_gone(exchange.run(), receive)
        if exchange.taken_back and not reply.ended:
            # Clients do not wait for this.
            told = answers.error(
                message.id, answers.INVALID_REQUEST, "the request was taken back, or its session is over"
            )
            await reply.message(told)

    async def _said(self, conversation: Conversation, message: Message, headers: http.Headers, reply: Reply) -> None:
        if message.method == methods.CANCELLED:
            named = message.taken_back
            found = None if named is None else conversation.open.get(str(named))
            if found is not None and not found.take_back():
                # It has not reached the server, and will not.
                await reply.nothing(_ACCEPTED)
                return
        if not conversation.gate.lets_say(message):
            await reply.nothing(_ACCEPTED)
            return
        await send_on(self._upstream, "POST", conversation, headers, reply, message.raw)

    # What has no message: the stream of a session of MCP, and its end.

    async def _bare(self, method: str, headers: http.Headers, receive: Receive, reply: Reply) -> None:
        party, missing = await self._admission.party(headers, self._place)
        if party is None or missing or (missing := await self._admission.lives(party)):
            raise sessionless.refused(missing)
        mcp_session = headers.get(http.SESSION, "")
        if not mcp_session or headers.get(http.VERSION, "") >= http.MODERN:
            raise RefusedRequestError(NOT_ALLOWED)
        conversation = party.conversation(mcp_session)
        if conversation is None:
            raise RefusedRequestError(NOT_FOUND, IS_OVER)
        with _counted(party.visitor.load):
            if method == "GET":
                await self._listen(party, conversation, headers, receive, reply)
                return
            party.end(mcp_session)
            await send_on(self._upstream, method, conversation, headers, reply)

    async def _listen(
        self, party: Party, conversation: Conversation, headers: http.Headers, receive: Receive, reply: Reply
    ) -> None:
        if party.visitor.load.crowded:
            raise RefusedRequestError(UNAVAILABLE, _TOO_MANY, why=Refusal.TOO_MANY)
        await until_gone(listen(self._upstream, party, conversation, headers, reply), receive)
        if reply.begun and not reply.ended:
            await reply.end()


@contextmanager
def _counted(load: Load) -> Iterator[None]:
    """Count an open request. Raise `RefusedRequestError` when there are too many."""
    with ExitStack() as counted:
        try:
            counted.enter_context(load.request())
        except OverloadedError:
            raise RefusedRequestError(UNAVAILABLE, _TOO_MANY, why=Refusal.TOO_MANY) from None
        yield


async def _message(headers: http.Headers, receive: Receive, share: Share, *, most: int) -> Message:
    """Read the message of a request. Raise `RefusedRequestError` and `InvalidMessageError`."""
    try:
        body = await read_body(headers, receive, most=most, reading=share.reading)
        message = await apart(Message.read, body)
        share.whole(message)
    except OverloadedError:
        text = "too much is under way at this proxy: try again later"
        raise RefusedRequestError(UNAVAILABLE, text, why=Refusal.TOO_MANY) from None
    return message
