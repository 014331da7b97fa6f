"""Calls with many answers, each on a thread. Without credentials few are open, and one more ends the oldest."""

from __future__ import annotations

import threading

from pdp.errors import OverloadedError, PDPError


class Feed:
    """A call with many answers, until it is over."""

    __slots__ = ("error", "over")

    def __init__(self) -> None:
        self.over = threading.Event()
        self.error: PDPError | None = None

    def give_up(self, error: PDPError) -> None:
        """End with an error, on the thread that answers."""
        self.error = error
        self.over.set()


class OpenFeeds:
    """The feeds that are open without credentials. Safe for threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        # Guards the feeds, which are in order of arrival.
        self._lock = threading.Lock()
        self._feeds: dict[Feed, None] = {}

    def __len__(self) -> int:
        """Return how many are open."""
        with self._lock:
            return len(self._feeds)

    def add(self, feed: Feed) -> None:
        """Add a feed; one more than allowed ends the oldest."""
        with self._lock:
            oldest = next(iter(self._feeds)) if len(self._feeds) >= self._most else None
            self._feeds[feed] = None
            if oldest is not None:
                del self._feeds[oldest]
        if oldest is not None:
            oldest.give_up(OverloadedError(f"more than {self._most} watches are open; try again"))

    def discard(self, feed: Feed) -> None:
        """Forget a feed that is over, if it is here."""
        with self._lock:
            self._feeds.pop(feed, None)
