"""How often something may happen in a while."""

from __future__ import annotations

from collections import deque


class Flood:
    """Counts what happens: more than `most` times in `seconds` is too much."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._at: deque[float] = deque()

    def is_too_much(self, now: float) -> bool:
        """Count one more, and say whether that is too much."""
        while self._at and self._at[0] <= now - self._seconds:
            self._at.popleft()
        self._at.append(now)
        return len(self._at) > self._most

    def forget(self) -> None:
        """Begin anew."""
        self._at.clear()
