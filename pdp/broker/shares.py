"""How many requests are open: in all, and of each presenter, so that one leaves room for the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from pdp.broker.admitting import shown
from pdp.calltokens.claims import Presenter
from pdp.errors import OverloadedError


class Shares:
    """At most `most` requests, and half of them of one presenter. Safe for threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = Lock()
        self._open: Counter[str] = Counter()

    @contextmanager
    def taken(self, presenter: Presenter | None) -> Iterator[None]:
        """Hold a place for a request of a presenter. Raise `OverloadedError` without one."""
        whose = shown(presenter)
        with self._lock:
            if self._open.total() >= self._most or self._open[whose] >= self._most // 2:
                raise OverloadedError("too many requests are open: try again later")
            self._open[whose] += 1
        try:
            yield
        finally:
            with self._lock:
                self._open[whose] -= 1
                if not self._open[whose]:
                    del self._open[whose]
