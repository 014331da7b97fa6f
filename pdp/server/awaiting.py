"""Calls whose message has not come yet: they have no thread, and end when it takes too long."""

from __future__ import annotations

import math
from typing import Protocol

from pdp.clock import Clock


class Awaiting(Protocol):
    """A call that waits for its message."""

    def late(self) -> None:
        """End, because the message has not come in time; never waits."""
        ...


class Awaited:
    """At most `most` calls that wait for their message, each for `limit` seconds of the boot clock. Safe for threads.

    One more ends the oldest. INVARIANT: each call is taken out once, and goes on where it was taken out.
    """

    def __init__(self, clock: Clock, *, limit: float, most: float = math.inf) -> None:
        self._clock = clock
        self._limit, self._most = limit, most
        # In the order in which they came. Each step on it is one of the interpreter's, so there is no lock.
        self._calls: dict[Awaiting, float] = {}

    def add(self, call: Awaiting) -> None:
        """Wait for the message of a call. For one thread at a time."""
        if len(self._calls) >= self._most:
            self._end(next(iter(self._calls), None))
        self._calls[call] = self._clock.now().boot_at

    def take(self, call: Awaiting) -> bool:
        """Take a call out; False when it has been taken out."""
        return self._calls.pop(call, None) is not None

    def sweep(self) -> None:
        """End the calls that have waited too long."""
        since = self._clock.now().boot_at - self._limit
        for call, began_at in list(self._calls.items()):
            if began_at <= since:
                self._end(call)

    def _end(self, call: Awaiting | None) -> None:
        if call is not None and self.take(call):
            call.late()
