"""Follow the sessions for which credentials are out or requests under way, so that these end with them.

The feed makes it fast and proves nothing: each credential has an end of its own that is no later than its session's.
Whatever the feed missed, at the start and after an interruption, is asked for session by session.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Collection, Iterable
from contextlib import aclosing
from typing import Final, cast

from pdp.broker.store.checkouts import CheckoutStore
from pdp.broker.underway import UnderWay
from pdp.client import AsyncClient, PDPClientError
from pdp.errors import PDPError, StoreUnavailableError
from pdp.v1 import session_pb2 as sessions

_LOG = logging.getLogger("pdp.broker")

_AGAIN_SECONDS: Final = 2.0
# How many sessions are asked for at once.
_AT_ONCE: Final = 8


class Heard:
    """The latest change of sessions that the broker has heard of, as a `revision`; empty before. Safe for threads."""

    def __init__(self) -> None:
        self.revision = ""


class SessionsFollowed:
    """Notes in the store which credentials are to end, and in `heard` the latest change; ends what is `under_way`.

    `wake` has what is due ended soon, and `wall` returns unix seconds. `end_unnoted` ends what is out for sessions when
    the store cannot note that.
    """

    def __init__(
        self,
        client: AsyncClient,
        store: CheckoutStore,
        *,
        wake: Callable[[], object],
        wall: Callable[[], float],
        heard: Heard,
        under_way: UnderWay,
        end_unnoted: Callable[[Iterable[str]], object],
    ) -> None:
        self._client, self._store, self._wake, self._wall, self._heard = client, store, wake, wall, heard
        self._under_way, self._end_unnoted = under_way, end_unnoted

    async def follow(self, *, again: float = _AGAIN_SECONDS) -> None:
        """Follow until this is cancelled, and begin again `again` seconds after an interruption."""
        revision, told = "", False
        while True:
            # What changed before a feed begins is not told.
            missed = not revision
            try:
                async for message in self._client.watch_sessions(since_revision=revision):
                    # First: no token is checked any more by a server that does not know it.
                    told, self._heard.revision = False, message.revision
                    self._under_way.freeze(message.frozen_tenants)
                    await asyncio.to_thread(self._take, message.changes)
                    if missed or message.reset:
                        await self._ask()
                    revision, missed = message.revision, False
            except (PDPClientError, PDPError) as error:
                if not told:
                    _LOG.warning("the end of sessions is seen late, because their feed broke: %s", error)
                    told = True
            await asyncio.sleep(again)

    async def _ask(self) -> None:
        """Ask how each session is for which a credential is out, or a request under way."""
        limit = asyncio.Semaphore(_AT_ONCE)

        async def ask(session_id: str) -> sessions.SessionChange:
            async with limit:
                return await self._now(session_id)

        waiting = {*await asyncio.to_thread(self._store.sessions), *self._under_way.session_ids}
        await asyncio.to_thread(self._take, await asyncio.gather(*map(ask, waiting)))

    async def _now(self, session_id: str) -> sessions.SessionChange:
        """Return how a session is now. One that the server does not know, or does not show to us, is over."""
        feed = self._client.watch_sessions(session_id=session_id)
        # It is a generator, whose end ends the feed.
        async with aclosing(cast("AsyncGenerator[sessions.WatchSessionsResponse]", feed)) as messages:
            first = await anext(messages)
        for change in first.changes:
            return change
        return sessions.SessionChange(session_id=session_id, state=sessions.SESSION_STATE_ENDED)

    def _take(self, changes: Collection[sessions.SessionChange]) -> None:
        ended = [one.session_id for one in changes if one.state != sessions.SESSION_STATE_ACTIVE]
        self._under_way.end(ended)
        try:
            if ended and self._store.end_of_sessions(ended, now=self._wall()):
                self._wake()
        except StoreUnavailableError:
            self._end_unnoted(ended)
            raise
        for one in changes:
            if one.state == sessions.SESSION_STATE_ACTIVE and one.HasField("expire_time"):
                # It may have been narrowed to an earlier end.
                self._store.no_later_than(one.session_id, one.expire_time.ToMicroseconds() / 1e6)
