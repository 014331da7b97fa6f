"""The questions of gateways that are not all there yet: a few are read at a time, and no gateway keeps out another."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

# What a question that is being read has, whoever waits: more than one of the largest takes over a network.
_LEAST_SECONDS: Final = 1.0


@dataclass(eq=False, kw_only=True)
class _Unread:
    """A question of a gateway. Its turn begins with `begins`, and it is over at its `limit`; `ends` if that was cut."""

    who: frozenset[str]
    limit: asyncio.Timeout
    since: float
    begins: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    ends: bool = False

    def end(self, at: float) -> None:
        """End it at a time of the event loop, if it has not come before."""
        self.ends = True
        if not self.limit.expired():
            self.limit.reschedule(min(at, self.limit.when() or at))


class Turns:
    """Has so many questions read at a time. The next turn is that of the gateway that reads fewest.

    A gateway that reads none gets a turn soon: the one that reads most loses its oldest.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: list[_Unread] = []
        self._reading: list[_Unread] = []

    @asynccontextmanager
    async def turn(self, who: frozenset[str], limit: asyncio.Timeout) -> AsyncIterator[None]:
        """Wait for a turn of a gateway, and hold it. To be used within `limit`, which may be made shorter."""
        one = _Unread(who=who, limit=limit, since=asyncio.get_running_loop().time())
        self._waiting.append(one)
        try:
            self._settle()
            await one.begins
            yield
        finally:
            (self._reading if one in self._reading else self._waiting).remove(one)
            self._settle()

    def end_one_for(self, who: frozenset[str]) -> bool:
        """End the oldest question of the gateway that has most of them, if it has more than this one."""
        unread = [one for one in (*self._reading, *self._waiting) if not one.ends]
        of = Counter(one.who for one in unread)
        chosen = max(unread, key=lambda one: (of[one.who], -one.since), default=None)
        if chosen is None or of[chosen.who] <= of[who]:
            return False
        chosen.end(asyncio.get_running_loop().time())
        return True

    def _settle(self) -> None:
        """Give the turns that are free, and end as many as are owed to gateways that read nothing."""
        now = asyncio.get_running_loop().time()
        while self._waiting and len(self._reading) < self._most:
            of = Counter(one.who for one in self._reading)
            # Of several the one that waits for longest.
            first = min(self._waiting, key=lambda one: of[one.who])
            self._waiting.remove(first)
            self._reading.append(first)
            first.since = now
            if not first.begins.done():
                first.begins.set_result(None)
        of = Counter(one.who for one in self._reading)
        owed = len({one.who for one in self._waiting} - of.keys()) - sum(one.ends for one in self._reading)
        for _ in range(owed):
            lasting = [one for one in self._reading if not one.ends]
            of = Counter(one.who for one in lasting)
            if not lasting:
                return
            chosen = max(lasting, key=lambda one: (of[one.who], -one.since))
            chosen.end(max(now, chosen.since + _LEAST_SECONDS))
