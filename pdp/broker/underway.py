"""The requests to upstreams that are under way, so that they end with their client, and with their session."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Final, NamedTuple

from pdp.calltokens.asgi import Receive
from pdp.foundation.egress import Egress
from pdp.foundation.lrucache import LRUCache

_MOST_ENDS: Final = 10_000
# The clock of the server, which says that the session lives, may be behind this one.
_LEAST_SECONDS: Final = 5.0


class _Key(NamedTuple):
    name: str
    is_tenant: bool = False


class Running:
    """What ends a request to an upstream."""

    def __init__(self) -> None:
        self._egress: Egress | None = None
        self.ended = False

    def opened(self, egress: Egress) -> None:
        """Remember what ends the request."""
        self._egress = egress
        # INVARIANT: either this code or `end` sees what the other has done.
        if self.ended:
            egress.close()

    def end(self) -> None:
        """End the request, also one that has not begun yet."""
        self.ended = True
        if self._egress is not None:
            self._egress.close()

    async def until_gone(self, receive: Receive) -> None:
        """Wait until the client has gone, and end the request."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.end()


class UnderWay:
    """The requests of sessions, each also of those above it, and of tenants. Safe for threads.

    `wall` returns unix seconds.
    """

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._lock = Lock()
        self._of: dict[_Key, set[Running]] = {}
        self._ends: LRUCache[float] = LRUCache(_MOST_ENDS)

    @property
    def session_ids(self) -> tuple[str, ...]:
        """Return the sessions with which something is to end."""
        with self._lock:
            return tuple(key.name for key in self._of if not key.is_tenant)

    @contextmanager
    def noted(self, session_ids: Collection[str], *, tenant: str) -> Iterator[Running]:
        """Provide what ends a request when one of these sessions ends, or its tenant is frozen."""
        running, keys = Running(), {_Key(tenant, is_tenant=True), *map(_Key, session_ids)}
        with self._lock:
            for key in keys:
                self._of.setdefault(key, set()).add(running)
        try:
            yield running
        finally:
            with self._lock:
                for key in keys:
                    self._of[key].discard(running)
                    if not self._of[key]:
                        del self._of[key]

    def end(self, session_ids: Collection[str]) -> None:
        """End all requests of some sessions."""
        self._end(map(_Key, session_ids))

    def freeze(self, tenants: Collection[str]) -> None:
        """End all requests of some tenants."""
        self._end(_Key(one, is_tenant=True) for one in tenants)

    def close(self) -> None:
        """End all requests."""
        with self._lock:
            keys = tuple(self._of)
        self._end(keys)

    def lives_until(self, session_id: str, at: float) -> None:
        """Note until when a session lives, in unix seconds. That it expires is told by nobody."""
        self._ends.keep(session_id, at)

    def seconds_left(self, session_id: str, *, most: float) -> float:
        """Return how long a request of a session may take."""
        ends_at = self._ends.get(session_id)
        return most if ends_at is None else min(most, max(ends_at - self._wall(), _LEAST_SECONDS))

    def _end(self, keys: Iterable[_Key]) -> None:
        with self._lock:
            ended = {running for key in keys for running in self._of.get(key, ())}
        for running in ended:
            running.end()
