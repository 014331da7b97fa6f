"""One request of a client over HTTP: whether it is sent on, and what the client gets of the server's answer."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import aclosing, suppress

from pdp.calltokens.claims import HEADER
from pdp.client import Answer
from pdp.doors import refusals
from pdp.doors.feeds import heard
from pdp.doors.mcp import answers, conversations, methods
from pdp.doors.mcp import headers as http
from pdp.doors.mcp.apart import apart
from pdp.doors.mcp.conversations import Conversation
from pdp.doors.mcp.events import EventReader
from pdp.doors.mcp.gate import AllowedCall
from pdp.doors.mcp.messages import InvalidMessageError, Message, error_in
from pdp.doors.mcp.parties import Party
from pdp.doors.mcp.questions import RefusedError
from pdp.doors.mcp.replies import Reply
from pdp.doors.mcp.streams import BAD_GATEWAY, SessionOverError, ended, passing, watch, while_it_lives
from pdp.doors.mcp.tools import wants_tools_changed
from pdp.doors.mcp.upstream import Upstream, UpstreamAnswer, UpstreamError
from pdp.observer import Refusal
from pdp.serving.web import BAD_REQUEST, NOT_FOUND, ClientGoneError, is_json

_LOG = logging.getLogger(__name__)

_OK = 200
_ACKNOWLEDGED_SECONDS = 2.0
# What a client of MCP acts on: other methods or revisions, and a session of MCP that is over. The credentials that the
# server misses are the proxy's.
_HANDED_ON = frozenset({400, 404, 405, 406, 409, 413, 415, 429})
_STRANGE = "The server behind this proxy answers in a form that is not handed on."
_NO_ANSWER = "The server behind this proxy has ended its answer too early."


class Exchange:
    """A request of a client, from its POST to the end of the answer. Run it once, as a task of its own."""

    def __init__(
        self,
        *,
        party: Party,
        conversation: Conversation,
        upstream: Upstream,
        request: Message,
        headers: http.Headers,
        reply: Reply,
    ) -> None:
        self._party = party
        self._conversation = conversation
        self._gate = conversation.gate
        self._upstream = upstream
        self._load = party.visitor.load
        self._request = request
        self._headers = headers
        self._reply = reply
        self._modern = request.modern
        self._allowed: AllowedCall | None = None
        # By which the call was sent.
        self._answer: Answer | None = None
        self._sent = False
        self._ended = False
        self._task: asyncio.Task[None] | None = None
        # Of a subscription: whether the server has said something.
        self._acknowledged = asyncio.Event()
        self.taken_back = False

    @property
    def unanswered(self) -> bool:
        """Say whether the server may still answer a request for which nobody waits any more."""
        return self._sent and not self._ended

    def take_back(self) -> bool:
        """Take the request back. Say whether it had reached the server."""
        self.taken_back = True
        if self._task is not None:
            self._task.cancel()
        return self._sent

    async def run(self) -> None:
        """Answer the request. When it is cancelled, nothing is sent on any more, and an allowed call is reported."""
        self._task = asyncio.current_task()
        try:
            with self._party.session.hearing() as heard_of:
                await self._run(heard_of)
        except UpstreamError as error:
            await self._fail(str(error))
        except SessionOverError as over:
            await self._stop(str(over))
        finally:
            if self._conversation.forgotten:
                self._party.leave(self._conversation)
            if self._allowed is not None:
                await self._conversation.background.to_the_end(self._gate.lost(self._allowed))

    async def _run(self, heard_of: asyncio.Event) -> None:
        request = self._request
        if request.method == methods.CALL or request.method in methods.ASKED:
            try:
                self._allowed = await self._gate.ask(request, self._headers)
            except RefusedError as refused:
                await self._refuse(refused)
                return
        elif not self._gate.lets_pass(request.method):
            self._gate.refused(Refusal.METHOD)
            told = answers.error(request.id, answers.METHOD_NOT_FOUND, f"`{request.method}` is not let pass")
            await self._reply.message(told, status=NOT_FOUND if self._modern else _OK)
            return
        sent = self._conversation.headers(self._headers)
        if self._allowed is not None and self._allowed.under_way.traced:
            sent = http.in_trace(sent, self._allowed.under_way.trace)
        if self._modern and request.method == methods.CALL:
            wanted = http.repeated(request, self._gate.definitions.repeating(request.params["name"]))
            if problem := http.misrepeated(wanted, self._headers):
                told = answers.error(request.id, answers.HEADER_MISMATCH, problem)
                await self._reply.message(told, status=BAD_REQUEST)
                return
            sent |= {name: value for name, value in wanted.items() if value is not None}
        if self._allowed is not None and self._allowed.token:
            sent[HEADER] = self._allowed.token
        self._sent = True
        if request.method == methods.LISTEN:
            # It tells of the end of its session.
            await self._send_on(request, sent)
            return
        if self._allowed is not None:
            self._answer, request = self._allowed.call.answer, self._allowed.request
        await while_it_lives(self._party, heard_of, self._send_on(request, sent))

    async def _refuse(self, refused: RefusedError) -> None:
        if self._conversation.forgotten:
            told = answers.error(self._request.id, answers.INVALID_REQUEST, conversations.IS_OVER)
            await self._reply.message(told, status=NOT_FOUND)
        else:
            await self._reply.message(refused.answer)

    async def _send_on(self, request: Message, headers: http.Headers) -> None:
        async with self._upstream.exchange("POST", headers, request.raw, load=self._load) as answer:
            if answer.status == _OK and http.is_stream(answer.headers):
                await self._stream(answer)
            elif answer.status == _OK and is_json(answer.headers):
                await self._answered(await _read(await answer.body()), answer)
            else:
                await self._refused(answer)

    async def _answered(self, said: Message | None, answer: UpstreamAnswer | None = None, status: int = _OK) -> None:
        """Hand on the server's answer to this request."""
        if said is None or said.method or said.id != self._request.id:
            raise UpstreamError(_STRANGE)
        self._ended = True
        if answer is not None:
            answer.hold(said)
        allowed, self._allowed = self._allowed, None
        # What came of a call is reported, even if the client leaves now.
        text = await self._conversation.background.to_the_end(self._gate.answered(self._request, allowed, said))
        headers = http.to_client(answer.headers) if answer is not None else {}
        if answer is not None and self._request.method == methods.INITIALIZE:
            headers |= self._begun(answer)
        await self._reply.message(text, status=status, headers=headers)

    async def _refused(self, answer: UpstreamAnswer) -> None:
        """Hand on that the server has refused the request, if that is what a client can act on."""
        if answer.status not in _HANDED_ON:
            raise UpstreamError(f"The server behind this proxy answers with the status {answer.status}.")
        error = await apart(error_in, await answer.body()) if is_json(answer.headers) else None
        self._conversation.look(answer.status, error)
        told = answers.error(self._request.id, answers.INTERNAL_ERROR, f"The server answers {answer.status}.")
        if error is not None:
            told = f'{{"jsonrpc":"2.0","id":{json.dumps(self._request.id)},"error":{error}}}'
        await self._answered(await _read(told.encode("utf-8")), answer, answer.status)

    def _begun(self, answer: UpstreamAnswer) -> dict[str, str]:
        """Take up the session of MCP that the server has begun, and return the header that tells the client."""
        mcp_session = answer.headers.get(http.SESSION, "")
        if not mcp_session:
            return {}
        if not http.is_session(mcp_session):
            raise UpstreamError(_STRANGE)
        self._party.begin(mcp_session)
        return {http.SESSION: mcp_session}

    # Streams.

    async def _stream(self, answer: UpstreamAnswer) -> None:
        headers = http.to_client(answer.headers)
        if self._request.method == methods.INITIALIZE:
            headers |= self._begun(answer)
        await self._reply.stream(headers)
        # All else ends with its session anyway.
        watching = asyncio.ensure_future(self._watch()) if self._request.method == methods.LISTEN else None
        try:
            await self._to_the_answer(answer)
        finally:
            await ended(watching)

    async def _to_the_answer(self, answer: UpstreamAnswer) -> None:
        """Hand on the events of a stream, and of the rest of it, until the answer is among them."""
        reader = EventReader()
        if await self._events(answer, reader):
            return
        # A server of the era with a handshake can close a stream before its answer, to be asked for the rest.
        while self._conversation.mcp_session and reader.last_id:
            await asyncio.sleep(reader.pause)
            again = {**self._conversation.headers(self._headers), http.LAST_EVENT: reader.last_id}
            async with self._upstream.exchange("GET", again, load=self._load) as rest:
                if rest.status != _OK or not http.is_stream(rest.headers):
                    break
                reader = EventReader(reader.last_id, reader.pause)
                if await self._events(rest, reader):
                    return
        raise UpstreamError(_NO_ANSWER)

    async def _events(self, answer: UpstreamAnswer, reader: EventReader) -> bool:
        """Hand on the events of a stream. Say whether the answer was among them."""
        async with aclosing(answer.messages(reader)) as messages:
            async for message in messages:
                if message is None:
                    await self._reply.keep_alive()
                elif message.id == self._request.id and not message.method:
                    await self._answered(message)
                    return True
                else:
                    await passing(message, self._conversation, self._reply, request=self._request)
                    self._acknowledged.set()
        return False

    async def _watch(self) -> None:
        # A client must know first that its subscription has begun. A server that does not say so holds up nothing.
        await heard(self._acknowledged, _ACKNOWLEDGED_SECONDS)
        changed = answers.tools_changed(self._request.id) if wants_tools_changed(self._request) else ""
        with suppress(ClientGoneError):
            await watch(self._party, self._reply, changed)
        self.take_back()

    async def _stop(self, why: str) -> None:
        if self._reply.ended:
            return
        told, decision = f"The request was stopped: {why}.", None
        if self._answer is not None:
            told, decision = refusals.stopped(self._answer, why), answers.decision_of(self._answer)
        await self._reply.message(answers.refusal(self._request, told, decision))

    async def _fail(self, why: str) -> None:
        if not self._reply.ended:
            told = answers.error(self._request.id, answers.INTERNAL_ERROR, why)
            await self._reply.message(told, status=BAD_GATEWAY)


async def _read(body: bytes) -> Message | None:
    try:
        return await apart(Message.read, body)
    except InvalidMessageError as error:
        _LOG.warning("a message of the server is dropped: %s", error)
        return None
