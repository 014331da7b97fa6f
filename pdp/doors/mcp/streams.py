"""What a server says besides its answers over HTTP: what of it a client gets, and the stream that is for it alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from contextlib import aclosing, suppress
from typing import Any

from pdp.client import FrozenError, PDPClientError
from pdp.doors import refusals
from pdp.doors.feeds import heard
from pdp.doors.mcp import answers, conversations, methods
from pdp.doors.mcp import headers as http
from pdp.doors.mcp.conversations import Conversation
from pdp.doors.mcp.messages import Message
from pdp.doors.mcp.parties import Party
from pdp.doors.mcp.replies import Reply
from pdp.doors.mcp.tools import acknowledging
from pdp.doors.mcp.upstream import Upstream, UpstreamError
from pdp.serving.web import BAD_REQUEST, NOT_ALLOWED, NOT_FOUND, ClientGoneError, RefusedRequestError

_LOG = logging.getLogger(__name__)

_OK, BAD_GATEWAY = 200, 502
# How often a stream looks whether its session lives while it hears of no change: that a session expires is none; and
# how long it waits after a change, which another machine of the PDP may not know yet, and after a look that failed,
# because the change that it heard of may be the last one.
_LOOK_SECONDS, _AGAIN_SECONDS = 15.0, 2.0
_HANDED_ON = (BAD_REQUEST, NOT_FOUND, NOT_ALLOWED)


class SessionOverError(Exception):
    """The session of a call that is under way is over: the text says why."""


async def listen(
    upstream: Upstream, party: Party, conversation: Conversation, headers: http.Headers, reply: Reply
) -> None:
    """Hand on what the server says in a session of MCP, until it ends or the session of the PDP does."""
    try:
        async with upstream.exchange("GET", conversation.headers(headers), load=party.visitor.load) as answer:
            if answer.status != _OK or not http.is_stream(answer.headers):
                await reply.nothing(status_of(answer.status) if answer.status != _OK else BAD_GATEWAY)
                return
            await reply.stream(http.to_client(answer.headers))
            stream = asyncio.current_task()
            watching = asyncio.ensure_future(_end_with_session(party, reply, stream))
            if stream is not None:
                conversation.listening.add(stream)
            try:
                async with aclosing(answer.messages()) as messages:
                    async for message in messages:
                        if message is None:
                            await reply.keep_alive()
                        else:
                            await passing(message, conversation, reply)
            finally:
                conversation.listening.discard(stream)
                await ended(watching)
    except UpstreamError as error:
        if not reply.begun:
            raise RefusedRequestError(BAD_GATEWAY, str(error)) from None


async def send_on(
    upstream: Upstream, method: str, conversation: Conversation, headers: http.Headers, reply: Reply, body: bytes = b""
) -> None:
    """Send on what the server only takes note of."""
    try:
        async with upstream.exchange(
            method, conversation.headers(headers), body, seconds=conversations.TAKEN_SECONDS
        ) as answer:
            status = answer.status
    except UpstreamError as error:
        raise RefusedRequestError(BAD_GATEWAY, str(error)) from None
    await reply.nothing(status_of(status))


async def passing(
    message: Message, conversation: Conversation, reply: Reply, *, request: Message | None = None
) -> None:
    """Hand on what the server says or asks on a stream, if it may. `request` is what the stream answers."""
    gate = conversation.gate
    if not message.method:
        _LOG.warning("an answer of the server is dropped, because nothing was asked there")
    elif message.id is not None:
        await _asking(message, conversation, reply)
    elif (told := gate.told(message)) is not None:
        if told.method == methods.ACKNOWLEDGED and request is not None:
            told = acknowledging(request, told)
        if told.method == methods.CANCELLED:
            conversation.server_asks.close(told.taken_back)
        await reply.event(told.text)


async def _asking(message: Message, conversation: Conversation, reply: Reply) -> None:
    if message.id is None:
        return
    # Only in a session of MCP can the answer find its way back.
    if (
        conversation.gate.lets_server_ask(message)
        and conversation.mcp_session
        and conversation.server_asks.ask(message.id)
    ):
        await reply.event(message.text)
    elif conversation.mcp_session:
        told = answers.error(message.id, answers.METHOD_NOT_FOUND, f"`{message.method}` is not let pass")
        conversation.tell_server(told)


async def watch(party: Party, reply: Reply, changed: str) -> None:
    """Send `changed`, unless it is empty, whenever the session can see other tools. Return when the session is over."""
    before: Mapping[str, str] | None = None
    told = False
    with party.session.hearing() as heard_of:
        while True:
            heard_of.clear()
            pause = _AGAIN_SECONDS
            with suppress(PDPClientError):
                now = await party.seen()
                # The session may be over before it is seen here for the first time.
                if changed and (now is None or before not in (None, now)):
                    await reply.event(changed)
                if now is None:
                    return
                before, pause = now, _AGAIN_SECONDS if told else _LOOK_SECONDS
            told = await heard(heard_of, pause)


async def while_it_lives(party: Party, heard_of: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Do what a call needs; raise `SessionOverError` as soon as its session is over, and leave the rest undone.

    `heard_of` must hear of the session since before the call was asked about: it can be over when the allow arrives.
    """
    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(_why_over(party, heard_of))
    try:
        await asyncio.wait([working, watching], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise SessionOverError(watching.result())
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _why_over(party: Party, heard_of: asyncio.Event) -> str:
    """Wait until no call of the session may go on, and return why."""
    pause = _LOOK_SECONDS
    while True:
        told = await heard(heard_of, pause)
        heard_of.clear()
        pause = _AGAIN_SECONDS
        try:
            if await party.seen() is None:
                return refusals.IS_OVER
            pause = _AGAIN_SECONDS if told else _LOOK_SECONDS
        except FrozenError:
            return refusals.IS_FROZEN
        except PDPClientError:
            continue


async def ended(task: asyncio.Task[None] | None) -> None:
    """End a task."""
    if task is not None:
        task.cancel()
        await asyncio.wait([task])


async def _end_with_session(party: Party, reply: Reply, stream: asyncio.Task[None] | None) -> None:
    with suppress(ClientGoneError):
        await watch(party, reply, answers.tools_changed())
    if stream is not None:
        stream.cancel()


def status_of(status: int) -> int:
    """Return what a client is told of the status of an answer without content that it can act on."""
    return status if status in _HANDED_ON or status // 100 == _OK // 100 else BAD_GATEWAY
