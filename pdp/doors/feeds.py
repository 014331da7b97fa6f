"""The server's feed of one session, as a signal that it may have changed. It never says that a call is allowed."""

from __future__ import annotations

import asyncio
import logging

from pdp.client import AsyncClientSession, PDPClientError

_LOG = logging.getLogger(__name__)

# The pause before a feed that broke is opened again, and the shortest one between two signals.
_AGAIN_SECONDS, _SHORTEST_SECONDS = 2.0, 0.2


class SessionFeed:
    """Follows one session, from the first `changed` on. Make it where the event loop runs, and `close` it."""

    def __init__(self, session: AsyncClientSession) -> None:
        self._session = session
        self._signal = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    async def changed(self) -> None:
        """Wait until the session may have changed since the last time, which can be for ever."""
        if self._following is None:
            self._following = asyncio.ensure_future(self._follow())
        await self._signal.wait()
        self._signal.clear()

    async def close(self) -> None:
        """Follow no longer."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])

    async def _follow(self) -> None:
        revision, told = 0, False
        while True:
            try:
                async for message in self._session.changes(since_revision=revision):
                    revision, told = message.revision, False
                    self._signal.set()
                    await asyncio.sleep(_SHORTEST_SECONDS)
            except PDPClientError as error:
                if not told:
                    _LOG.warning("changes of the session are seen late, because its feed broke: %s", error)
                    told = True
            await asyncio.sleep(_AGAIN_SECONDS)
