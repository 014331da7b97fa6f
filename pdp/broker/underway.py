"""The requests to upstreams that are under way, so that they end with their client, and with their session."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from threading import Lock

from pdp.calltokens.asgi import Receive
from pdp.foundation.egress import Egress


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
    """The requests of sessions, each also of those above it. Safe for threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._of: dict[str, set[Running]] = {}

    @property
    def session_ids(self) -> tuple[str, ...]:
        """Return the sessions with which something is to end."""
        with self._lock:
            return tuple(self._of)

    @contextmanager
    def noted(self, session_ids: Collection[str]) -> Iterator[Running]:
        """Provide what ends a request when one of these sessions ends."""
        running, ids = Running(), {*session_ids}
        with self._lock:
            for one in ids:
                self._of.setdefault(one, set()).add(running)
        try:
            yield running
        finally:
            with self._lock:
                for one in ids:
                    self._of[one].discard(running)
                    if not self._of[one]:
                        del self._of[one]

    def end(self, session_ids: Collection[str]) -> None:
        """End all requests of some sessions."""
        with self._lock:
            ended = {running for one in session_ids for running in self._of.get(one, ())}
        for running in ended:
            running.end()
