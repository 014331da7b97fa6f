"""Calls that wait for their message, or as watches: each caller has a limit, and one more ends its oldest call."""

from __future__ import annotations

import threading
from typing import Protocol

from pdp.clock import Clock
from pdp.errors import OverloadedError, PDPError
from pdp.serving.status import MessageLateError


class Awaiting(Protocol):
    """A call that waits."""

    @property
    def owner(self) -> str:
        """Return the id of the caller; empty without credentials."""
        ...

    def give_up(self, error: PDPError) -> None:
        """End with an error, without waiting."""
        ...


class Awaited:
    """Waiting calls, at most `most` for each owner; one more ends the owner's oldest. Safe for threads.

    `what` names in that refusal what there are too many of. A call waits up to `limit` seconds of the boot clock.
    INVARIANT: each call is taken out once, and only the code that took it out goes on with it.
    """

    def __init__(self, clock: Clock, *, limit: float, most: int, what: str) -> None:
        self._clock = clock
        self._limit, self._most, self._what = limit, most, what
        # Guards the calls, which are in order of arrival.
        self._lock = threading.Lock()
        self._calls: dict[str, dict[Awaiting, float]] = {}

    def __len__(self) -> int:
        """Return how many calls wait."""
        with self._lock:
            return sum(map(len, self._calls.values()))

    def add(self, call: Awaiting) -> None:
        """Add a waiting call."""
        now = self._clock.now().boot_at
        with self._lock:
            mine = self._calls.setdefault(call.owner, {})
            oldest = next(iter(mine)) if len(mine) >= self._most else None
            mine[call] = now
        if oldest is not None:
            self._end(oldest, OverloadedError(f"more than {self._most} {self._what}; try again"))

    def take(self, call: Awaiting) -> bool:
        """Take a call out; False when it was already taken out."""
        with self._lock:
            mine = self._calls.get(call.owner, {})
            taken = mine.pop(call, None) is not None
            if taken and not mine:
                del self._calls[call.owner]
        return taken

    def sweep(self) -> None:
        """End the calls that have waited too long; call this about once a second."""
        since = self._clock.now().boot_at - self._limit
        with self._lock:
            late = [call for mine in self._calls.values() for call, began_at in mine.items() if began_at <= since]
        for call in late:
            self._end(call, MessageLateError("the message did not arrive in time (limit `message_seconds`)"))

    def _end(self, call: Awaiting, error: PDPError) -> None:
        if self.take(call):
            call.give_up(error)
