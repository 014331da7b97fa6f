"""The server's feed of sessions, as a signal that one may have changed. It never says that a call is allowed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeAlias

from pdp.client import PDPClientError
from pdp.v1 import session_pb2

_LOG = logging.getLogger(__name__)

# The pause before a feed that broke is opened again, and the shortest one between two messages.
_AGAIN_SECONDS, _SHORTEST_SECONDS = 2.0, 0.2

# Opens the feed from a revision on.
Changes: TypeAlias = Callable[[str], AsyncIterator[session_pb2.WatchSessionsResponse]]


class SessionsFeed:
    """Follows sessions from the first one that is listened to. Make it where the event loop runs, and `close` it.

    Many sessions share one feed, because a connection to the server carries few calls at once.
    """

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._listening: dict[asyncio.Event, Callable[[], str]] = {}
        self._following: asyncio.Task[None] | None = None

    @contextmanager
    def hearing(self, session_id: Callable[[], str]) -> Iterator[asyncio.Event]:
        """Provide an event that is set whenever a session may have changed: any session, while its id is empty."""
        changed = asyncio.Event()
        self._listening[changed] = session_id
        if self._following is None:
            self._following = asyncio.ensure_future(self._follow())
        try:
            yield changed
        finally:
            del self._listening[changed]

    async def close(self) -> None:
        """Follow no longer."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])

    async def _follow(self) -> None:
        revision, told = "", False
        common: tuple[str, tuple[str, ...]] = ("", ())
        while True:
            # What changed before a feed begins is not always told.
            missed = True
            try:
                async for message in self._changes(revision):
                    told = False
                    # What concerns all sessions: the bundle, and what freezes their tenants.
                    before, common = common, (message.bundle_version, tuple(message.frozen_tenants))
                    missed |= message.reset or common != before
                    self._tell({one.session_id for one in message.changes}, everyone=missed)
                    revision, missed = message.revision, False
                    await asyncio.sleep(_SHORTEST_SECONDS)
            except PDPClientError as error:
                if not told:
                    _LOG.warning("changes of sessions are seen late, because their feed broke: %s", error)
                    told = True
            await asyncio.sleep(_AGAIN_SECONDS)

    def _tell(self, session_ids: set[str], *, everyone: bool) -> None:
        for changed, session_id in self._listening.items():
            if everyone or session_id() in session_ids or (session_ids and not session_id()):
                changed.set()


async def heard(changed: asyncio.Event, seconds: float) -> bool:
    """Wait until an event is set, but not for longer than some seconds. Say whether it is."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await changed.wait()
    return changed.is_set()
