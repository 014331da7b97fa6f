"""Connections for watches: several people share one, and calls never wait behind watches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pdp.client import AsyncClient

# A server takes 100 calls on one connection by default, and each person has two watches.
MOST_ON_ONE = 40


@dataclass(slots=True)
class _Shared:
    client: AsyncClient
    people: int = 0


class Connections:
    """The connections that are open, each for at most `MOST_ON_ONE` people. `connect` opens one."""

    def __init__(self, connect: Callable[[], AsyncClient]) -> None:
        self._connect = connect
        self._open: list[_Shared] = []

    @asynccontextmanager
    async def one(self) -> AsyncIterator[AsyncClient]:
        """Provide a connection for the watches of one more person. It closes after the last of them."""
        shared = next((one for one in self._open if one.people < MOST_ON_ONE), None)
        if shared is None:
            shared = _Shared(self._connect())
            self._open.append(shared)
        shared.people += 1
        try:
            yield shared.client
        finally:
            shared.people -= 1
            if not shared.people:
                self._open.remove(shared)
                await shared.client.close()

    def __len__(self) -> int:
        return len(self._open)
