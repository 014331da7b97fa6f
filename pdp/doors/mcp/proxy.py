"""The proxy between one client and one server, without a transport: what becomes of each message."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import Any

from pdp.client import CallTokenRequest, FrozenError, PDPClientError
from pdp.doors import refusals
from pdp.doors.feeds import heard
from pdp.doors.mcp import answers, ending, methods
from pdp.doors.mcp.apart import apart
from pdp.doors.mcp.calltokens import with_call_token
from pdp.doors.mcp.credentials import Credentials
from pdp.doors.mcp.ending import Ending
from pdp.doors.mcp.gate import Gate
from pdp.doors.mcp.lines import TooLong, ends_of
from pdp.doors.mcp.messages import InvalidMessageError, Message, MessageId, refused_id
from pdp.doors.mcp.openrequest import OpenRequest
from pdp.doors.mcp.questions import RefusedError
from pdp.doors.mcp.serverasks import ServerAsks
from pdp.doors.mcp.tools import acknowledging, wants_tools_changed
from pdp.doors.session import DoorSession
from pdp.observer import DoorObserver, Refusal

_LOG = logging.getLogger(__name__)

# Requests of the client that have no answer yet, and subscriptions among them.
MOST_OPEN = 256
# Cancelled requests that the server may still answer. Servers need not, so some are kept until the end.
MOST_GIVEN_UP = 16_384
_LIST_SECONDS = 30.0
# How often the proxy looks for other tools while nothing is said to have changed: that a session expires is no change;
# and how long it waits after a change, which another machine of the PDP may not know yet, and after a look that failed,
# because the change that it heard of may be the last one.
_LOOK_SECONDS, _AGAIN_SECONDS = 15.0, 2.0
# How long the proxy waits for what is left to do when it closes.
_END_SECONDS = 1.0

_SHOWN = 64
_UNHANDLED = "this proxy could not handle the message"


class Proxy:
    """Passes messages between a client and a server, and asks the PDP about those that a session must allow.

    `observer` is told of calls, and of messages of the client that are refused. `call_token` is that of `Gate`.
    `to_client` and `to_server` send a message. Feed it with `from_client` and `from_server`, line by line.
    """

    def __init__(
        self,
        *,
        server: str,
        session: DoorSession,
        to_client: Callable[[bytes | str], Awaitable[None]],
        to_server: Callable[[bytes | str], Awaitable[None]],
        pdp_command: Callable[[str], str],
        passes: frozenset[str] = frozenset(),
        call_token: CallTokenRequest | None = None,
        observer: DoorObserver | None = None,
    ) -> None:
        self.gate = Gate(
            server=server,
            session=session,
            ask_server=self._ask_server,
            pdp_command=pdp_command,
            passes=passes,
            call_token=call_token,
            reveals=Credentials(call_tokens=call_token is not None).shown_by,
            observer=observer,
        )
        self._to_client = to_client
        self._to_server = to_server
        self._open: dict[MessageId, OpenRequest] = {}
        self._given_up: set[MessageId] = set()
        self._own: dict[str, asyncio.Future[Message]] = {}
        self._server_asks = ServerAsks()
        self._ending = Ending()
        self._tasks: set[asyncio.Task[None]] = set()
        # Has the proxy look at once how the session is.
        self._look = asyncio.Event()
        self._telling: asyncio.Task[None] | None = None
        self._initialized = False

    # From the client.

    async def from_client(self, line: bytes | TooLong) -> None:
        """Take one line of the client."""
        if isinstance(line, bytes) and not line.strip():
            return
        message = None
        try:
            if isinstance(line, TooLong):
                raise InvalidMessageError("the message is too large")
            message = await apart(Message.read_line, line)
            await self._client_sent(message)
        except InvalidMessageError as error:
            self.gate.refused(Refusal.TOO_LARGE if isinstance(line, TooLong) else Refusal.MALFORMED)
            number = await _refused_id(line, request=True)
            await self._to_client(answers.error(number, answers.PARSE_ERROR, str(error)))
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 - fails closed: what could not be handled has not reached the server
            _LOG.error("a message of the client could not be handled: %s", type(error).__name__)
            await self._to_client(answers.error(message.id if message else None, answers.INTERNAL_ERROR, _UNHANDLED))

    async def _client_sent(self, message: Message) -> None:
        if not message.method:
            await self._client_answered(message)
        elif message.id is None:
            await self._client_said(message)
        else:
            await self._client_asked(message)

    async def _client_answered(self, message: Message) -> None:
        if self._server_asks.close(message.id):
            await self._to_server(message.raw)

    async def _client_said(self, message: Message) -> None:
        if not self.gate.lets_say(message):
            return
        if message.method == methods.CANCELLED and (found := self._open_by(message.taken_back)) is not None:
            if found.asking is not None:
                # It has not reached the server, and will not.
                self._closed(found.request.id)
                found.asking.cancel()
                return
            if len(self._given_up) >= MOST_GIVEN_UP:
                # MCP lets a request that is cancelled go on, and be answered.
                return
            self._give_up(found)
            if found.allowed is not None:
                self._start(self.gate.lost(found.allowed))
        await self._to_server(message.raw)
        if message.method == methods.INITIALIZED:
            self._initialized = True

    async def _client_asked(self, request: Message) -> None:
        if request.id is None:
            return
        if request.id in self._open or request.id in self._given_up:
            self.gate.refused(Refusal.MALFORMED)
            await self._to_client(answers.error(request.id, answers.INVALID_REQUEST, "`id` is that of an open request"))
        elif max(len(self._open), len(self._tasks)) >= MOST_OPEN:
            self.gate.refused(Refusal.TOO_MANY)
            await self._to_client(answers.refusal(request, "Too many requests are open: wait for their answers."))
        elif request.method == methods.CALL or request.method in methods.ASKED:
            found = self._open[request.id] = OpenRequest(request=request)
            found.asking = self._start(self._ask(found))
        elif not self.gate.lets_pass(request.method):
            self.gate.refused(Refusal.METHOD)
            unknown = f"`{request.method[:_SHOWN]}` is not let pass"
            await self._to_client(answers.error(request.id, answers.METHOD_NOT_FOUND, unknown))
        elif self._ending.closes(request.method):
            self.gate.refused(Refusal.SESSION)
            await self._to_client(ending.in_place_of(request))
        else:
            self._open[request.id] = OpenRequest(request=request)
            await self._to_server(request.raw)

    async def _ask(self, found: OpenRequest) -> None:
        try:
            found.allowed = await self.gate.ask(found.request)
        except RefusedError as refused:
            self._closed(found.request.id)
            await self._to_client(refused.answer)
            return
        found.asking, found.sending = None, found.asking
        if found.late:
            # The allow may be from before the end.
            self._look.set()
        await self._to_server(with_call_token(found.allowed.request, found.allowed.token).raw)
        found.sending = None

    # From the server.

    async def from_server(self, line: bytes | TooLong) -> None:
        """Take one line of the server."""
        if isinstance(line, bytes) and not line.strip():
            return
        try:
            if isinstance(line, TooLong):
                raise InvalidMessageError("the message is too large")
            await self._server_sent(await apart(Message.read_line, line))
        except InvalidMessageError as error:
            _LOG.warning("a message of the server is dropped: %s", error)
            await self._answered_with_nothing(line)
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 - fails closed: what could not be handled is not shown to the client
            _LOG.error("a message of the server could not be handled: %s", type(error).__name__)
            await self._answered_with_nothing(line)

    async def _server_sent(self, message: Message) -> None:
        if not message.method:
            await self._server_answered(message)
        elif message.id is None:
            await self._server_told(message)
        else:
            await self._server_asked(message)

    async def _answered_with_nothing(self, line: bytes | TooLong) -> None:
        """Have an answer that is dropped count as an error, so that nobody waits for it for ever."""
        number = await _refused_id(line, request=False)
        if number in self._open or number in self._own:
            told = answers.error(number, answers.INTERNAL_ERROR, "the answer of the server cannot be handed on")
            await self._server_answered(Message.read(told.encode("utf-8")))

    async def _server_answered(self, message: Message) -> None:
        if isinstance(message.id, str) and (own := self._own.pop(message.id, None)) is not None:
            if not own.done():
                own.set_result(message)
            return
        found = self._open_by(message.id)
        if found is None or found.asking is not None:
            _LOG.warning("an answer of the server is dropped, because nobody waits for it")
            self._given_up -= {message.id}
        elif found.allowed is None and found.request.method != methods.LIST:
            self._closed(message.id)
            await self._to_client(self._unless_over(found, self.gate.passed(found.request, message)))
        else:
            self._closed(message.id)
            self._start(self._hand_on(found, message))

    async def _hand_on(self, found: OpenRequest, said: Message) -> None:
        await self._to_client(self._unless_over(found, await self.gate.answered(found.request, found.allowed, said)))

    def _unless_over(self, found: OpenRequest, text: str) -> str:
        return found.without_answer(refusals.IS_OVER) if self._ending.closes(found.request.method) else text

    async def _server_told(self, message: Message) -> None:
        told = self.gate.told(message)
        if told is None or self._ending.over:
            return
        if told.method == methods.CANCELLED:
            self._server_asks.close(told.taken_back)
        if told.method == methods.ACKNOWLEDGED:
            told = self._acknowledged(told)
        await self._to_client(told.raw)

    def _acknowledged(self, message: Message) -> Message:
        number = message.meta.get(methods.SUBSCRIPTION_ID)
        found = self._open_by(number) if isinstance(number, int | str) else None
        if found is None:
            return message
        found.acknowledged = True
        return acknowledging(found.request, message)

    async def _server_asked(self, message: Message) -> None:
        if message.id is None:
            return
        if self._ending.over:
            self._answer_server(ending.to_server(message))
        elif not self.gate.lets_server_ask(message):
            told = f"`{message.method[:_SHOWN]}` is not let pass"
            self._answer_server(answers.error(message.id, answers.METHOD_NOT_FOUND, told))
        elif not self._server_asks.ask(message.id):
            told = "too many requests are open, or one with this id"
            self._answer_server(answers.error(message.id, answers.INVALID_REQUEST, told))
        else:
            await self._to_client(message.raw)

    def _answer_server(self, text: str) -> None:
        """Answer a request of the server, without waiting until it reads: it may first write until we read."""
        if len(self._tasks) < MOST_OPEN:
            self._start(self._to_server(text))

    # Of its own.

    async def _ask_server(self, method: str, params: Mapping[str, Any]) -> Message:
        message_id = f"pdp-{secrets.token_hex(8)}"
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._own[message_id] = answer
        try:
            await self._to_server(answers.request(message_id, method, params))
            async with asyncio.timeout(_LIST_SECONDS):
                return await answer
        except TimeoutError:
            raise InvalidMessageError("the server does not answer") from None
        finally:
            self._own.pop(message_id, None)

    async def watch_session(self) -> None:
        """Tell the client whenever the session can see other tools than before, and stop its calls when it is over.

        Runs until it is cancelled.
        """
        with self.gate.hearing() as changed:
            self._look, told = changed, False
            while True:
                changed.clear()
                pause = _AGAIN_SECONDS
                try:
                    now = await self.gate.seen()
                    pause = _AGAIN_SECONDS if told else _LOOK_SECONDS
                    self._ending.saw(alive=now is not None)
                    if now is None:
                        self._stop(refusals.IS_OVER)
                    before, self.gate.shown = self.gate.shown, now or {}
                    # A client that has not read the word before it lists the tools after both changes.
                    if before not in (None, self.gate.shown) and (self._telling is None or self._telling.done()):
                        self._telling = self._start(self._tell_tools_changed())
                except FrozenError:
                    self._stop(refusals.IS_FROZEN)
                except PDPClientError:
                    # What is under way goes on: each further call is asked about anyway.
                    pass
                told = await heard(changed, pause)

    def _stop(self, why: str) -> None:
        """Answer the calls that are under way, and tell the server that nobody waits for them any more.

        So too, when the session is over, all other requests but subscriptions, and what the server has asked.
        Waits for neither until it reads: the one that does not must keep no call from being stopped.
        """
        for found in tuple(self._open.values()):
            found.late = found.asking is not None
            method = found.request.method
            unasked = found.allowed is None and (not self._ending.closes(method) or method == methods.LISTEN)
            if unasked or found.late:
                continue
            self._give_up(found)
            if found.sending is not None:
                # What has not been written yet is not.
                found.sending.cancel()
            if found.allowed is not None:
                self._start(self.gate.lost(found.allowed))
            self._start(self._to_server(answers.cancelled(found.request.id, why)))
            self._start(self._to_client(found.without_answer(why)))
        for number in self._server_asks.close_all() if self._ending.over else ():
            self._start(self._to_client(answers.cancelled(number, why)))
            self._start(self._to_server(answers.error(number, answers.DENIED, why)))

    async def _tell_tools_changed(self) -> None:
        if self._initialized:
            await self._to_client(answers.tools_changed())
        for number, found in tuple(self._open.items()):
            if found.acknowledged and wants_tools_changed(found.request):
                await self._to_client(answers.tools_changed(number))

    async def close(self) -> None:
        """Cancel what is being asked, and report the calls that bring nothing any more."""
        for found in self._open.values():
            if found.asking is not None:
                found.asking.cancel()
        await self._within(tuple(self._tasks))
        lost = [found.allowed for found in self._open.values() if found.allowed is not None]
        self._open.clear()
        await self._within([self._start(self.gate.lost(one)) for one in lost])

    @staticmethod
    async def _within(tasks: Collection[asyncio.Task[None]]) -> None:
        """Wait for tasks, but not for ever: a client may not read, and a PDP may not answer."""
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_END_SECONDS)
            for task in late:
                task.cancel()

    def _start(self, work: Any) -> asyncio.Task[None]:  # noqa: ANN401 - a coroutine
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, ConnectionError):
            _LOG.error("a message could not be handled: %s", type(error).__name__)

    def _give_up(self, found: OpenRequest) -> None:
        """Have what the server still answers to a request shown to nobody.

        INVARIANT: its id is that of no other request meanwhile, as whose result it would be handed on.
        """
        self._closed(found.request.id)
        if found.request.id is not None:
            self._given_up.add(found.request.id)

    def _open_by(self, message_id: MessageId | None) -> OpenRequest | None:
        return None if message_id is None else self._open.get(message_id)

    def _closed(self, message_id: MessageId | None) -> None:
        if message_id is not None:
            self._open.pop(message_id, None)


async def _refused_id(line: bytes | TooLong, *, request: bool) -> MessageId | None:
    begin, end = ends_of(line)
    return await apart(partial(refused_id, end=end, request=request), begin)
