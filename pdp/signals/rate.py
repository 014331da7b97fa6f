"""How many requests of one kind are taken: a burst, and then so many in a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

PER_SECOND: Final = 20.0
BURST: Final = 100.0


class Rate:
    """A bucket that fills with time. For one thread. `monotonic` returns seconds that never go back."""

    def __init__(self, monotonic: Callable[[], float], *, per_second: float = PER_SECOND, burst: float = BURST) -> None:
        self._monotonic, self._per_second, self._burst = monotonic, per_second, burst
        self._left, self._at = burst, monotonic()

    def take(self) -> bool:
        """Take one; return False when there is none."""
        now = self._monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
