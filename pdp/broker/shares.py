"""How many requests are open, and how much of their answers is held, so that one leaves room for the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Lock

from pdp.broker.admitting import shown
from pdp.broker.sending import UpstreamFailedError
from pdp.calltokens.claims import Presenter
from pdp.errors import OverloadedError


class Shares:
    """At most `most` requests, and `each` of one presenter or person, by default half. Safe for threads."""

    def __init__(self, most: int, *, each: int | None = None) -> None:
        self._most, self._each = most, each or most // 2
        self._lock = Lock()
        self._open: Counter[str] = Counter()

    @contextmanager
    def taken(self, presenter: Presenter | None) -> Iterator[None]:
        """Hold a place for a request of a presenter. Raise `OverloadedError` without one."""
        with self.taken_by(shown(presenter)):
            yield

    @contextmanager
    def taken_by(self, whose: str) -> Iterator[None]:
        """Hold a place for a request of somebody, by name. Raise `OverloadedError` without one."""
        with self._lock:
            if self._open.total() >= self._most or self._open[whose] >= self._each:
                raise OverloadedError("too many requests are open: try again later")
            self._open[whose] += 1
        try:
            yield
        finally:
            with self._lock:
                self._open[whose] -= 1
                if not self._open[whose]:
                    del self._open[whose]


class Room:
    """What may be held of answers that are handed on whole: `free` bytes of each, and beyond these `most` of all.

    Safe for threads.
    """

    def __init__(self, *, free: int, most: int) -> None:
        self._free, self._most = free, most
        self._lock = Lock()
        self._held = 0

    @contextmanager
    def whole(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Hold a whole body while the block runs. Raise `UpstreamFailedError` when there is no room for it."""
        body, held = bytearray(), 0
        try:
            for piece in pieces:
                body += piece
                more = max(len(body) - self._free, 0) - held
                with self._lock:
                    if self._held + more > self._most:
                        raise UpstreamFailedError("answers more than there is room for beside others")
                    self._held += more
                held += more
            yield bytes(body)
        finally:
            with self._lock:
                self._held -= held
