"""Allowed calls of a framework that has one hook before a call and another one after it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

from pdp.doors.admissions import Admission
from pdp.doors.observing import NO_RESULT
from pdp.observer import CallOutcome

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
            forgotten = [self._calls.pop(key, None)]
            self._calls[key] = admission
            if len(self._calls) > _MOST_CALLS:
                forgotten.append(self._calls.popitem(last=False)[1])
        for one in forgotten:
            if one is not None:
                one.under_way.over(CallOutcome.ALLOW, NO_RESULT)

    def take(self, key: Hashable) -> Admission | None:
        """Return the allowed call of a key once; None when there is none."""
        with self._lock:
            return self._calls.pop(key, None)
