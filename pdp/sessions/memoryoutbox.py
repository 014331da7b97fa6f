"""Keep the events of a store in memory; a part of it, under its lock."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from pdp.sessions.outbox import MOST_EVENTS, OutboxEvent, Untold, of_one_write


class MemoryOutbox:
    """The events of one store; with `tells` False it takes none. The caller holds the lock of the store."""

    def __init__(self, *, tells: bool, most: int = MOST_EVENTS) -> None:
        self.tells = tells
        self._most = most
        self._events: dict[str, OutboxEvent] = {}
        self._missed = 0

    def add(self, events: Iterable[OutboxEvent | None]) -> None:
        """Keep the events of one write; of more than the most, the oldest go."""
        if self.tells:
            self._events.update((one.id, one) for one in of_one_write(events))
        while len(self._events) > self._most:
            del self._events[next(iter(self._events))]
            self._missed += 1

    def untold(self, limit: int) -> Untold:
        """Return the oldest events, and how many were lost."""
        return Untold(tuple(islice(self._events.values(), limit)), self._missed)

    def forget(self, told: Untold) -> None:
        """Remove events that were passed on, and as many missed ones."""
        for event in told.events:
            self._events.pop(event.id, None)
        self._missed = max(self._missed - told.missed, 0)
