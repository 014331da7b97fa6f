"""What is under way over HTTP, as requests and as the memory of messages: bounded for each session, and for all.

A session takes no more than is left for all others, so that however many take all they can, one more has room.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from sys import getsizeof

from pdp.doors.mcp.messages import MOST_VALUES, Message

# Fewer than there are connections.
MOST_OPEN = 448
MOST_MEMORY = 512 * 1024 * 1024
# A session that fills its part leaves the rest to the others.
_PARTS = 4
# Of a message at most: its text twice as bytes and twice as characters, and its values.
_TEXTS, _VALUE_BYTES = 4, 200
# What is read is put together once more when it is whole.
_READ = 2


class OverloadedError(Exception):
    """A message does not fit in: the bound is reached. It may be tried again later."""


class Load:
    """Counts open requests, and the memory of messages in bytes; those of a part count for the whole, too."""

    def __init__(self, most: int = MOST_MEMORY, whole: Load | None = None) -> None:
        self.open = 0
        self.held = 0
        self._most = most
        self._whole = whole

    def part(self) -> Load:
        """Return the load of one session."""
        return Load(self._most // _PARTS, self)

    @property
    def crowded(self) -> bool:
        """Say whether a session has more open requests than are left for all others."""
        return self.open > self.left

    @property
    def full(self) -> bool:
        """Say whether a session has so many open requests that not even a deny has room."""
        return self.open >= 2 * self.left

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count an open request. Raise `OverloadedError` when it is full."""
        if self.full:
            raise OverloadedError
        with self.counted():
            yield

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count an open request, also when it is full."""
        self.count(1)
        try:
            yield
        finally:
            self.count(-1)

    @contextmanager
    def share(self) -> Iterator[Share]:
        """Provide the share of one message, which is given back when the block ends."""
        share = Share(self)
        try:
            yield share
        finally:
            share.hold(0)

    def fits(self, more: int) -> bool:
        """Say whether so much more is within all bounds."""
        if self._whole is None:
            return self.held + more <= self._most
        return self.held + more <= self._most and self._whole.fits(self.held + 2 * more)

    def add(self, more: int) -> None:
        """Count more, or less."""
        self.held += more
        if self._whole is not None:
            self._whole.add(more)

    @property
    def left(self) -> int:
        """Return how many more requests can be open, of all."""
        return MOST_OPEN - self.open if self._whole is None else self._whole.left

    def count(self, more: int) -> None:
        """Count more open requests, or fewer."""
        self.open += more
        if self._whole is not None:
            self._whole.count(more)


class Share:
    """What one message takes of a load, from its first byte until it is answered or handed on."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._held = 0

    def hold(self, memory: int) -> None:
        """Hold so much, and no longer what was held before. Raise `OverloadedError` when it does not fit in."""
        more = memory - self._held
        if more > 0 and not self._load.fits(more):
            raise OverloadedError
        self._load.add(more)
        self._held = memory

    def reading(self, count: int) -> None:
        """Hold what is read of a message so far. Raise as `hold`."""
        self.hold(_READ * count)

    def whole(self, message: Message, *, beside: int = 0) -> None:
        """Hold a message that was read, beside so many bytes of the next one. Raise as `hold`."""
        values = min(sum(map(message.text.count, ",[{")), MOST_VALUES)
        self.hold(_TEXTS * getsizeof(message.text) + _VALUE_BYTES * values + _READ * beside)
