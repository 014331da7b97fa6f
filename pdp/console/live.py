"""The stream that tells a browser that something has changed: not what, since its page asks for that itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from pdp.client import AsyncClient, OverloadedError, PDPClientError
from pdp.console.logins import Login
from pdp.console.paging import AGAIN
from pdp.console.visits import Desk, Entry, Visit
from pdp.console.waiting import first

# The header with which the console's script asks for a page again.
LIVE = "x-console-live"
# A browser needs one; a second one overlaps while a tab hands over to another.
MOST_STREAMS = 4
_TOO_MANY = 429
# Where there is no room for a watch: so often, and so many times before a watch is tried again.
_LOOK_SECONDS, _LOOKS, _MOST_LOOKED_AT = 5.0, 12, 1000
# Changes that come close together are told once; a sign of life, at which the log-in is looked at, comes so often.
_MERGE_SECONDS, _LIFE_SECONDS, _AGAIN_SECONDS = 0.25, 15.0, 2.0
_CHANGED, _ALIVE, _OVER = b"event: changed\ndata:\n\n", b": alive\n\n", b"event: over\ndata:\n\n"


def by_script(request: Request) -> bool:
    """Say whether the console's script asks by itself."""
    return LIVE in request.headers or request.url.path == "/events"


def by_itself(request: Request) -> bool:
    """Say whether a page or its script asks by itself: then nobody has done anything."""
    return AGAIN in request.query_params or by_script(request)


class Events:
    """The streams of all browsers."""

    def __init__(self, desk: Desk, entry: Entry) -> None:
        self._desk = desk
        self._entry = entry

    async def stream(self, visit: Visit) -> Response:
        """Open the stream of a browser, as the person who is logged in there."""
        if visit.login.streams >= MOST_STREAMS:
            return PlainTextResponse("Too many streams are open.\n", status_code=_TOO_MANY)
        secret = visit.request.cookies.get(self._desk.place.cookie, "")
        return _Stream(visit.login, self._events(visit.login, secret))

    async def _events(self, login: Login, secret: str) -> AsyncIterator[bytes]:
        changed = asyncio.Event()
        watching = asyncio.ensure_future(self._watch(login, changed))
        try:
            while (
                not watching.done()
                and self._desk.logins.find(secret, used=False) is login
                and await self._entry.renew(login)
            ):
                with suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), _LIFE_SECONDS)
                    await asyncio.sleep(_MERGE_SECONDS)
                told = changed.is_set()
                # Before it is told: what changes meanwhile is told next.
                changed.clear()
                yield _CHANGED if told else _ALIVE
            yield _OVER
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _watch(self, login: Login, changed: asyncio.Event) -> None:
        async with self._desk.connections.one() as client:
            await asyncio.gather(
                *(self._again(login, partial(watch, client, changed)) for watch in (_sessions, _calls))
            )

    async def _again(self, login: Login, watch: Callable[[], Awaitable[None]]) -> None:
        """Watch as a person, again and again: a watch ends from time to time, and so does its token."""
        while True:
            self._desk.person.take(login.credential)
            with suppress(PDPClientError):
                await watch()
            await asyncio.sleep(_AGAIN_SECONDS)


class _Stream(StreamingResponse):
    """A stream, which counts from when it is made: of many that come at once, none is answered before it counts."""

    def __init__(self, login: Login, events: AsyncIterator[bytes]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._login = login
        login.streams += 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, as long as the browser listens."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._login.streams -= 1


async def _sessions(client: AsyncClient, changed: asyncio.Event) -> None:
    begun = False
    async for message in client.watch_sessions():
        # What happened between the page and the first message was told to nobody.
        if message.changes or message.reset or not begun:
            changed.set()
        begun = True


async def _calls(client: AsyncClient, changed: asyncio.Event) -> None:
    """Watch the calls that wait, or look now and then: a server has room for few of these watches."""
    try:
        # A watch begins with what is open.
        async for _ in client.watch_access_requests():
            changed.set()
    except OverloadedError:
        before = None
        for _ in range(_LOOKS):
            found = await first(client.list_access_requests(state="open", page_size=_MOST_LOOKED_AT), _MOST_LOOKED_AT)
            seen = {one.access_request_id for one in found}
            if seen != before:
                changed.set()
            before = seen
            await asyncio.sleep(_LOOK_SECONDS)
