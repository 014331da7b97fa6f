"""Allowed calls of a framework that has one hook before a call and another one after it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

from pdp.doors.core import Admission

# A call that is never over, because it was cancelled or its run ended, leaves this way.
_MOST_CALLS = 4096


class Pending:
    """Keeps each allowed call until it is over. Safe to use from many threads.

    A call that is not found must be treated as one that was never allowed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: OrderedDict[Hashable, Admission] = OrderedDict()

    def put(self, key: Hashable, admission: Admission) -> None:
        """Keep an allowed call; an earlier one of the same key is forgotten, and so is the oldest beyond a bound."""
        with self._lock:
            self._calls.pop(key, None)
            self._calls[key] = admission
            if len(self._calls) > _MOST_CALLS:
                self._calls.popitem(last=False)

    def take(self, key: Hashable) -> Admission | None:
        """Return the allowed call of a key once; None when there is none."""
        with self._lock:
            return self._calls.pop(key, None)
